"""Causal softmax attention over a window, as a recurrence whose state is a cache of keys and values."""

import functools
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from lrnn_jax.scans.checks import check_arrays
from lrnn_jax.scans.chunks import chunks_first, join, split
from lrnn_jax.scans.method import Serves, choose_method
from lrnn_jax.scans.recurrence import cut, keep_mask, run_recurrence

METHODS = {"sequential": Serves(), "chunked": Serves()}
BASE = 10000.0
# Queries handled together: at most these, so that no more than this times (window + this) scores exist at once.
BLOCK = 256
# Documents that no query belongs to: of keys that were never written, and of what fills up the last block.
EMPTY, PADDING = -1, -2


class Cache(TypedDict):
    """The last W = window - 1 positions; ``valid`` is above 1/2 where there was one."""

    k: Float[Array, "B W H K"]
    v: Float[Array, "B W H K"]
    valid: Float[Array, "B W"]


@check_arrays
def scan_attention(
    q: Float[Array, "B T H K"],
    k: Float[Array, "B T H K"],
    v: Float[Array, "B T H K"],
    *,
    window: int,
    h0: Cache | None = None,
    reset: Bool[Array, "B T"] | None = None,
    method: str = "auto",
) -> tuple[Float[Array, "B T H K"], dict[str, jax.Array]]:
    """Computes ``o_t = sum_s softmax_s((R_t q_t)^T (R_s k_s) / sqrt(K)) v_s`` over t - window < s <= t of one document.

    R_t rotates the feature pairs (j, j + K/2) by ``t BASE^(-2j/K)``; only t - s matters, so positions are counted within a
    block and results depend neither on where a sequence is cut nor on how long it has become.

    Args:
      q: queries; their dtype is that of the products, which accumulate in float32, as does the softmax.
      k: keys, not rotated. K is even.
      v: values.
      window: positions that a query sees, its own included.
      h0: cache of the last ``window - 1`` positions: ``k`` and ``v``, ``[B window-1 H K]``, and ``valid``, ``[B window-1]``,
        above 1/2 where there was a position. None: nothing before.
      reset: True where a new sequence starts.
      method: ``"sequential"`` (one query at a time), ``"chunked"`` (blocks of queries against bands of keys), or ``"auto"``
        (chunked on every platform).

    Returns:
      ``(o, h_last)`` in float32.

    Raises:
      ValueError: unknown method, or arrays that do not fit, see `check_arrays`; K is odd, window below 1, or ``h0`` of another
        window.

    Source: Vaswani et al. 2017, Eq. 1; Su et al. 2021 (RoPE).

    Example: queries of 0 weigh the values that they see alike.

    >>> q, v = np.zeros((1, 3, 1, 2)), np.arange(6.0).reshape(1, 3, 1, 2)
    >>> o, cache = scan_attention(q, q, v, window=2)
    >>> o.tolist()
    [[[[0.0, 1.0]], [[1.0, 2.0]], [[3.0, 4.0]]]]
    """
    method = choose_method(method, METHODS, accelerator="chunked", cpu="chunked", steps=q.shape[1])
    _check_window(window, q, h0)
    past = None if h0 is None else jax.tree.map(lambda x: x.astype(jnp.float32), h0)
    if method == "chunked":
        return _chunked(q, k, v, window, past, reset)
    cache = empty_cache(q.shape[0], window, *q.shape[2:]) if past is None else past
    return run_recurrence(functools.partial(_advance, window), (), cache, (q, k, v, keep_mask(reset)))


def empty_cache(batch: int, window: int, heads: int, size: int) -> dict[str, jax.Array]:
    """Returns the cache before the first position, in float32."""
    past = jnp.zeros((batch, window - 1, heads, size), jnp.float32)
    return {"k": past, "v": past, "valid": jnp.zeros((batch, window - 1), jnp.float32)}


def _check_window(window: int, q: jax.Array, h0: Cache | None) -> None:
    if window < 1:
        raise ValueError(f"window: {window} is below 1")
    if q.shape[-1] % 2:
        raise ValueError(f"q: shape {q.shape} has an odd K, of which no pairs can be rotated")
    if h0 is not None and h0["valid"].shape[1] != window - 1:
        raise ValueError(f"h0: a cache of {h0['valid'].shape[1]} positions is not that of a window of {window}")


def _advance(window: int, _: tuple, cache: dict[str, jax.Array], x: tuple[Any, ...]) -> tuple[dict[str, jax.Array], jax.Array]:
    q, k, v, keep = x
    now = {"k": k, "v": v, "valid": jnp.ones(k.shape[0])}
    seen = {name: _append(cut(cache[name], keep), now[name][:, None]) for name in now}
    document = jnp.where(seen["valid"] > 0.5, 0, EMPTY)
    o = _attend(window, q[:, None], document[:, -1:], seen["k"], seen["v"], document)
    return {name: past[:, 1:] for name, past in seen.items()}, o[:, 0]


