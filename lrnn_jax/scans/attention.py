"""Causal softmax attention over a window, as a recurrence whose state is a cache of keys and values."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from lrnn_jax.scans.method import Serves, choose_method
from lrnn_jax.scans.recurrence import keep_mask, run_recurrence, start_state

METHODS = {"sequential": Serves(), "chunked": Serves()}
BASE = 10000.0
# Queries handled together: at most these, so that no more than this times (window + this) scores exist at once.
BLOCK = 256
# Documents that no query belongs to: of keys that were never written, and of what fills up the last block.
EMPTY, PADDING = -1, -2


def scan_attention(
    q: Float[Array, "B T H K"],
    k: Float[Array, "B T H K"],
    v: Float[Array, "B T H K"],
    *,
    window: int,
    h0: dict[str, jax.Array] | None = None,
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
      ValueError: unknown method, or an ``h0`` of another shape.

    Source: Vaswani et al. 2017, Eq. 1; Su et al. 2021 (RoPE).
    Differs: there is no ``reverse``.
    """
    method = choose_method(method, METHODS, accelerator="chunked", cpu="chunked")
    if h0 is not None:
        like = jax.eval_shape(lambda: empty_cache(q.shape[0], window, *q.shape[2:]))
        h0 = {name: start_state(h0[name], part.shape) for name, part in like.items()}
    if method == "chunked":
        return _chunked(q, k, v, window, h0, reset)
    cache = empty_cache(q.shape[0], window, *q.shape[2:]) if h0 is None else h0
    step = functools.partial(_advance, window)
    return run_recurrence(step, (), cache, (q, k, v, keep_mask(reset, reverse=False)))


def empty_cache(batch: int, window: int, heads: int, size: int) -> dict[str, jax.Array]:
    """Returns the cache before the first position, in float32."""
    past = jnp.zeros((batch, window - 1, heads, size), jnp.float32)
    return {"k": past, "v": past, "valid": jnp.zeros((batch, window - 1), jnp.float32)}


def _advance(window: int, _: tuple, cache: dict[str, jax.Array], x: tuple[Any, ...]) -> tuple[dict[str, jax.Array], jax.Array]:
    q, k, v, keep = x
    if keep is not None:
        cache = {name: past * keep.reshape(-1, *[1] * (past.ndim - 1)) for name, past in cache.items()}
    now = {"k": k, "v": v, "valid": jnp.ones(k.shape[0])}
    seen = {name: jnp.concatenate([cache[name], now[name][:, None].astype(jnp.float32)], axis=1) for name in now}
    document = jnp.where(seen["valid"] > 0.5, 0, EMPTY)
    o = _attend(window, q[:, None], document[:, -1:], seen["k"], seen["v"], document)
    return {name: past[:, 1:] for name, past in seen.items()}, o[:, 0]


def _chunked(
    q: jax.Array, k: jax.Array, v: jax.Array, window: int, h0: dict[str, jax.Array] | None, reset: jax.Array | None
) -> tuple[jax.Array, dict[str, jax.Array]]:
    batch, steps = q.shape[:2]
    document = jnp.zeros((batch, steps), jnp.int32) if reset is None else jnp.cumsum(reset.astype(jnp.int32), axis=1)
    cache = empty_cache(batch, window, *q.shape[2:]) if h0 is None else h0
    carried = _carry(cache, k, v, document)
    keys, values, owners = k, v, document
    if h0 is not None:
        keys, values = (jnp.concatenate([h0[name].astype(x.dtype), x], axis=1) for name, x in (("k", k), ("v", v)))
        owners = jnp.concatenate([jnp.where(h0["valid"] > 0.5, 0, EMPTY), document], axis=1)
    if steps <= BLOCK:
        return _attend(window, q, document, keys, values, owners), carried
    return _attend_in_blocks(window, q, document, keys, values, owners), carried


def _carry(cache: dict[str, jax.Array], k: jax.Array, v: jax.Array, document: jax.Array) -> dict[str, jax.Array]:
    """The last window - 1 positions, as far as they belong to the last document."""
    steps = k.shape[1]
    now = {"k": k, "v": v, "valid": jnp.ones(document.shape)}
    joined = {name: jnp.concatenate([cache[name], now[name].astype(jnp.float32)], axis=1)[:, steps:] for name in now}
    before = jnp.zeros((document.shape[0], cache["valid"].shape[1]), jnp.int32)
    same = jnp.concatenate([before, document], axis=1)[:, steps:] == document[:, -1:]
    return {name: jnp.where(same.reshape(*same.shape, *[1] * (x.ndim - 2)), x, 0.0) for name, x in joined.items()}


def _attend_in_blocks(
    window: int, q: jax.Array, document: jax.Array, keys: jax.Array, values: jax.Array, owners: jax.Array
) -> jax.Array:
    """Block after block, each against itself and as many blocks before as the window reaches into."""
    batch, steps = q.shape[:2]
    past = keys.shape[1] - steps
    size = max(16, min(window, BLOCK))
    count = -(-steps // size)
    reach = -(-(window - 1) // size) if past else min(-(-(window - 1) // size), count - 1)
    end = count * size - steps

    def split(x: jax.Array, front: int, fill: tuple[int, int]) -> jax.Array:
        rest = [(0, 0)] * (x.ndim - 2)
        x = jnp.pad(x, [(0, 0), (front, 0), *rest], constant_values=fill[0])
        x = jnp.pad(x, [(0, 0), (0, end), *rest], constant_values=fill[1])
        return jnp.moveaxis(x.reshape(batch, -1, size, *x.shape[2:]), 1, 0)

    def make_bands(x: jax.Array, fill: tuple[int, int] = (0, 0)) -> jax.Array:
        blocks = split(x, reach * size - past, fill)
        return jnp.concatenate([blocks[j : j + count] for j in range(reach + 1)], axis=2)

    # what the backward pass needs of a block is computed again there: scores are larger than what they come from
    attend = jax.checkpoint(functools.partial(_attend, window))
    o = lax.map(
        lambda block: attend(*block),
        (
            split(q, 0, (0, 0)),
            split(document, 0, (0, PADDING)),
            make_bands(keys),
            make_bands(values),
            make_bands(owners, (EMPTY, PADDING)),
        ),
    )
    return jnp.moveaxis(o, 0, 1).reshape(batch, -1, *q.shape[2:])[:, :steps]


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
