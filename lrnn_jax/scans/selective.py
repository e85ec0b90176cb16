"""Mamba's selective scan: a diagonal recurrence whose coefficients are made from the input at every step."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lrnn_jax.scans.checks import check_arrays
from lrnn_jax.scans.chunks import run_chunks, split
from lrnn_jax.scans.diagonal import scan_diagonal
from lrnn_jax.scans.exact import einsum
from lrnn_jax.scans.method import Serves, choose_method
from lrnn_jax.scans.recurrence import cut, keep_mask, run_recurrence, start_state

METHODS = {"sequential": Serves(), "chunked": Serves()}

# Positions whose states are held at once.
CHUNK = 64


@check_arrays
def scan_selective(
    u: Float[Array, "B T E"],
    dt: Float[Array, "B T E"],
    a: Float[Array, "E N"],
    b: Float[Array, "B T N"],
    c: Float[Array, "B T N"],
    *,
    negative_eigenvalues: bool = False,
    h0: Float[Array, "B E N"] | None = None,
    reset: Bool[Array, "B T"] | None = None,
    method: str = "auto",
) -> tuple[Float[Array, "B T E"], Float[Array, "B E N"]]:
    """Computes ``h_t = abar_t * h_{t-1} + dt_t u_t b_t^T`` and ``y_t = h_t c_t`` with ``abar_t = exp(dt_t a)``.

    Args:
      u: input per channel.
      dt: step size, positive.
      a: continuous-time decay rates, negative.
      b: input direction.
      c: readout direction.
      negative_eigenvalues: uses ``abar_t = 2 exp(dt_t a) - 1``, in [-1, 1] instead of [0, 1]; the input term is unchanged.
      h0: state before the first position; zeros if None.
      reset: True where a new sequence starts.
      method: ``"sequential"`` (one state at a time), ``"chunked"`` (an associative scan over 64 positions at a time), or
        ``"auto"`` (sequential on a CPU, chunked elsewhere). None holds ``[B T E N]``, in the backward pass either.

    Returns:
      ``(y, h_last)`` in float32.

    Raises:
      ValueError: unknown method, or arrays that do not fit, see `check_arrays`.

    Source: Gu and Dao 2023; the range [-1, 1]: Grazzi et al. 2025, Eq. 2 and its released kernel.

    Example: where the step size is 0, the state stays.

    >>> u = np.ones((1, 3, 1))
    >>> y, h_last = scan_selective(u, 0 * u, -np.ones((1, 1)), u, u, h0=np.full((1, 1, 1), 5.0))
    >>> y.tolist()
    [[[5.0], [5.0], [5.0]]]
    """
    method = choose_method(method, METHODS, accelerator="chunked", steps=u.shape[1])
    u, dt, a, b, c = (x.astype(jnp.float32) for x in (u, dt, a, b, c))
    h0 = start_state(h0, (u.shape[0], *a.shape))
    keep = keep_mask(reset)
    if method == "sequential":
        step = functools.partial(_step, negative_eigenvalues)
        y, last = run_recurrence(step, a.T, jnp.swapaxes(h0, 1, 2), (u, dt, b, c, keep))
        return y, jnp.swapaxes(last, 1, 2)
    size = min(u.shape[1], CHUNK)
    chunks = *(split(x, size) for x in (u, dt, b, c)), None if keep is None else split(keep, size, fill=1)
    # A step size of 0 carries the last state through the padding.
    return run_chunks(functools.partial(_run_chunk, negative_eigenvalues, a), h0, chunks, u.shape[1])


def transition_eigenvalues(
    dt: Float[Array, "*batch E"], a: Float[Array, "E N"], *, negative_eigenvalues: bool
) -> Float[Array, "*batch E N"]:
    """Returns ``exp(dt a)``, or ``2 exp(dt a) - 1`` for the range [-1, 1]."""
    return _to_range(jnp.exp(dt[..., None] * a.reshape((1,) * (dt.ndim - 1) + a.shape)), negative_eigenvalues)


def _to_range(decay: jax.Array, negative_eigenvalues: bool) -> jax.Array:
    return 2.0 * decay - 1.0 if negative_eigenvalues else decay


def _step(negative_eigenvalues: bool, a: jax.Array, h: jax.Array, x: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
    """One step of states [B N E]: with [B E N], and sums for products, gradients take a CPU three times as long."""
    u, dt, b, c, keep = x
    abar = _to_range(jnp.exp(dt[:, None, :] * a[None]), negative_eigenvalues)
    h = abar * cut(h, keep) + einsum("bn,be->bne", b, dt * u)
    return h, einsum("bne,bn->be", h, c)


def _run_chunk(negative_eigenvalues: bool, a: jax.Array, h: jax.Array, x: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
    u, dt, b, c, keep = x
    abar = cut(transition_eigenvalues(dt, a, negative_eigenvalues=negative_eigenvalues), keep)
    h, last = scan_diagonal(abar, (dt * u)[..., None] * b[:, :, None, :], h0=h, method="associative")
    return last, jnp.sum(h * c[:, :, None, :], axis=-1)