def _chunked(
    q: jax.Array, k: jax.Array, v: jax.Array, window: int, past: dict[str, jax.Array] | None, reset: jax.Array | None
) -> tuple[jax.Array, dict[str, jax.Array]]:
    batch, steps = q.shape[:2]
    document = jnp.zeros((batch, steps), jnp.int32) if reset is None else jnp.cumsum(reset.astype(jnp.int32), axis=1)
    cache = empty_cache(batch, window, *q.shape[2:]) if past is None else past
    carried = _carry(cache, k, v, document)
    keys, values, owners = k, v, document
    if past is not None:
        keys, values = (jnp.concatenate([past[name].astype(x.dtype), x], axis=1) for name, x in (("k", k), ("v", v)))
        owners = jnp.concatenate([jnp.where(cache["valid"] > 0.5, 0, EMPTY), document], axis=1)
    if steps <= BLOCK:
        return _attend(window, q, document, keys, values, owners), carried
    return _attend_in_blocks(window, q, document, keys, values, owners), carried


def _carry(cache: dict[str, jax.Array], k: jax.Array, v: jax.Array, document: jax.Array) -> dict[str, jax.Array]:
    """The last window - 1 positions, as far as they belong to the last document."""
    steps = k.shape[1]
    now = {"k": k, "v": v, "valid": jnp.ones(document.shape)}
    joined = {name: _append(cache[name], now[name])[:, steps:] for name in now}
    before = jnp.zeros((document.shape[0], cache["valid"].shape[1]), jnp.int32)
    same = jnp.concatenate([before, document], axis=1)[:, steps:] == document[:, -1:]
    return {name: jnp.where(same.reshape(*same.shape, *[1] * (x.ndim - 2)), x, 0.0) for name, x in joined.items()}


def _append(past: jax.Array, now: jax.Array) -> jax.Array:
    return jnp.concatenate([past, now.astype(jnp.float32)], axis=1)


def _attend_in_blocks(
    window: int, q: jax.Array, document: jax.Array, keys: jax.Array, values: jax.Array, owners: jax.Array
) -> jax.Array:
    """Block after block, each against itself and as many blocks before as the window reaches into."""
    steps = q.shape[1]
    past = keys.shape[1] - steps
    size = max(16, min(window, BLOCK))
    count = -(-steps // size)
    reach = -(-(window - 1) // size) if past else min(-(-(window - 1) // size), count - 1)

    def make_bands(x: jax.Array, before: int = 0, after: int = 0) -> jax.Array:
        front = [(0, 0), (reach * size - past, 0), *[(0, 0)] * (x.ndim - 2)]
        blocks = split(jnp.pad(x, front, constant_values=before), size, fill=after)
        return jnp.concatenate([blocks[:, j : j + count] for j in range(reach + 1)], axis=2)

    # what the backward pass needs of a block is computed again there: scores are larger than what they come from
    attend = jax.checkpoint(functools.partial(_attend, window))
    queries = split(q, size), split(document, size, fill=PADDING)
    bands = make_bands(keys), make_bands(values), make_bands(owners, EMPTY, PADDING)
    o = lax.map(lambda block: attend(*block), jax.tree.map(chunks_first, (*queries, *bands)))
    return join(chunks_first(o), steps)


def _attend(
    window: int,
    q: Float[Array, "B Q H K"],
    document: Int[Array, "B Q"],
    keys: Float[Array, "B T H K"],
    values: Float[Array, "B T H K"],
    owners: Int[Array, "B T"],
) -> Float[Array, "B Q H K"]:
    """Attention of the last Q of T positions to those of the same document within the window."""
    queries, positions, size = q.shape[1], keys.shape[1], q.shape[-1]
    distance = np.arange(positions - queries, positions)[:, None] - np.arange(positions)[None]
    near = (distance >= 0) & (distance < window)
    visible = near[None] & (document[:, :, None] == owners[:, None, :])
    keys, values = _rotate(keys, positions).astype(q.dtype), values.astype(q.dtype)
    q = _rotate(q, positions).astype(q.dtype)
    scores = jnp.einsum("bqhk,bthk->bhqt", q, keys, preferred_element_type=jnp.float32) * size**-0.5
    weights = jax.nn.softmax(jnp.where(visible[:, None], scores, -jnp.inf), axis=-1)
    return jnp.einsum("bhqt,bthk->bqhk", weights.astype(q.dtype), values, preferred_element_type=jnp.float32)


def _rotate(x: jax.Array, positions: int) -> jax.Array:
    """Rotates x, the last of ``positions``, in float32; the angles are rounded once, from float64."""
    frequency = (BASE ** (-np.arange(0, x.shape[-1], 2) / x.shape[-1])).astype(np.float32)
    angle = np.arange(positions - x.shape[1], positions)[:, None] * frequency.astype(np.float64)[None]
    cos, sin = (jnp.asarray(f(angle), jnp.float32)[None, :, None] for f in (np.cos, np.sin))
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)
