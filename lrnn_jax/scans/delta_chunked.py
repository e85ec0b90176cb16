"""The delta rule by chunks: the writes of one chunk as one triangular system, the states between chunks by a short loop."""

import jax
import jax.numpy as jnp

from lrnn_jax.scans.chunks import join, split
from lrnn_jax.scans.exact import matmul
from lrnn_jax.scans.recurrence import run_recurrence

# Writes per chunk at most, for keys of up to 32 dimensions and for larger ones: a system of many more writes than dimensions
# costs time and digits. Half of it to all of it is used, for a chunk holds a power of two of positions.
WRITES = (32, 64)
# Blocks up to this size are inverted with masks instead of slices: smaller matrix products waste a processor.
BLOCK = 16


def scan_by_chunks(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    beta: jax.Array,
    log_gate: jax.Array | None,
    h0: jax.Array,
    keep: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """One triangular system per chunk, solved for all chunks at once, then one matrix product per chunk in order.

    Arguments are those of `scan_delta_product` in float32, with ``keep`` [B T] instead of ``reset``: 0 where the state is cut.
    With e_i what the i-th write of a chunk adds along its key, S_0 the state before the chunk and d(i, s) the decay from write
    s to write i (0 if a sequence starts in between): e_i = beta_i (v_i - d(i, 0) S_0^T k_i - sum_{s<i} d(i, s) (k_s^T k_i)
    e_s), whose solution is E = U - W S_0. All arrays are [B N H ...]: N chunks, and positions or writes after the heads.
    """
    length, writes = k.shape[1:3]
    size = _positions_per_chunk(length, writes, k.shape[-1])
    decay = _decays(log_gate, keep, size)
    start, read = decay[..., 0], jnp.repeat(decay[..., 1:], writes, axis=-1)
    q = _heads_first(split(q, size))
    k, v, beta = (_merge_writes(split(x, size)) for x in (k, v, beta))
    k_start = k * jnp.repeat(start, writes, axis=-1)[..., None]
    k_end = k * read[..., -1, :, None]
    between = jnp.repeat(read, writes, axis=-2) * jnp.tri(size * writes, k=-1)[None, None, None]
    inverse = invert_unit_triangular(beta[..., None] * matmul(k, _transpose(k)) * between)
    u, w = matmul(inverse, beta[..., None] * v), matmul(inverse, beta[..., None] * k_start)
    last = jnp.broadcast_to(start[..., -1], k.shape[:3])
    chunks = (last, matmul(_transpose(k_end), w), matmul(_transpose(k_end), u))
    states, h_last = run_recurrence(_advance, (), h0, chunks, emits_state=True)
    before = jnp.concatenate([h0[:, None], states[:, :-1]], axis=1)
    errors = u - matmul(w, before)
    o = matmul(q * start[..., None], before) + matmul(matmul(q, _transpose(k)) * read, errors)
    return join(_heads_first(o), length), h_last


@jax.custom_vjp
def invert_unit_triangular(m: jax.Array) -> jax.Array:
    """Returns ``(I + m)^-1`` for strictly lower triangular ``m`` [... C C].

    Numerics: by blocks of doubling size, so that every number on the way is an entry of the inverse. Powers of ``m`` grow as
    3^C where a key repeats with beta = 2, and their sum cancels.
    """
    size = m.shape[-1]
    if size > BLOCK and size % 2 == 0:
        half = size // 2
        first, second = invert_unit_triangular(jnp.stack([m[..., :half, :half], m[..., half:, half:]]))
        corner = -matmul(second, matmul(m[..., half:, :half], first))
        above = jnp.concatenate([first, jnp.zeros_like(first)], axis=-1)
        return jnp.concatenate([above, jnp.concatenate([corner, second], axis=-1)], axis=-2)
    inverse = jnp.broadcast_to(jnp.eye(size, dtype=m.dtype), m.shape)
    block = 1
    while block < size:
        row = jnp.arange(size)[:, None] // block
        corners = jnp.where((row % 2 == 1) & (row - 1 == row.T), m, 0.0)
        inverse = inverse - (corners if block == 1 else matmul(inverse, matmul(corners, inverse)))
        block *= 2
    return inverse


def _invert_forward(m: jax.Array) -> tuple[jax.Array, jax.Array]:
    inverse = invert_unit_triangular(m)
    return inverse, inverse


def _invert_backward(inverse: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    transposed = _transpose(inverse)
    return (-matmul(transposed, matmul(cotangent, transposed)),)


invert_unit_triangular.defvjp(_invert_forward, _invert_backward)


def _advance(_: tuple, s: jax.Array, x: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    decay, erase, write = x
    s = s * decay[..., None, None] - matmul(erase, s) + write
    return s, s


def _positions_per_chunk(length: int, writes: int, key_dim: int) -> int:
    """A power of two: as many positions as make at most `WRITES` writes, but no more than there are."""
    size, most = 1, WRITES[0] if key_dim <= WRITES[0] else WRITES[1]
    while size < length and 2 * size * writes <= most:
        size *= 2
    return size


def _decays(log_gate: jax.Array | None, keep: jax.Array | None, size: int) -> jax.Array:
    """Decay from position s of a chunk (column s + 1; column 0: from the state before it) to position t, [B N H t 1+s].

    Sums of log gates over each stretch, not differences of sums from the chunk's start: one strong gate would round away the
    weak ones after it.
    """
    decay = jnp.tri(size, size + 1, 1)[None, None, None]
    if log_gate is not None:
        after = jnp.tri(size, size + 1, dtype=bool)[None, None, None]
        gates = jnp.where(after, _heads_first(split(log_gate, size))[..., None], 0.0)
        decay = decay * jnp.exp(jnp.cumsum(gates, axis=-2))
    if keep is not None:
        sequence = jnp.cumsum(split(1.0 - keep, size), axis=-1)
        before = jnp.pad(sequence, ((0, 0), (0, 0), (1, 0)))
        decay = decay * (sequence[..., :, None] == before[..., None, :])[:, :, None].astype(jnp.float32)
    return decay


def _merge_writes(x: jax.Array) -> jax.Array:
    """``[B N C J H ...]`` to ``[B N H C*J ...]``."""
    return _heads_first(x.reshape(*x.shape[:2], x.shape[2] * x.shape[3], *x.shape[4:]))


def _heads_first(x: jax.Array) -> jax.Array:
    """``[B N C H ...]`` to ``[B N H C ...]``."""
    return jnp.swapaxes(x, 2, 3)


def _transpose(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(x, -1, -2)
