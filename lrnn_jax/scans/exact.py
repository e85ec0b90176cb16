"""Products in full float32 for states, gates and systems that do not bear less.

By default a GPU rounds the factors of a float32 product to 10 bits of mantissa (TF32) and a TPU to 7; a CPU rounds nothing.
"""

import functools

import jax.numpy as jnp

einsum = functools.partial(jnp.einsum, precision="highest")
matmul = functools.partial(jnp.matmul, precision="highest")
