"""The dense recurrence of a vanilla RNN: one matrix for all positions, an activation, and one backward loop for both."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lrnn_jax.scans.exact import einsum, matmul
from lrnn_jax.scans.recurrence import cut, loop_over_time, shift

ACTIVATIONS = ("tanh", "relu", "linear")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def run_dense(
    activation: str,
    a: Float[Array, "N N"],
    b: Float[Array, "B T N"],
    h0: Float[Array, "B N"],
    keep: Float[Array, "B T"] | None,
) -> Float[Array, "B T N"]:
    """Returns every ``h_t = f(A keep_t h_{t-1} + b_t)``, one position after the other.

    Args:
      activation: f, one of `ACTIVATIONS`.
      a: A.
      b: inputs.
      h0: state before the first position.
      keep: 0 where a new sequence starts, else 1; None keeps everything.

    Numerics: float32; reverse-mode gradients only. The backward loop has one product per position, as this one has: the
    gradient of A is one product of all cotangents and all states after it.
    """
    return loop_over_time(functools.partial(_step, activation, a.T), h0, (b, keep))[0]


def slope(activation: str, h: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns f' where f has the value ``h``."""
    if activation == "tanh":
        return 1.0 - h * h
    return (h > 0.0).astype(h.dtype) if activation == "relu" else jnp.ones_like(h)


def _forward(activation: str, a: jax.Array, b: jax.Array, h0: jax.Array, keep: Any) -> tuple[jax.Array, tuple]:
    h = run_dense(activation, a, b, h0, keep)
    return h, (a, h0, keep, h)


def _backward(activation: str, residual: tuple, g: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    """With d_t the cotangent of b_t: ``d_t = f'_t (g_t + keep_{t+1} A^T d_{t+1})``."""
    a, h0, keep, h = residual
    step = functools.partial(_step_back, a)
    d, d_h0 = loop_over_time(step, jnp.zeros_like(h0), (g, slope(activation, h), keep), reverse=True)
    d_a = einsum("bti,btj->ij", d, cut(shift(h, h0), keep))
    return d_a, d, d_h0, None


run_dense.defvjp(_forward, _backward)


def _step(
    activation: str, transposed: jax.Array, _: tuple, h: jax.Array, x: tuple[jax.Array, jax.Array | None]
) -> tuple[jax.Array, jax.Array]:
    b, keep = x
    h = matmul(cut(h, keep), transposed) + b
    if activation == "tanh":
        h = jnp.tanh(h)
    elif activation == "relu":
        h = jnp.maximum(h, 0.0)
    return h, h


def _step_back(
    a: jax.Array, _: tuple, above: jax.Array, x: tuple[jax.Array, jax.Array, jax.Array | None]
) -> tuple[jax.Array, jax.Array]:
    """From the cotangent of h_t that comes from above to that of h_{t-1}, and d_t."""
    g, inner, keep = x
    d = inner * (g + above)
    return cut(matmul(d, a), keep), d
