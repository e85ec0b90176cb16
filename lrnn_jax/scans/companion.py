"""Recurrences of higher order: each channel keeps its last M values, and a position costs a dot product and a shift."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lrnn_jax.scans.blocks import METHODS, scan_blocks
from lrnn_jax.scans.checks import check_arrays
from lrnn_jax.scans.diagonal import scan_diagonal
from lrnn_jax.scans.method import choose_method
from lrnn_jax.scans.recurrence import cut, keep_mask, loop_over_time, shift, start_state

Inputs = tuple[Float[Array, "B H M"], Float[Array, "B H *M"], Float[Array, " B"] | None]


@check_arrays
def scan_companion(
    a: Float[Array, "B T H M"],
    b: Float[Array, "B T H"],
    *,
    h0: Float[Array, "B H M"] | None = None,
    reset: Bool[Array, "B T"] | None = None,
    method: str = "auto",
    observer: bool = False,
) -> tuple[Float[Array, "B T H M"], Float[Array, "B H M"]]:
    """Computes ``h_t = a_t^1 h_{t-1} + ... + a_t^M h_{t-M} + b_t`` in each of H channels, with all M values as the state.

    The state s_t is ``(h_t, h_{t-1}, ..., h_{t-M+1})``, so ``s_t = C_t s_{t-1} + b_t e_1``: C_t has the coefficients in its
    first row and ones below the diagonal.

    Args:
      a: coefficients per position and channel, that of h_{t-1} first; any real values.
      b: input per position and channel.
      h0: state before the first position, the latest value first; zeros if None.
      reset: True where a new sequence starts; what came before is zero in its states.
      method: ``"sequential"`` (never an M x M matrix), ``"associative"`` (`scan_blocks` over the matrices C_t), or ``"auto"``
        (sequential on a CPU, associative elsewhere). Order 1 is `scan_diagonal`.
      observer: puts the transpose of C_t in its place, ``s_t^i = a_t^i s_{t-1}^1 + s_{t-1}^{i+1}``, plus b_t for i = 1: with
        coefficients that do not depend on t the same ``h_t = s_t^1``, else another recurrence.

    Returns:
      ``(s, s_last)`` in float32: every state and the last one.

    Raises:
      ValueError: unknown method, or arrays that do not fit, see `check_arrays`.

    Source: Dubinin et al. 2026, the recurrence of H-LRU; the observer form is that of its released language models.
    Numerics: reverse-mode gradients only. Each form's backward pass is a loop of the other form.

    Example: Fibonacci's numbers; the state has the latest two of them.

    >>> s, s_last = scan_companion(np.ones((1, 4, 1, 2)), np.zeros((1, 4, 1)), h0=np.array([[[1.0, 0.0]]]))
    >>> s.tolist()
    [[[[1.0, 1.0]], [[2.0, 1.0]], [[3.0, 2.0]], [[5.0, 3.0]]]]
    """
    if a.shape[-1] == 1:
        start = None if h0 is None else h0[..., 0]
        h, last = scan_diagonal(a[..., 0], b, h0=start, reset=reset, method=method)
        return h[..., None], last[..., None]
    method = choose_method(method, METHODS, accelerator="associative", steps=a.shape[1])
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    if method == "associative":
        matrices = make_companion(a, observer=observer)
        return scan_blocks(matrices, _into_first(b, a.shape[-1]), h0=h0, reset=reset, method=method)
    h0 = start_state(h0, (a.shape[0], *a.shape[2:]))
    s = _run(observer, a, b, h0, keep_mask(reset))
    return s, s[:, -1] if s.shape[1] else h0


def make_companion(a: Float[Array, "*B M"], *, observer: bool = False) -> Float[Array, "*B M M"]:
    """Returns the matrices C with coefficients ``a`` in the first row and ones below the diagonal, or their transposes."""
    size = a.shape[-1]
    ones = jnp.broadcast_to(jnp.eye(size - 1, size, dtype=a.dtype), (*a.shape[:-1], size - 1, size))
    matrices = jnp.concatenate([a[..., None, :], ones], axis=-2)
    return jnp.swapaxes(matrices, -2, -1) if observer else matrices


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(observer: bool, a: jax.Array, b: jax.Array, h0: jax.Array, keep: jax.Array | None) -> jax.Array:
    return loop_over_time(_advance_observer if observer else _advance, h0, (a, b, keep))[0]


def _forward(
    observer: bool, a: jax.Array, b: jax.Array, h0: jax.Array, keep: jax.Array | None
) -> tuple[jax.Array, tuple[jax.Array | None, ...]]:
    s = _run(observer, a, b, h0, keep)
    return s, (a, h0, keep, s)


def _backward(observer: bool, residual: tuple, dy: jax.Array) -> tuple[jax.Array | None, ...]:
    """The adjoint is ``ds_t = dy_t + C_{t+1}^T ds_{t+1}``; b_t is met by its first entry, a_t by the row or column it fills."""
    a, h0, keep, s = residual
    start = jnp.zeros_like(h0)
    before = cut(shift(s, h0), keep)
    if observer:
        ds, dh0 = loop_over_time(_retreat_observer, start, (a, dy, keep), reverse=True)
        da, db = ds * before[..., :1], ds[..., 0]
    else:
        db, dh0 = loop_over_time(_retreat, start, (a, dy, keep), reverse=True)
        da = db[..., None] * before
    return da, db, dh0, None if keep is None else jnp.zeros_like(keep)


_run.defvjp(_forward, _backward)


def _advance(_: tuple, s: jax.Array, x: Inputs) -> tuple[jax.Array, jax.Array]:
    a, b, keep = x
    s = cut(s, keep)
    h = jnp.sum(a * s, axis=-1) + b
    s = jnp.concatenate([h[..., None], s[..., :-1]], axis=-1)
    return s, s


def _advance_observer(_: tuple, s: jax.Array, x: Inputs) -> tuple[jax.Array, jax.Array]:
    a, b, keep = x
    s = cut(s, keep)
    s = a * s[..., :1] + _move_up(s) + _into_first(b, s.shape[-1])
    return s, s


def _retreat(_: tuple, above: jax.Array, x: Inputs) -> tuple[jax.Array, jax.Array]:
    """From ``C_{t+1}^T ds_{t+1}`` to ``C_t^T ds_t``, and db_t."""
    a, dy, keep = x
    ds = dy + above
    return cut(a * ds[..., :1] + _move_up(ds), keep), ds[..., 0]


def _retreat_observer(_: tuple, above: jax.Array, x: Inputs) -> tuple[jax.Array, jax.Array]:
    """From ``C_{t+1} ds_{t+1}`` to ``C_t ds_t``, and ds_t."""
    a, dy, keep = x
    ds = dy + above
    return cut(jnp.concatenate([jnp.sum(a * ds, axis=-1)[..., None], ds[..., :-1]], axis=-1), keep), ds


def _move_up(s: jax.Array) -> jax.Array:
    return jnp.concatenate([s[..., 1:], jnp.zeros_like(s[..., :1])], axis=-1)


def _into_first(b: jax.Array, size: int) -> jax.Array:
    """``b e_1``: each number as the first of ``size``, the others 0."""
    return jnp.concatenate([b[..., None], jnp.zeros((*b.shape, size - 1), b.dtype)], axis=-1)
