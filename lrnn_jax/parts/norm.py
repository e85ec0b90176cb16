"""Normalisation to unit length."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def normalise_l2(x: Float[Array, "*batch K"]) -> Float[Array, "*batch K"]:
    """Returns ``x / sqrt(||x||^2 + 1e-6)`` over the last axis, as in the public code of the delta-rule layers."""
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)
