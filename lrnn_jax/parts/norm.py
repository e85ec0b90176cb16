"""Normalisations over features (LayerNorm, RMSNorm, L2) or over batch and time (BatchNorm)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

NORMS = ("layernorm", "rmsnorm", "batchnorm", "none")


def make_norm(kind: str, *, train: bool, dtype: Any, name: str | None = None) -> Callable[[jax.Array], jax.Array]:
    """Returns the normalisation called ``kind``; computed in float32.

    Args:
      kind: one of `NORMS`.
      train: BatchNorm uses the batch's statistics and updates its running ones (momentum 0.95, as S5 and LRU).
      dtype: dtype of the result.
      name: name of the submodule.
    """
    norms: dict[str, Callable[[], nn.Module]] = {
        "layernorm": lambda: nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32, name=name),
        "rmsnorm": lambda: nn.RMSNorm(epsilon=1e-5, dtype=jnp.float32, name=name),
        "batchnorm": lambda: nn.BatchNorm(
            use_running_average=not train, momentum=0.95, epsilon=1e-5, dtype=jnp.float32, name=name
        ),
    }
    if kind == "none":
        return lambda x: x.astype(dtype)
    if kind not in norms:
        raise ValueError(f"norm {kind!r} is not one of {', '.join(NORMS)}")
    module = norms[kind]()
    return lambda x: module(x.astype(jnp.float32)).astype(dtype)


def normalise_l2(x: Float[Array, "*batch K"]) -> Float[Array, "*batch K"]:
    """Returns ``x / sqrt(||x||^2 + 1e-6)`` over the last axis, as in the public code of the delta-rule layers."""
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)
