"""Gates that share a total of 1: what makes the recurrences of Dubinin et al. 2026 stable."""

import functools
from collections.abc import Iterable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

GATES = ("softmax", "sigmoid", "relu", "tanh", "linear", "silu", "none")
# Added to each gate's relu below the line, as the released code does.
RELU_OFFSET = 1e-3
# Up to so many gates are taken one by one, more are summed over as an axis. A sum over a short last axis is slow on a CPU: one
# by one, a layer's gradients took 0.3 to 0.75 of the time with 2 gates, 0.75 to 0.97 with 3 and 4, 0.8 to 1.7 with 5, 6 and 9.
FEW = 4
# A total below this is not divided by: gates that are all 0 stay so. Its square, in gradients, is a float32.
TINY = 1e-18


def normalise_gates(logits: Float[Array, "... G"], gates: str) -> tuple[Float[Array, "... M"], Float[Array, "..."]]:
    """Computes ``f(z) / sum |f(z)|`` over the last axis, so that magnitudes add up to at most 1; "none" leaves z as it is.

    Args:
      logits: z, float32, G = M + 1: those of M recurrent gates and, last, of the input gate.
      gates: one of `GATES`. f is exp for "softmax", z for "linear", else what the name says; with "relu" the sum is of
        relu(z) + 0.001.

    Returns:
      ``(a, a0)``: the recurrent gates and the input gate.

    Source: Dubinin et al. 2026, the L1 normalisation and its ablation (Figure 2), with the constants of the released code.
    Numerics: "sigmoid" is a softmax of log sigmoid, so no sum of it is 0. "tanh", "linear" and "silu" are 0/0 for zeros only;
      a sum below 1e-18 (silu: every z below about -45) is not divided by, so the gates are 0, or as good as 0, there.
    Differs: the released code has NaN where these are 0/0.

    Example: z = (1, -3) gives (0.25, -0.75) with "linear" and (1 / 1.002, 0) with "relu".
    """
    if gates == "none":
        return logits[..., :-1], logits[..., -1]
    if gates in ("softmax", "sigmoid"):
        logits = nn.log_sigmoid(logits) if gates == "sigmoid" else logits
        few = logits.shape[-1] <= FEW
        largest = functools.reduce(jnp.maximum, _take(logits)) if few else jnp.max(logits, axis=-1)
        values = jnp.exp(logits - lax.stop_gradient(largest)[..., None])
    else:
        values = {"relu": nn.relu, "tanh": jnp.tanh, "linear": jnp.asarray, "silu": nn.silu}[gates](logits)
    offset = RELU_OFFSET if gates == "relu" else 0.0
    if values.shape[-1] <= FEW:
        return _divide(offset, values)
    total = jnp.sum(jnp.abs(values) + offset, axis=-1, keepdims=True)
    values = values / jnp.where(total > TINY, total, 1.0)
    return values[..., :-1], values[..., -1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _divide(offset: float, values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Divides few values by the sum of their magnitudes and offsets, and splits off the last."""
    return _divide_forward(offset, values)[0]


def _divide_forward(offset: float, values: jax.Array) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    total = _add(jnp.abs(value) + offset for value in _take(values))
    divisor = jnp.where(total > TINY, total, 1.0)
    *a, a0 = (value / divisor for value in _take(values))
    return (jnp.stack(a, axis=-1), a0), (values, total)


def _divide_backward(
    offset: float, residual: tuple[jax.Array, jax.Array], cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array]:
    """``dv_k = (da_k - sign(v_k) sum_j da_j a_j) / total``; where the total is no divisor, da_k."""
    values, total = residual
    da = [*_take(cotangents[0]), cotangents[1]]
    divides = total > TINY
    inverse = 1.0 / jnp.where(divides, total, 1.0)
    shared = jnp.where(divides, _add(d * value for d, value in zip(da, _take(values), strict=True)) * inverse, 0.0)
    parts = [(d - jnp.sign(value) * shared) * inverse for d, value in zip(da, _take(values), strict=True)]
    return (jnp.stack(parts, axis=-1),)


_divide.defvjp(_divide_forward, _divide_backward)


def _add(parts: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, parts)


def _take(x: jax.Array) -> list[jax.Array]:
    return [x[..., k] for k in range(x.shape[-1])]


def repeat_gates(
    logits: Float[Array, "... G"], gates: str, batch: int, steps: int
) -> tuple[Float[Array, "B T ... M"], Float[Array, "B T ..."]]:
    """`normalise_gates` of logits that are parameters, the same at every position.

    Source: the released code, which divides the logits by M + 1 where nothing is normalised.
    """
    parts = normalise_gates(logits / logits.shape[-1] if gates == "none" else logits, gates)
    a, a0 = (jnp.broadcast_to(part[None, None], (batch, steps, *part.shape)) for part in parts)
    return a, a0
