"""Initial values that several layers share."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def uniform(bound: float) -> nn.initializers.Initializer:
    """Returns an initialiser that draws uniformly from +-``bound``."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def init_dt_bias(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Draws a bias whose softplus, a step size, is log-uniform in [1e-3, 1e-1]. Source: the code of Gu and Dao 2023."""
    dt = jnp.exp(jax.random.uniform(key, shape, dtype, math.log(1e-3), math.log(1e-1)))
    return dt + jnp.log(-jnp.expm1(-dt))  # the inverse of softplus
