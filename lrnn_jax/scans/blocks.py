"""Block-diagonal linear recurrences: one dense M x M matrix per block and position."""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from lrnn_jax.scans.checks import check_arrays
from lrnn_jax.scans.diagonal import scan_diagonal
from lrnn_jax.scans.exact import einsum
from lrnn_jax.scans.method import Serves, choose_method
from lrnn_jax.scans.recurrence import cut, keep_mask, loop_over_time, shift, start_state

METHODS = {"sequential": Serves(), "associative": Serves()}
# Blocks up to this size are summed over; of these others the columns are added up one by one; all else are batched products.
# On a CPU the other ways took 1.1 to 2 times as long, and sums over 3 numbers of 640 blocks 8 times.
SUMMED, BY_COLUMNS = 2, (3, 5, 6, 7)

Affine = tuple[Float[Array, "B T H M M"], Float[Array, "B T H M"]]


@check_arrays
def scan_blocks(
    a: Float[Array, "B T H M M"],
    b: Float[Array, "B T H M"],
    *,
    h0: Float[Array, "B H M"] | None = None,
    reset: Bool[Array, "B T"] | None = None,
    method: str = "auto",
) -> tuple[Float[Array, "B T H M"], Float[Array, "B H M"]]:
    """Computes ``h_t = A_t h_{t-1} + b_t`` in each of H blocks.

    Args:
      a: transition matrices per position and block, any real values.
      b: input per position.
      h0: state before the first position; zeros if None.
      reset: True where a new sequence starts.
      method: ``"sequential"``, ``"associative"`` (composes matrices, O(T M^3) work and O(T M^2) memory, several times over), or
        ``"auto"`` (sequential on a CPU, associative elsewhere). Blocks of one are `scan_diagonal`.

    Returns:
      ``(h, h_last)`` in float32: every state and the last one.

    Raises:
      ValueError: unknown method, or arrays that do not fit, see `check_arrays`.

    Source: Dubinin et al. 2026, the recurrence of BD-LRU.
    Numerics: reverse-mode gradients only. The backward pass is the recurrence's adjoint, one more scan, over a and h alone.

    Example: one block that exchanges two numbers at every position.

    >>> a, b = np.tile([[0.0, 1.0], [1.0, 0.0]], (1, 3, 1, 1, 1)), np.zeros((1, 3, 1, 2))
    >>> h, h_last = scan_blocks(a, b, h0=np.array([[[1.0, 2.0]]]))
    >>> h.tolist()
    [[[[2.0, 1.0]], [[1.0, 2.0]], [[2.0, 1.0]]]]
    """
    if a.shape[-1] == 1:
        return scan_diagonal(a[..., 0], b, h0=h0, reset=reset, method=method)
    method = choose_method(method, METHODS, accelerator="associative", steps=a.shape[1])
    h0 = start_state(h0, (b.shape[0], *b.shape[2:]))
    a, b = cut(a.astype(jnp.float32), keep_mask(reset)), b.astype(jnp.float32)
    h = _run(method, a, b, h0)
    return h, h[:, -1] if h.shape[1] else h0


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(method: str, a: jax.Array, b: jax.Array, h0: jax.Array) -> jax.Array:
    if method == "sequential":
        return loop_over_time(_advance, h0, (a, b))[0]
    b = b.at[:, 0].add(_multiply(a[:, 0], h0))
    return lax.associative_scan(_compose, (a, b), axis=1)[1]


def _forward(method: str, a: jax.Array, b: jax.Array, h0: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    h = _run(method, a, b, h0)
    return h, (a, h0, h)


def _backward(method: str, residual: tuple[jax.Array, ...], dy: jax.Array) -> tuple[jax.Array, ...]:
    """The adjoint is ``dh_t = dy_t + A_{t+1}^T dh_{t+1}``, and then dA_t is the outer product of dh_t and h_{t-1}.

    That product is no part of the loop, which is 1.0 to 1.4 times faster on a CPU; and what uses dA can absorb it.
    """
    a, h0, h = residual
    if method == "sequential":
        dh, dh0 = loop_over_time(_retreat, jnp.zeros_like(h0), (a, dy), reverse=True)
    else:
        transposed = jnp.swapaxes(a, -2, -1)
        later = shift(transposed, jnp.zeros_like(a[:, 0]), reverse=True)
        dh = lax.associative_scan(_compose, (later, dy), axis=1, reverse=True)[1]
        dh0 = _multiply(transposed[:, 0], dh[:, 0])
    return dh[..., :, None] * shift(h, h0)[..., None, :], dh, dh0


_run.defvjp(_forward, _backward)


def _advance(_: tuple, h: jax.Array, x: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    a, b = x
    h = _multiply(a, h) + b
    return h, h


def _retreat(_: tuple, above: jax.Array, x: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """From ``A_{t+1}^T dh_{t+1}`` to ``A_t^T dh_t``, and dh_t."""
    a, dy = x
    dh = dy + above
    size = dh.shape[-1]
    if size <= SUMMED:
        return jnp.sum(a * dh[..., :, None], axis=-2), dh
    if size in BY_COLUMNS:
        return _add_up(a[..., i, :] * dh[..., i, None] for i in range(size)), dh
    return einsum("bhij,bhi->bhj", a, dh), dh


def _multiply(a: jax.Array, h: jax.Array) -> jax.Array:
    size = h.shape[-1]
    if size <= SUMMED:
        return jnp.sum(a * h[..., None, :], axis=-1)
    if size in BY_COLUMNS:
        return _add_up(a[..., j] * h[..., j, None] for j in range(size))
    return einsum("bhij,bhj->bhi", a, h)


def _add_up(parts: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, parts)


def _compose(x: Affine, y: Affine) -> Affine:
    """First x, then y."""
    return einsum("bthij,bthjk->bthik", y[0], x[0]), einsum("bthij,bthj->bthi", y[0], x[1]) + y[1]
