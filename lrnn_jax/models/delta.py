"""What the layers of the delta-rule family share: queries, keys and values from their projections, and the forget gate."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lrnn_jax.models.conv import CausalConv
from lrnn_jax.models.initializers import init_dt_bias
from lrnn_jax.models.norm import normalise_l2

KEY_ACTIVATIONS = ("silu", "linear")


def finish_qkv(
    projected: Sequence[Float[Array, "B T _"]],
    conv: CausalConv | None,
    history: Float[Array, "B J F"] | None,
    reset: Bool[Array, "B T"] | None,
    *,
    axes: tuple[int, ...],
    activation: str,
) -> tuple[Float[Array, "B T H K"], Float[Array, "B T *JH K"], Float[Array, "B T *JH V"], Float[Array, "B J F"] | None]:
    """Makes ``q = phi(conv(.)) / (||.|| sqrt(K))``, ``k = phi(conv(.)) / ||.||`` and ``v = silu(conv(.))`` per head.

    Args:
      projected: W_q x, W_k x, W_v x.
      conv: one convolution for the three side by side; None leaves it out.
      history: its state.
      reset: True where a new sequence starts.
      axes: what the features of k and v are split into before K and V: (H,), or (J, H) with J writes per position.
      activation: phi, one of `KEY_ACTIVATIONS`.

    Returns:
      ``(q, k, v, history)``, all in float32.
    """
    joined = jnp.concatenate(projected, axis=-1)
    if conv is not None and history is not None:
        joined, history = conv(joined, history, reset)
    ends = [projected[0].shape[-1], projected[0].shape[-1] + projected[1].shape[-1]]
    q, k, v = jnp.split(joined.astype(jnp.float32), ends, axis=-1)
    if activation == "silu":
        q, k = nn.silu(q), nn.silu(k)
    q = q.reshape(*q.shape[:2], axes[-1], -1)
    k, v = (z.reshape(*z.shape[:2], *axes, -1) for z in (k, nn.silu(v)))
    return normalise_l2(q) * q.shape[-1] ** -0.5, normalise_l2(k), v, history


class ForgetGate(nn.Module):
    """``log alpha_t = -exp(A_log) softplus(W_a x_t + dt_bias)`` per head, in float32.

    Attributes:
      heads: H.

    Source: Gu and Dao 2023; Yang et al. 2025. Initialised as there: exp(A_log) uniform in [0, 16], softplus(dt_bias)
    log-uniform in [1e-3, 1e-1].
    """

    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T H"]:
        """Returns the logarithm of the gate, at most 0."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.heads))
        a_log = self.param("A_log", _init_a_log, (self.heads,))
        dt_bias = self.param("dt_bias", init_dt_bias, (self.heads,))
        dt = nn.softplus(x.astype(jnp.float32) @ kernel + dt_bias[None, None])
        return -jnp.exp(a_log)[None, None] * dt


def _init_a_log(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    # at exactly 0 the logarithm would be infinite
    return jnp.log(jax.random.uniform(key, shape, dtype, jnp.finfo(dtype).tiny, 16.0))
