"""Diagonal plus low rank: a decay per key feature and one rank-one change per step, as RWKV-7 has it."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lrnn_jax.scans.checks import check_arrays
from lrnn_jax.scans.chunks import join, split
from lrnn_jax.scans.exact import einsum, matmul
from lrnn_jax.scans.method import Serves, choose_method
from lrnn_jax.scans.recurrence import cut, keep_mask, run_recurrence, start_state

METHODS = {"sequential": Serves(), "chunked": Serves()}
# Positions of a chunk: decays between all pairs of them exist at once, [CHUNK CHUNK K] per head.
CHUNK = 32


@check_arrays
def scan_dplr(
    q: Float[Array, "B T H K"],
    k: Float[Array, "B T H K"],
    v: Float[Array, "B T H V"],
    log_w: Float[Array, "B T H K"],
    a: Float[Array, "B T H K"],
    b: Float[Array, "B T H K"],
    *,
    h0: Float[Array, "B H K V"] | None = None,
    reset: Bool[Array, "B T"] | None = None,
    method: str = "auto",
) -> tuple[Float[Array, "B T H V"], Float[Array, "B H K V"]]:
    """Computes ``S_t = (diag(w_t) + a_t b_t^T) S_{t-1} + k_t v_t^T`` and ``o_t = S_t^T q_t``.

    Args:
      q: queries.
      k: keys.
      v: values.
      log_w: logarithms of the decays w in (0, 1]: finite and at most 0.
      a: what the rank-one change writes along.
      b: what it reads along.
      h0: state before the first position; zeros if None.
      reset: True where a new sequence starts.
      method: ``"sequential"``, ``"chunked"`` (one triangular system per chunk; O(C K) memory per position and head, within
        one chunk at a time), or ``"auto"`` (sequential on a CPU, chunked elsewhere).

    Returns:
      ``(o, S_last)`` in float32.

    Raises:
      ValueError: unknown method, or arrays that do not fit, see `check_arrays`.

    Source: Peng et al. 2025 (RWKV-7), the evolution of the state, transposed; the chunks: the WY form of Yang et al. 2024,
    with decays.
    Numerics: every exponent is a sum of ``log_w``, so none is above 0 and nothing is divided by a decay.

    Example: without decay, and with a = -k and b = k, it is the delta rule at full strength.

    >>> k, v = np.tile([1.0, 0.0], (1, 3, 1, 1)), np.arange(3.0).reshape(1, 3, 1, 1)
    >>> o, S_last = scan_dplr(k, k, v, 0 * k, -k, k)
    >>> o.tolist()
    [[[[0.0]], [[1.0]], [[2.0]]]]
    """
    method = choose_method(method, METHODS, accelerator="chunked", steps=q.shape[1])
    q, k, v, log_w, a, b = (x.astype(jnp.float32) for x in (q, k, v, log_w, a, b))
    batch, _, heads, key_dim = k.shape
    h0 = start_state(h0, (batch, heads, key_dim, v.shape[-1]))
    keep = keep_mask(reset)
    if method == "sequential":
        return run_recurrence(_step, (), h0, (q, k, v, jnp.exp(log_w), a, b, keep))
    return _chunked(q, k, v, log_w, a, b, h0, keep)


def transition_matrices(
    log_w: Float[Array, "B T H K"], a: Float[Array, "B T H K"], b: Float[Array, "B T H K"]
) -> Float[Array, "B T H K K"]:
    """Returns ``diag(w_t) + a_t b_t^T`` for every position and head."""
    identity = jnp.eye(a.shape[-1], dtype=jnp.float32)[None, None, None]
    return identity * jnp.exp(log_w)[..., None] + a[..., :, None] * b[..., None, :]


def _step(_: tuple, s: jax.Array, x: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
    q, k, v, w, a, b, keep = x
    s = cut(s, keep)
    read = einsum("bhk,bhkv->bhv", b, s)
    s = w[..., None] * s + a[..., None] * read[..., None, :] + k[..., None] * v[..., None, :]
    return s, einsum("bhk,bhkv->bhv", q, s)


def _chunked(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    log_w: jax.Array,
    a: jax.Array,
    b: jax.Array,
    h0: jax.Array,
    keep: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """The same loop over chunks: zeros after the end neither change the state nor matter to an output."""
    steps = q.shape[1]
    size = min(CHUNK, steps)
    keep = jnp.ones(q.shape[:2]) if keep is None else keep
    chunks = *(split(x, size) for x in (q, k, v, log_w, a, b)), split(keep, size, fill=1)
    o, s = run_recurrence(_chunk_step, (), h0, chunks)
    return join(o, steps), s


def _chunk_step(_: tuple, s: jax.Array, x: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    """One chunk. With u_t = S_{t-1}^T b_t, what is written along a_t, u solves a triangular system.

    Unrolled, u_t = S_0^T (w_{<t} b_t) + sum_{s<t} (b_t^T w_{s..t-1} a_s) u_s + (b_t^T w_{s..t-1} k_s) v_s; the outputs and
    the last state follow from u as from v.
    """
    q, k, v, log_w, a, b, keep = x
    size = q.shape[1]
    document = jnp.cumsum(1.0 - keep, axis=1)
    same = document[:, :, None] == document[:, None, :]
    between = _decay_between(log_w, same)
    # the state that b_t reads has decayed up to t - 1 only
    earlier = jnp.pad(between[:, :-1], [(0, 0), (1, 0), (0, 0), (0, 0), (0, 0)])
    earlier = jnp.where(same[..., None, None], earlier, 0.0)
    fresh = (document == 0)[..., None, None]
    total = jnp.cumsum(log_w, axis=1)
    from_start = jnp.where(fresh, jnp.exp(total), 0.0)
    before = jnp.where(fresh, jnp.exp(jnp.pad(total[:, :-1], [(0, 0), (1, 0), (0, 0), (0, 0)])), 0.0)

    def weigh(reader: jax.Array, decay: jax.Array, writer: jax.Array) -> jax.Array:
        return einsum("btshk,bshk->bhts", reader[:, :, None] * decay, writer)

    def read(reader: jax.Array, decay: jax.Array) -> jax.Array:
        return einsum("bthk,bhkv->bhtv", reader * decay, s)

    v = jnp.moveaxis(v, 1, 2)
    system = jnp.eye(size)[None, None] - weigh(b, earlier, a)
    known = read(b, before) + matmul(weigh(b, earlier, k), v)
    u = jax.scipy.linalg.solve_triangular(system, known, lower=True, unit_diagonal=True)
    o = read(q, from_start) + matmul(weigh(q, between, a), u) + matmul(weigh(q, between, k), v)
    to_end = between[:, -1]
    s = from_start[:, -1][..., None] * s
    s = s + einsum("bshk,bhsv->bhkv", a * to_end, u) + einsum("bshk,bhsv->bhkv", k * to_end, v)
    return s, jnp.moveaxis(o, 2, 1)


def _decay_between(log_w: jax.Array, same: jax.Array) -> jax.Array:
    """``exp(log_w_{s+1} + ... + log_w_t)`` at [B t s H K], 0 for s > t and across documents.

    Summed from s on rather than subtracted from sums since the start, whose rounding strong decays would magnify.
    """
    size = log_w.shape[1]
    after = jnp.arange(size)[:, None] > jnp.arange(size)[None]
    sums = jnp.cumsum(jnp.where(after[None, :, :, None, None], log_w[:, :, None], 0.0), axis=1)
    visible = same & ~after.T[None]
    return jnp.where(visible[..., None, None], jnp.exp(sums), 0.0)
