"""Gated outer products: a matrix-valued state that decays, by a gate per row or per head, before each write."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from lrnn_jax.scans.diagonal import scan_diagonal
from lrnn_jax.scans.method import choose_method
from lrnn_jax.scans.recurrence import keep_mask, run_recurrence

METHODS = ("sequential", "chunked")

# Positions whose mutual decays are written out: [C C K] numbers with a gate per row, [C C] with one per head.
ROW_CHUNK = 16
HEAD_CHUNK = 64
# Positions that are worked on at once; the backward pass recomputes one such block after the other.
BLOCK = 256


def scan_gated_outer(
    q: Float[Array, "B T G K"],
    k: Float[Array, "B T G K"],
    v: Float[Array, "B T H V"],
    a: Float[Array, "B T H K"] | Float[Array, "B T H"],
    *,
    h0: Float[Array, "B H K V"] | None = None,
    reset: Bool[Array, "B T"] | None = None,
    method: str = "auto",
    reverse: bool = False,
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
        (matrix products inside chunks, O(T / 256) states held), or ``"auto"`` (sequential on a CPU, chunked elsewhere).
      reverse: runs from the last position to the first.

    Returns:
      ``(o, S_last)`` in float32.

    Raises:
      ValueError: unknown method.

    Source: Yang et al. 2024 (GLA), Eq. 3; Dao and Gu 2024 (SSD), Section 6, for one decay per head.
    Differs: decays below 0 are ours: those papers multiply decays by adding logarithms.
    Numerics: no logarithm and no division: decays are multiplied up inside a chunk only, so products are at most 1 in
      magnitude and values and gradients are exact to rounding at a = 0 and across a sign.
    """
    method = choose_method(method, METHODS, accelerator="chunked")
    q, k, v, a = (x.astype(jnp.float32) for x in (q, k, v, a))
    batch, _, heads, value_dim = v.shape
    a = a[..., None] if a.ndim == 3 else a
    h0 = jnp.zeros((batch, heads, k.shape[-1], value_dim), jnp.float32) if h0 is None else h0.astype(jnp.float32)
    keep = keep_mask(reset, reverse=reverse)
    if keep is not None:
        a = a * keep[:, :, None, None]
    if method == "sequential":
        return run_recurrence(_step, (), h0, (q, k, v, a), reverse=reverse)
    return _chunked(q, k, v, a, h0, reverse)


def _step(_: tuple, s: jax.Array, x: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    q, k, v, a = x
    q, k = _share(q, v), _share(k, v)
    s = a[..., None] * s + k[..., None] * v[:, :, None]
    return s, jnp.einsum("bhkv,bhk->bhv", s, q)


def _share(x: jax.Array, v: jax.Array) -> jax.Array:
    """Repeats each group's queries or keys for its heads."""
    return jnp.repeat(x, v.shape[-2] // x.shape[-2], axis=-2)


def _chunked(
    q: jax.Array, k: jax.Array, v: jax.Array, a: jax.Array, h0: jax.Array, reverse: bool
) -> tuple[jax.Array, jax.Array]:
    steps = v.shape[1]
    size = min(steps, HEAD_CHUNK if a.shape[-1] == 1 else ROW_CHUNK)
    chunks = min(-(-steps // size), BLOCK // size)
    blocks = -(-steps // (size * chunks))

    def split(x: jax.Array, fill: float) -> jax.Array:
        x = jnp.flip(x, 1) if reverse else x
        padding = [(0, 0)] * x.ndim
        padding[1] = (0, blocks * chunks * size - steps)
        x = jnp.pad(x, padding, constant_values=fill)
        return jnp.moveaxis(x.reshape(x.shape[0], blocks, chunks, size, *x.shape[2:]), 1, 0)

    # A decay of 1 and a key of 0 carry the last state through the padding.
    xs = split(q, 0.0), split(k, 0.0), split(v, 0.0), split(a, 1.0)
    last, o = lax.scan(jax.checkpoint(_run_block, prevent_cse=False), h0, xs)
    o = jnp.moveaxis(o, 0, 1).reshape(v.shape[0], -1, *v.shape[2:])[:, :steps]
    return jnp.flip(o, 1) if reverse else o, last


def _run_block(s: jax.Array, x: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    """Several chunks at once, ``[B n C H ...]``: within each by pairs of positions, between them by their states."""
    q, k, v, a = x
    q, k = _share(q, v), _share(k, v)
    pairs = _multiply_between(a)
    since_start = jnp.cumprod(a, axis=2)
    if a.shape[-1] == 1:
        weights = jnp.einsum("bnihk,bnjhk->bnijh", q, k) * pairs[..., 0]
    else:
        weights = jnp.sum(q[:, :, :, None] * pairs * k[:, :, None], axis=-1)
    o = jnp.einsum("bnijh,bnjhv->bnihv", weights, v)
    writes = jnp.einsum("bnjhk,bnjhv->bnhkv", k * pairs[:, :, -1], v)
    decays = jnp.broadcast_to(since_start[:, :, -1, ..., None], writes.shape)
    after, last = scan_diagonal(decays, writes, h0=s, method="associative")
    before = jnp.concatenate([s[:, None], after[:, :-1]], axis=1)
    return last, o + jnp.einsum("bnihk,bnhkv->bnihv", q * since_start, before)


def _multiply_between(a: jax.Array) -> jax.Array:
    """Returns ``a_{j+1} ... a_i`` for i >= j and 0 for i < j, ``[B n C C H K]``: row i, column j."""
    positions = jnp.arange(a.shape[2])
    later = (positions[:, None] > positions[None])[None, None, :, :, None, None]
    earlier = (positions[:, None] < positions[None])[None, None, :, :, None, None]
    products = jnp.cumprod(jnp.where(later, a[:, :, :, None], 1.0), axis=2)
    return jnp.where(earlier, 0.0, products)
