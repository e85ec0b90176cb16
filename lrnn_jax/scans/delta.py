"""The delta rule: a matrix-valued state, erased along the key before it is written."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from lrnn_jax.scans.method import choose_method
from lrnn_jax.scans.recurrence import keep_mask, run_recurrence

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
      method: ``"sequential"`` (O(KV) state, the states recomputed in the backward pass), ``"associative"`` (all T
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
        return run_recurrence(_step, (), h0, (q, k, v, beta, keep), reverse=reverse)
    return _associative(q, k, v, beta, h0, keep, reverse)


def transition_matrices(k: Float[Array, "B T H K"], beta: Float[Array, "B T H"]) -> Float[Array, "B T H K K"]:
    """Returns ``I - beta_t k_t k_t^T`` for every position and head."""
    identity = jnp.eye(k.shape[-1], dtype=jnp.float32)[None, None, None]
    return identity - beta[..., None, None] * _outer(k, k)


Inputs = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array | None]


@jax.custom_vjp
def _step(_: tuple, s: jax.Array, x: Inputs) -> tuple[jax.Array, jax.Array]:
    q, k, v, beta, keep = x
    if keep is not None:
        s = s * keep[:, None, None, None]
    error = beta[..., None] * (v - _read_out(s, k))
    s = s + _outer(k, error)
    return s, _read_out(s, q)


def _step_residual(_: tuple, s: jax.Array, x: Inputs) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, Inputs]]:
    return _step((), s, x), (s, x)


def _step_pullback(residual: tuple[jax.Array, Inputs], cotangents: tuple[jax.Array, jax.Array]) -> tuple:
    """Touches the state's cotangent once: every other term is a product of a matrix with a vector.

    With G = dS + q do^T the cotangent of S_t, e = beta r and r = v - S^T k: de = G^T k, dr = beta de, dk = G e - S dr,
    dq = S_t do, dS_{t-1} = G - k dr^T. G is never formed.
    """
    s, (q, k, v, beta, keep) = residual
    ds, do = cotangents
    if keep is not None:
        s = s * keep[:, None, None, None]
    r = v - _read_out(s, k)
    error = beta[..., None] * r
    d_error = _read_out(ds, k) + do * _dot(q, k)
    dr = beta[..., None] * d_error
    dq = _contract_values(s, do) + k * _dot(error, do)
    dk = _contract_values(ds, error) + q * _dot(do, error) - _contract_values(s, dr)
    dbeta = jnp.sum(d_error * r, axis=-1)
    ds = ds + _outer(q, do) - _outer(k, dr)
    dkeep = None
    if keep is not None:
        ds = ds * keep[:, None, None, None]
        dkeep = jnp.zeros_like(keep)  # made from booleans, so nothing ever asks for this gradient
    return (), ds, (dq, dk, dr, dbeta, dkeep)


_step.defvjp(_step_residual, _step_pullback)


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
