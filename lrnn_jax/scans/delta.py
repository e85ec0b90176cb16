"""The delta rule: a matrix-valued state, erased along the key before it is written."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from lrnn_jax.scans.method import choose_method
from lrnn_jax.scans.recurrence import keep_mask, loop_over_time

METHODS = ("sequential", "associative")


def scan_delta_rule(
    q: Float[Array, "B T H K"],
    k: Float[Array, "B T H K"],
    v: Float[Array, "B T H V"],
    beta: Float[Array, "B T H"],
    *,
    h0: Float[Array, "B H K V"] | None = None,
    reset: Bool[Array, "B T"] | None = None,
    method: str = "auto",
    reverse: bool = False,
) -> tuple[Float[Array, "B T H V"], Float[Array, "B H K V"]]:
    """Computes ``S_t = (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T`` and ``o_t = S_t^T q_t``.

    Args:
      q: queries.
      k: keys. With ||k|| = 1 the eigenvalue along the key is 1 - beta.
      v: values.
      beta: writing strength: in [0, 1] for eigenvalues in [0, 1], in [0, 2] for eigenvalues in [-1, 1].
      h0: state before the first position; zeros if None.
      reset: True where a new sequence starts.
      method: ``"sequential"`` (one state at a time, in the backward pass too), ``"associative"`` (all T
        transition matrices at once: O(T K (K + V)) memory), or ``"auto"`` (sequential on a CPU, associative elsewhere).
      reverse: runs from the last position to the first.

    Returns:
      ``(o, S_last)`` in float32.

    Raises:
      ValueError: unknown method.

    Source: Grazzi et al. 2025, Table 1 (DeltaNet).
    """
    method = choose_method(method, METHODS, accelerator="associative")
    q, k, v, beta = (x.astype(jnp.float32) for x in (q, k, v, beta))
    batch, _, heads, key_dim = k.shape
    h0 = jnp.zeros((batch, heads, key_dim, v.shape[-1]), jnp.float32) if h0 is None else h0.astype(jnp.float32)
    keep = keep_mask(reset, reverse=reverse)
    if method == "sequential":
        return _sequential(reverse, q, k, v, beta, h0, keep)
    return _associative(q, k, v, beta, h0, keep, reverse)


def transition_matrices(k: Float[Array, "B T H K"], beta: Float[Array, "B T H"]) -> Float[Array, "B T H K K"]:
    """Returns ``I - beta_t k_t k_t^T`` for every position and head."""
    identity = jnp.eye(k.shape[-1], dtype=jnp.float32)[None, None, None]
    return identity - beta[..., None, None] * _outer(k, k)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sequential(
    reverse: bool, q: jax.Array, k: jax.Array, v: jax.Array, beta: jax.Array, h0: jax.Array, keep: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    return _sequential_forward(reverse, q, k, v, beta, h0, keep)[0]


def _sequential_forward(
    reverse: bool, q: jax.Array, k: jax.Array, v: jax.Array, beta: jax.Array, h0: jax.Array, keep: Any
) -> Any:
    (surprise, o), s = loop_over_time(_write_and_read, h0, (q, k, v, beta, keep), reverse=reverse)
    return (o, s), (q, k, beta, h0, keep, surprise)


def _sequential_backward(reverse: bool, residual: Any, cotangents: Any) -> Any:
    """Two more loops and no stored state: the cotangent runs backward, then the state forward once more.

    With e_t = beta_t (v_t - S_{t-1}^T k_t), so that S_t = S_{t-1} + k_t e_t^T, and with G_t the cotangent of S_t: d_t =
    G_t^T k_t is the cotangent of e_t, dv_t = beta_t d_t, G_{t-1} = G_t - k_t dv_t^T (plus q_{t-1} do_{t-1}^T). The first loop
    gives d and the part G e of dk; the second, which rebuilds S from e, the parts that need S: dq and the rest of dk. All
    that needs neither G nor S is done for all positions at once, for a loop's time goes into the number of its operations.
    """
    q, k, beta, h0, keep, surprise = residual
    do, ds = cotangents
    error = beta[..., None] * surprise
    xs = (q, k, beta, do, do * _dot(q, k), error, keep)
    (d_error, g_error), dh0 = loop_over_time(_pull_back, ds, xs, reverse=not reverse)
    dv = beta[..., None] * d_error
    (s_do, s_dv), _ = loop_over_time(_rebuild, h0, (k, error, do, dv, keep), reverse=reverse)
    do_error = _dot(do, error)
    dq = s_do + k * do_error
    dk = g_error + q * do_error - s_dv
    dbeta = jnp.sum(d_error * surprise, axis=-1)
    return dq, dk, dv, dbeta, dh0, None if keep is None else jnp.zeros_like(keep)


_sequential.defvjp(_sequential_forward, _sequential_backward)


def _write_and_read(_: tuple, s: jax.Array, x: tuple[Any, ...]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    q, k, v, beta, keep = x
    s = _cut(s, keep)
    surprise = v - _read_out(s, k)
    s = s + _outer(k, beta[..., None] * surprise)
    return s, (surprise, _read_out(s, q))


def _pull_back(_: tuple, g: jax.Array, x: tuple[Any, ...]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    q, k, beta, do, do_qk, error, keep = x
    d_error = _read_out(g, k) + do_qk
    g_error = _contract_values(g, error)
    return _cut(g + _outer(q, do) - _outer(k, beta[..., None] * d_error), keep), (d_error, g_error)


def _rebuild(_: tuple, s: jax.Array, x: tuple[Any, ...]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    k, error, do, dv, keep = x
    s = _cut(s, keep)
    return s + _outer(k, error), (_contract_values(s, do), _contract_values(s, dv))


def _cut(s: jax.Array, keep: jax.Array | None) -> jax.Array:
    return s if keep is None else s * keep[:, None, None, None]


def _read_out(s: jax.Array, q: jax.Array) -> jax.Array:
    return jnp.einsum("bhkv,bhk->bhv", s, q)


def _contract_values(s: jax.Array, v: jax.Array) -> jax.Array:
    return jnp.einsum("bhkv,bhv->bhk", s, v)


def _outer(k: jax.Array, v: jax.Array) -> jax.Array:
    return k[..., :, None] * v[..., None, :]


def _dot(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.sum(x * y, axis=-1, keepdims=True)


def _compose(x: tuple[jax.Array, jax.Array], y: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    return y[0] @ x[0], y[0] @ x[1] + y[1]


def _associative(
    q: jax.Array, k: jax.Array, v: jax.Array, beta: jax.Array, h0: jax.Array, keep: jax.Array | None, reverse: bool
) -> tuple[jax.Array, jax.Array]:
    a = transition_matrices(k, beta)
    if keep is not None:
        a = a * keep[..., None, None, None]
    b = _outer(k, beta[..., None] * v)
    first, last = (-1, 0) if reverse else (0, -1)
    b = b.at[:, first].add(a[:, first] @ h0)
    _, s = lax.associative_scan(_compose, (a, b), axis=1, reverse=reverse)
    return jnp.sum(s * q[..., None], axis=-2), s[:, last]
