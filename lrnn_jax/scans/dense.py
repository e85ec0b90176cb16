"""The dense recurrence of a vanilla RNN: one matrix for all positions, an activation, and one backward loop for both."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lrnn_jax.scans.checks import check_arrays
from lrnn_jax.scans.exact import einsum, matmul
from lrnn_jax.scans.method import Serves, choose_method
from lrnn_jax.scans.recurrence import cut, keep_mask, loop_over_time, shift, start_state

METHODS = {"sequential": Serves()}
ACTIVATIONS = ("tanh", "relu", "linear")


@check_arrays
def scan_dense(
    a: Float[Array, "N N"],
    b: Float[Array, "B T N"],
    *,
    activation: str = "tanh",
    h0: Float[Array, "B N"] | None = None,
    reset: Bool[Array, "B T"] | None = None,
    method: str = "auto",
) -> tuple[Float[Array, "B T N"], Float[Array, "B N"]]:
    """Computes ``h_t = f(A h_{t-1} + b_t)``, one position after the other.

    Args:
      a: A.
      b: input per position.
      activation: f: ``"tanh"``, ``"relu"``, or ``"linear"`` for none.
      h0: state before the first position; zeros if None.
      reset: True where a new sequence starts.
      method: ``"sequential"`` or ``"auto"``, which is the same.

    Returns:
      ``(h, h_last)`` in float32: every state, and the last one.

    Raises:
      ValueError: unknown method or activation, or arrays that do not fit, see `check_arrays`.

    Numerics: float32; reverse-mode gradients only. The backward loop has one product per position, as this one has: the
    gradient of A is one product of all cotangents and all states after it.

    Example: without an activation it is a linear recurrence; this A exchanges two numbers.

    >>> a, b = np.array([[0.0, 1.0], [1.0, 0.0]]), np.zeros((1, 3, 2))
    >>> h, h_last = scan_dense(a, b, activation="linear", h0=np.array([[1.0, 2.0]]))
    >>> h.tolist()
    [[[2.0, 1.0], [1.0, 2.0], [2.0, 1.0]]]
    """
    choose_method(method, METHODS, accelerator="sequential", steps=b.shape[1])
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r} is not one of {', '.join(ACTIVATIONS)}")
    a, b, h0 = a.astype(jnp.float32), b.astype(jnp.float32), start_state(h0, (b.shape[0], b.shape[2]))
    if not b.shape[1]:
        return b, h0
    h = _run(activation, a, b, h0, keep_mask(reset))
    return h, h[:, -1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(activation: str, a: jax.Array, b: jax.Array, h0: jax.Array, keep: jax.Array | None) -> jax.Array:
    return loop_over_time(functools.partial(_step, activation, a.T), h0, (b, keep))[0]


def slope(activation: str, h: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns f' where f has the value ``h``."""
    if activation == "tanh":
        return 1.0 - h * h
    return (h > 0.0).astype(h.dtype) if activation == "relu" else jnp.ones_like(h)


def _forward(activation: str, a: jax.Array, b: jax.Array, h0: jax.Array, keep: Any) -> tuple[jax.Array, tuple]:
    h = _run(activation, a, b, h0, keep)
    return h, (a, h0, keep, h)


def _backward(activation: str, residual: tuple, g: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    """With d_t the cotangent of b_t: ``d_t = f'_t (g_t + keep_{t+1} A^T d_{t+1})``."""
    a, h0, keep, h = residual
    step = functools.partial(_step_back, a)
    d, d_h0 = loop_over_time(step, jnp.zeros_like(h0), (g, slope(activation, h), keep), reverse=True)
    d_a = einsum("bti,btj->ij", d, cut(shift(h, h0), keep))
    return d_a, d, d_h0, None


_run.defvjp(_forward, _backward)


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
