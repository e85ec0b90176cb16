"""Gated outer products: a matrix-valued state that decays, by a gate per row or per head, before each write."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lrnn_jax.scans.checks import check_arrays
from lrnn_jax.scans.chunks import run_chunks, split
from lrnn_jax.scans.exact import einsum
from lrnn_jax.scans.method import Serves, choose_method
from lrnn_jax.scans.recurrence import cut, keep_mask, loop_over_time, start_state

METHODS = {"sequential": Serves(), "chunked": Serves()}

# Positions whose outputs are one matrix product, a power of 2.
CHUNK = 64
# Positions that a loop on a CPU takes faster than a chunk, even with one decay per head.
FEW = 16
# Positions that are worked on at once; the backward pass recomputes one such block after the other.
BLOCK = 512


def choose_outer_method(method: str, steps: int, *, per_head: bool) -> str:
    """Resolves ``auto``: chunked, but on a CPU for decays ``per_head`` over more than a few ``steps`` only.

    Raises:
      ValueError: unknown method.
    """
    cpu = "chunked" if per_head and steps > FEW else "sequential"
    return choose_method(method, METHODS, accelerator="chunked", cpu=cpu, steps=steps)


@check_arrays
def scan_gated_outer(
    q: Float[Array, "B T G K"],
    k: Float[Array, "B T G K"],
    v: Float[Array, "B T H V"],
    a: Float[Array, "B T H K"] | Float[Array, "B T H"],
    *,
    h0: Float[Array, "B H K V"] | None = None,
    reset: Bool[Array, "B T"] | None = None,
    method: str = "auto",
) -> tuple[Float[Array, "B T H V"], Float[Array, "B H K V"]]:
    """Computes ``S_t = diag(a_t) S_{t-1} + k_t v_t^T`` and ``o_t = S_t^T q_t``.

    Args:
      q: queries; G groups of H / G heads share them.
      k: keys, shared like the queries.
      v: values.
      a: decay per row of the state or one per head, in [-1, 1]; 0 and negative values are as good as any.
      h0: state before the first position; zeros if None.
      reset: True where a new sequence starts.
      method: ``"sequential"`` (one state at a time; the backward pass holds O(sqrt(T)) of them), ``"chunked"``
        (matrix products inside chunks, O(T / 512) states held), or ``"auto"``: chunked, but on a CPU, where training's time
        decides, sequential for decays per row and for few positions. On one CPU core (T = 1024, K = V = 64, B H = 8) chunked
        took 0.8 (decay per row) and 0.35 (per head) of sequential's time forward and backward, 2.0 and 1.2 times as long
        forward alone.

    Returns:
      ``(o, S_last)`` in float32.

    Raises:
      ValueError: unknown method, or arrays that do not fit, see `check_arrays`, or H that is no multiple of G.

    Source: Yang et al. 2024 (GLA), Eq. 3; Dao and Gu 2024 (SSD), Section 6, for one decay per head.
    Differs: decays below 0 are ours: those papers multiply decays by adding logarithms.
    Numerics: no logarithm and no division: decays are multiplied up inside a chunk only, so products are at most 1 in
      magnitude and values and gradients are exact to rounding at a = 0 and across a sign.

    Example: without decay it is linear attention, here with equal scores a cumulative sum.

    >>> q, v = np.ones((1, 3, 1, 1)), np.arange(1.0, 4.0).reshape(1, 3, 1, 1)
    >>> o, S_last = scan_gated_outer(q, q, v, np.ones((1, 3, 1)))
    >>> o.tolist()
    [[[[1.0]], [[3.0]], [[6.0]]]]
    """
    method = choose_outer_method(method, a.shape[1], per_head=a.ndim == 3)
    q, k, v, a = (x.astype(jnp.float32) for x in (q, k, v, a))
    batch, steps, heads, value_dim = v.shape
    if heads % q.shape[2]:
        raise ValueError(f"q: {q.shape[2]} groups do not divide the {heads} heads of v")
    a = a[..., None] if a.ndim == 3 else a
    h0 = start_state(h0, (batch, heads, k.shape[-1], value_dim))
    a = cut(a, keep_mask(reset))
    if method == "sequential":
        return _run_blocks(_run_steps, max(16, math.isqrt(steps)), 1, h0, (q, k, v, a))
    return _run_blocks(_run_chunks, BLOCK, min(CHUNK, 1 << (steps - 1).bit_length()), h0, (q, k, v, a))


def _run_blocks(
    run: Callable[..., Any], limit: int, unit: int, h0: jax.Array, xs: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    """Runs ``s, o = run(s, (q, k, v, a))`` over equal blocks of whole units; the backward pass runs each once more."""
    steps = xs[2].shape[1]
    filled = max(1, steps)
    blocks = -(-filled // limit)
    size = -(-filled // (blocks * unit)) * unit
    # A decay of 1 and a key of 0 carry the last state through the padding.
    padded = tuple(split(x, size, fill=fill) for x, fill in zip(xs, (0, 0, 0, 1), strict=True))
    return run_chunks(run, h0, padded, steps)


def _share(x: jax.Array, v: jax.Array) -> jax.Array:
    """Repeats each group's queries or keys for its heads."""
    return jnp.repeat(x, v.shape[2] // x.shape[2], axis=2)


def _run_steps(s: jax.Array, x: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    q, k, v, a = x
    return _walk(s, _share(q, v), _share(k, v), v, a)


@jax.custom_vjp
def _walk(s: jax.Array, *xs: jax.Array) -> tuple[jax.Array, jax.Array]:
    o, s = loop_over_time(functools.partial(_step, False), s, xs)
    return s, o


def _walk_forward(s: jax.Array, *xs: jax.Array) -> tuple[Any, Any]:
    (o, before), s = loop_over_time(functools.partial(_step, True), s, xs)
    return (s, o), (*xs, before)


def _walk_backward(residual: tuple[jax.Array, ...], cotangents: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
    """One more loop, for the cotangents of the block's states alone; all that is read off them is done for all at once."""
    q, k, v, a, before = residual
    ds, do = cotangents
    g, ds = loop_over_time(_pull_back, ds, (q, a, do), reverse=True)
    dq = a * einsum("bthkv,bthv->bthk", before, do) + k * jnp.sum(v * do, axis=-1, keepdims=True)
    dk = einsum("bthkv,bthv->bthk", g, v)
    dv = einsum("bthkv,bthk->bthv", g, k)
    da = jnp.sum(g * before, axis=-1)
    return ds, dq, dk, dv, jnp.sum(da, axis=-1, keepdims=True) if a.shape[-1] == 1 else da


_walk.defvjp(_walk_forward, _walk_backward)


def _step(remembers: bool, _: tuple, s: jax.Array, x: tuple[jax.Array, ...]) -> tuple[jax.Array, Any]:
    q, k, v, a = x
    before = s
    s = a[..., None] * s + k[..., None] * v[:, :, None]
    o = einsum("bhkv,bhk->bhv", s, q)
    return s, (o, before) if remembers else o


def _pull_back(_: tuple, g: jax.Array, x: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    q, a, do = x
    g = g + q[..., None] * do[:, :, None]
    return a[..., None] * g, g


def _run_chunks(s: jax.Array, x: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    """Several chunks, ``[B H n C K]``: products of queries and keys inside each, states from one to the next."""
    q, k, v, a = x
    batch, size, heads, _ = v.shape
    chunk = min(size, CHUNK)
    q, k, v, a = (
        z.reshape(batch, size // chunk, chunk, heads, z.shape[-1]).transpose(0, 3, 1, 2, 4)
        for z in (_share(q, v), _share(k, v), v, a)
    )
    if a.shape[-1] == 1:  # one decay per head: the decays between two positions, times one product of queries and keys
        one = jnp.ones_like(a)
        decays, since_start, until_end = _weigh_pairs(one, one, a)
        weights = decays * einsum("bhnik,bhnjk->bhnij", q, k)
    else:
        weights, since_start, until_end = _weigh_pairs(q, k, a)
    writes = einsum("bhnck,bhncv->bhnkv", k * until_end, v)
    before = []
    for i in range(v.shape[2]):
        before.append(s)
        s = since_start[:, :, i, -1, :, None] * s + writes[:, :, i]
    inside = einsum("bhnij,bhnjv->bhniv", weights, v)
    o = inside + einsum("bhnck,bhnkv->bhncv", q * since_start, jnp.stack(before, axis=2))
    return s, o.transpose(0, 2, 3, 1, 4).reshape(batch, size, heads, o.shape[-1])


def _weigh_pairs(q: jax.Array, k: jax.Array, a: jax.Array) -> tuple[jax.Array, ...]:
    """Returns each chunk's ``q_i^T (a_{j+1} * ... * a_i * k_j)`` for j <= i and 0 for j > i, ``[B H n C C]``.

    Neighbours become pairs, pairs fours and so on: what the later half reads of the earlier one is a matrix product of its
    queries, decayed since its start, with the other's keys, decayed until its end. Also returns these two decays, for whole
    chunks.
    """
    batch, heads, chunks, size, _ = q.shape

    def halve(x: jax.Array, width: int) -> tuple[jax.Array, jax.Array]:
        x = x.reshape(batch, heads, chunks * size // (2 * width), 2, width, x.shape[-1])
        return x[:, :, :, 0], x[:, :, :, 1]

    weights = jnp.sum(q * k, axis=-1).reshape(batch, heads, chunks * size, 1, 1)
    since_start, until_end = a, jnp.ones_like(a)
    for level in range(size.bit_length() - 1):
        width = 1 << level
        early, late = halve(weights, width)
        start_early, start_late = halve(since_start, width)
        end_early, end_late = halve(until_end, width)
        queries, keys = halve(q, width)[1] * start_late, halve(k, width)[0] * end_early
        across = einsum("bhnik,bhnjk->bhnij", queries, keys)
        top = jnp.concatenate([early, jnp.zeros_like(early)], axis=-1)
        weights = jnp.concatenate([top, jnp.concatenate([across, late], axis=-1)], axis=-2)
        since_start = jnp.concatenate([start_early, start_early[..., -1:, :] * start_late], axis=-2)
        until_end = jnp.concatenate([end_early * start_late[..., -1:, :], end_late], axis=-2)
    results = (weights, since_start, until_end)
    return tuple(x.reshape(batch, heads, chunks, size, x.shape[-1]) for x in results)
