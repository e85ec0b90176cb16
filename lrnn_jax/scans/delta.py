"""The delta rule, its gated form and products of it: a matrix-valued state, erased along a key before it is written."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lrnn_jax.scans.checks import check_arrays
from lrnn_jax.scans.delta_chunked import WRITES, scan_by_chunks
from lrnn_jax.scans.exact import einsum, matmul
from lrnn_jax.scans.method import Serves, choose_method
from lrnn_jax.scans.recurrence import cut, keep_mask, loop_over_time, run_recurrence, start_state

METHODS = {"sequential": Serves(), "chunked": Serves()}
# From this key size on a CPU trains a gated recurrence faster by chunks: there its loop computes states twice.
GATED_KEYS = 32


@check_arrays
def scan_delta_rule(
    q: Float[Array, "B T H K"],
    k: Float[Array, "B T H K"],
    v: Float[Array, "B T H V"],
    beta: Float[Array, "B T H"],
    *,
    log_gate: Float[Array, "B T H"] | None = None,
    h0: Float[Array, "B H K V"] | None = None,
    reset: Bool[Array, "B T"] | None = None,
    method: str = "auto",
) -> tuple[Float[Array, "B T H V"], Float[Array, "B H K V"]]:
    """Computes ``S_t = (I - beta_t k_t k_t^T) g_t S_{t-1} + beta_t k_t v_t^T`` and ``o_t = S_t^T q_t``.

    It is `scan_delta_product` with one write per position; everything said there holds here.

    Source: Grazzi et al. 2025, Table 1 (DeltaNet); with a gate: Yang et al. 2025, Section 3.1 (Gated DeltaNet).

    Example: at full strength, what is written replaces what was there along the key.

    >>> k, v = np.tile([1.0, 0.0], (1, 3, 1, 1)), np.arange(3.0).reshape(1, 3, 1, 1)
    >>> o, S_last = scan_delta_rule(k, k, v, np.ones((1, 3, 1)))
    >>> o.tolist()
    [[[[0.0]], [[1.0]], [[2.0]]]]
    """
    k, v, beta = k[:, :, None], v[:, :, None], beta[:, :, None]
    return scan_delta_product(q, k, v, beta, log_gate=log_gate, h0=h0, reset=reset, method=method)


@check_arrays
def scan_delta_product(
    q: Float[Array, "B T H K"],
    k: Float[Array, "B T J H K"],
    v: Float[Array, "B T J H V"],
    beta: Float[Array, "B T J H"],
    *,
    log_gate: Float[Array, "B T H"] | None = None,
    h0: Float[Array, "B H K V"] | None = None,
    reset: Bool[Array, "B T"] | None = None,
    method: str = "auto",
) -> tuple[Float[Array, "B T H V"], Float[Array, "B H K V"]]:
    """Computes ``S <- g_t S``, then J times ``S <- (I - beta_j k_j k_j^T) S + beta_j k_j v_j^T``, then ``o_t = S^T q_t``.

    Args:
      q: queries.
      k: keys, J at every position. With ||k|| = 1 the eigenvalue along the key is 1 - beta.
      v: values.
      beta: writing strength: in [0, 1] for eigenvalues in [0, 1], in [0, 2] for eigenvalues in [-1, 1].
      log_gate: log g_t, at most 0; no gate if None.
      h0: state before the first position; zeros if None.
      reset: True where a new sequence starts.
      method: ``"sequential"`` (one state at a time), ``"chunked"`` (32 or 64 writes at a time as matrix products: O(J T / 32)
        states in memory), or ``"auto"``: chunked on an accelerator, and on a CPU with a gate, K of `GATED_KEYS` or more and a
        chunk of writes or more; else sequential. On two CPU cores, one row of T = 4096, J = 1, loop against chunks: without a
        gate 18 against 72 ms forward and 162 against 251 with all gradients for 8 heads of 64, 59 against 88 and 312 against
        386 for 4 heads of 128. With a gate 26 against 69 and 972 against 281, 93 against 80 and 2255 against 291; for 4 heads
        of 32 6 against 10 and 156 against 57; at K = 16 the loop is as fast with gradients and twice as fast without. So with
        a gate `auto` is right for training, and outputs alone may want ``"sequential"``.

    Returns:
      ``(o, S_last)`` in float32.

    Raises:
      ValueError: unknown method, or arrays that do not fit, see `check_arrays`.

    Source: Siems et al. 2025 (DeltaProduct and Gated DeltaProduct).
    Numerics: no division by a gate, so gates near and at 0 are exact to rounding. Without a gate the sequential backward pass
    keeps no states, with one about sqrt(T) of them.

    Example: two writes of 0 with beta = 2 are two reflections, which turn the state by twice the angle between the keys.

    >>> k = np.array([[1.0, 0.0], [0.5**0.5, 0.5**0.5]]).reshape(1, 1, 2, 1, 2)
    >>> q, v, beta = np.ones((1, 1, 1, 2)), np.zeros((1, 1, 2, 1, 1)), np.full((1, 1, 2, 1), 2.0)
    >>> o, S_last = scan_delta_product(q, k, v, beta, h0=np.array([1.0, 0.0]).reshape(1, 1, 2, 1))
    >>> abs(np.round(S_last, 6)).tolist()
    [[[[0.0], [1.0]]]]
    """
    chunks_pay = log_gate is not None and k.shape[-1] >= GATED_KEYS and k.shape[1] * k.shape[2] >= max(WRITES)
    cpu = "chunked" if chunks_pay else "sequential"
    method = choose_method(method, METHODS, accelerator="chunked", cpu=cpu, steps=q.shape[1])
    if not k.shape[2]:
        raise ValueError(f"k: shape {k.shape} has no writes: J is 0")
    q, k, v, beta = (x.astype(jnp.float32) for x in (q, k, v, beta))
    batch, _, _, heads, key_dim = k.shape
    h0 = start_state(h0, (batch, heads, key_dim, v.shape[-1]))
    log_gate = None if log_gate is None else log_gate.astype(jnp.float32)
    keep = keep_mask(reset)
    if method == "chunked":
        return scan_by_chunks(q, k, v, beta, log_gate, h0, keep)
    writes = _Writes(*(tuple(x[:, :, j] for j in range(k.shape[2])) for x in (k, v, beta)))
    if log_gate is None:
        return _sequential(q, writes, h0, keep)
    return run_recurrence(_decay_write_and_read, (), h0, (q, writes, cut(jnp.exp(log_gate), keep)))


def transition_matrices(
    k: Float[Array, "B T J H K"], beta: Float[Array, "B T J H"], log_gate: Float[Array, "B T H"] | None = None
) -> Float[Array, "B T H K K"]:
    """Returns ``g_t (I - beta_J k_J k_J^T) ... (I - beta_1 k_1 k_1^T)`` for every position and head."""
    identity = jnp.eye(k.shape[-1], dtype=k.dtype)[None, None, None]
    factors = [identity - beta[:, :, j, :, None, None] * _outer(k[:, :, j], k[:, :, j]) for j in range(k.shape[2])]
    a = functools.reduce(lambda product, factor: matmul(factor, product), factors)
    return a if log_gate is None else jnp.exp(log_gate)[..., None, None] * a


class _Writes(NamedTuple):
    """The J writes of every position, one array [B T H ...] for each: a slice of one array would be a copy at every step."""

    k: tuple[jax.Array, ...]
    v: tuple[jax.Array, ...]
    beta: tuple[jax.Array, ...]


@jax.custom_vjp
def _sequential(q: jax.Array, writes: _Writes, h0: jax.Array, keep: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    return _sequential_forward(q, writes, h0, keep)[0]


def _sequential_forward(q: jax.Array, writes: _Writes, h0: jax.Array, keep: Any) -> Any:
    (surprise, o), s = loop_over_time(_write_and_read, h0, (q, writes, keep))
    return (o, s), (q, writes.k, writes.beta, h0, keep, surprise)


def _sequential_backward(residual: Any, cotangents: Any) -> Any:
    """Two more loops and no stored state: the cotangent runs backward, then the state forward once more.

    With e_j = beta_j (v_j - S_{j-1}^T k_j), so that S_j = S_{j-1} + k_j e_j^T, and with G_j the cotangent of S_j: d_j = G_j^T
    k_j is the cotangent of e_j, dv_j = beta_j d_j, G_{j-1} = G_j - k_j dv_j^T, and the last write of a position has q do^T in
    its G_j too. The first loop gives d and the part G e of dk; the second, which rebuilds S from e, the parts that need S: dq
    and the rest of dk. All that needs neither G nor S is done for all positions at once, for a loop's time goes into the
    number of its operations.
    """
    q, k, beta, h0, keep, surprise = residual
    do, ds = cotangents
    error = tuple(b[..., None] * e for b, e in zip(beta, surprise, strict=True))
    xs = (q, k, beta, do, do * _dot(q, k[-1]), error, keep)
    (d_error, g_error), dh0 = loop_over_time(_pull_back, ds, xs, reverse=True)
    dv = tuple(b[..., None] * d for b, d in zip(beta, d_error, strict=True))
    (s_do, s_dv), _ = loop_over_time(_rebuild, h0, (k, error, do, dv, keep))
    do_error = _dot(do, error[-1])
    dq = s_do + k[-1] * do_error
    g_error = (*g_error[:-1], g_error[-1] + q * do_error)
    dk = tuple(g - s for g, s in zip(g_error, s_dv, strict=True))
    dbeta = tuple(jnp.sum(d * e, axis=-1) for d, e in zip(d_error, surprise, strict=True))
    return dq, _Writes(dk, dv, dbeta), dh0, None if keep is None else jnp.zeros_like(keep)


_sequential.defvjp(_sequential_forward, _sequential_backward)


def _write_and_read(_: tuple, s: jax.Array, x: tuple[Any, ...]) -> tuple[jax.Array, tuple[tuple, jax.Array]]:
    q, writes, keep = x
    s = cut(s, keep)
    surprises = []
    for k, v, beta in zip(*writes, strict=True):
        surprises.append(v - _read_out(s, k))
        s = s + _outer(k, beta[..., None] * surprises[-1])
    return s, (tuple(surprises), _read_out(s, q))


def _decay_write_and_read(_: tuple, s: jax.Array, x: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
    q, writes, decay = x
    s, (_surprises, o) = _write_and_read((), s * decay[..., None, None], (q, writes, None))
    return s, o


def _pull_back(_: tuple, g: jax.Array, x: tuple[Any, ...]) -> tuple[jax.Array, tuple[tuple, tuple]]:
    q, keys, betas, do, do_qk, errors, keep = x
    last = len(keys) - 1
    d_errors, g_errors = [], []
    for j in range(last, -1, -1):
        k, beta = keys[j], betas[j]
        d_error = _read_out(g, k) + do_qk if j == last else _read_out(g, k)
        d_errors.append(d_error)
        g_errors.append(_contract_values(g, errors[j]))
        g = g + _outer(q, do) if j == last else g
        g = g - _outer(k, beta[..., None] * d_error)
    return cut(g, keep), (tuple(reversed(d_errors)), tuple(reversed(g_errors)))


def _rebuild(_: tuple, s: jax.Array, x: tuple[Any, ...]) -> tuple[jax.Array, tuple[jax.Array, tuple]]:
    keys, errors, do, dvs, keep = x
    s = cut(s, keep)
    s_dvs = []
    for k, error, dv in zip(keys, errors, dvs, strict=True):
        s_dvs.append(_contract_values(s, dv))
        before, s = s, s + _outer(k, error)
    return s, (_contract_values(before, do), tuple(s_dvs))


def _read_out(s: jax.Array, q: jax.Array) -> jax.Array:
    return einsum("bhkv,bhk->bhv", s, q)


def _contract_values(s: jax.Array, v: jax.Array) -> jax.Array:
    return einsum("bhkv,bhv->bhk", s, v)


def _outer(k: jax.Array, v: jax.Array) -> jax.Array:
    return k[..., :, None] * v[..., None, :]


def _dot(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.sum(x * y, axis=-1, keepdims=True)
