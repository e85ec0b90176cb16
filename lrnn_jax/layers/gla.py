"""Gated linear attention (GLA), with eigenvalues in [0, 1] or, ours, [-1, 1]."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.errors import UserError
from lrnn_jax.parts.conv import CausalConv, count_parameters, count_state, empty_history
from lrnn_jax.parts.dense import Dense
from lrnn_jax.parts.initializers import uniform
from lrnn_jax.parts.layer import MATRICES, NO_DECAY, RecurrentLayer, State, check_at_least
from lrnn_jax.scans import scan_gated_outer
from lrnn_jax.scans.outer import METHODS


class GLA(RecurrentLayer):
    """``S_t = diag(alpha_t) S_{t-1} + k_t v_t^T``, ``y_t = W_O (RMSNorm(S_t^T q_t / sqrt(K)) * silu(W_r x_t))`` per head.

    ``q = W_Q x``, ``k = W_K x``, ``v = W_V x``, ``alpha = sigmoid(W_2 W_1 x + b)^(1 / tau)``.

    Attributes:
      heads: H.
      key_size: K, key features of a head; 0 means D / (2 heads).
      value_size: V, value features of a head; 0 means D / heads.
      gate_rank: rank of the map that makes alpha.
      gate_normaliser: tau; the larger, the nearer alpha is to 1.
      conv_width: taps of convolutions on q, k and v, each followed by a silu; 0 leaves both out.
      negative_eigenvalues: ``2 alpha - 1`` instead of alpha, in [-1, 1]; ours, not the paper's. It wants tau = 1: with 16 an
        eigenvalue of 0 needs ``W_2 W_1 x + b = -11``, and one of -0.9 needs -48.

    Parameters (name: symbol, shape; name in `fla.layers.GatedLinearAttention`, whose kernels are [out in]):
      ``q/kernel``: W_Q, [D HK]; q_proj.
      ``k/kernel``: W_K, [D HK]; k_proj.
      ``v/kernel``: W_V, [D HV]; v_proj.
      ``conv/kernel``: [conv_width 2HK+HV], newest tap first; q_conv1d, k_conv1d and v_conv1d side by side,
        [features 1 conv_width] each and newest tap last there.
      ``gate_down/kernel``: W_alpha^1, [D gate_rank]; gk_proj.0.
      ``gate_up/kernel``: W_alpha^2, [gate_rank HK]; gk_proj.1.
      ``gate_up/bias``: b_alpha, [HK]; gk_proj.1.bias.
      ``norm/scale``: [V]; g_norm_swish_gate.weight.
      ``output_gate/kernel``: W_r, [D HV]; g_proj.
      ``out/kernel``: W_O, [HV D]; o_proj.

    gate_rank and gate_normaliser are fla's gate_low_rank_dim and gate_logit_normalizer. The state S is [K V]; the caches of fla
    0.6.0 hold [V K].

    Source: Yang et al. 2024 (arXiv 2312.06635), Eq. 3 and Section 4.4; the range [-1, 1] as Grazzi et al. 2025, Eq. 2, who
    left GLA as it was.
    Differs: RMSNorm and no bias on W_r, where the paper has LayerNorm and b_r, as fla. fla writes K and V as expand_k = 0.5 and
    expand_v = 1 times D, has MQA, feature maps and a lower bound for the gate, and computes the gate's projection in the
    compute dtype, ours in float32. Weights start uniform in +-1/sqrt(fan in), as fla's layer; its models redraw them.

    Example:
    >>> layer, x = GLA(width=8, heads=2, key_size=6), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), {'S': (1, 2, 6, 4), 'conv': (1, 0, 32)})
    """

    heads: int = 4
    key_size: int = 0
    value_size: int = 0
    gate_rank: int = 16
    gate_normaliser: float = 16.0
    conv_width: int = 0
    negative_eigenvalues: bool = False

    SOURCE = "Yang et al. 2024, Eq. 3, Section 4.4"
    METHODS = METHODS
    VARIANTS = {
        "negative": {"negative_eigenvalues": True, "gate_normaliser": 1.0},
        "positive": {"negative_eigenvalues": False},
    }
    BLOCK = {"norm": "rmsnorm", "mixer": "swiglu"}
    PARAM_GROUPS = {r"kernel$": MATRICES, r"(bias|scale)$": NO_DECAY}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_at_least(1, fields, "heads", "gate_rank")
        check_at_least(0, fields, "key_size", "value_size", "conv_width")
        for name, parts in (("key_size", 2 * fields["heads"]), ("value_size", fields["heads"])):
            if fields[name] == 0 and fields["width"] % parts:
                raise UserError(
                    f"{name}=0 needs width={fields['width']} to be a multiple of {parts}, for heads={fields['heads']}"
                )
        if not fields["gate_normaliser"] > 0:
            raise UserError(f"gate_normaliser={fields['gate_normaliser']} must be above 0")

    @property
    def _key_size(self) -> int:
        return self.key_size or self.width // (2 * self.heads)

    @property
    def _value_size(self) -> int:
        return self.value_size or self.width // self.heads

    @property
    def _conv_features(self) -> int:
        return self.heads * (2 * self._key_size + self._value_size)

    def setup(self) -> None:
        keys, values = self.heads * self._key_size, self.heads * self._value_size
        self.q = self._project_to(keys, self.dtype)
        self.k = self._project_to(keys, self.dtype)
        self.v = self._project_to(values, self.dtype)
        self.conv = CausalConv(self._conv_features, self.conv_width, False, nn.silu, self.dtype)
        # float32 whatever the compute dtype: decays near 1 do not survive bfloat16
        self.gate_down = self._project_to(self.gate_rank, jnp.float32, precision="highest")
        self.gate_up = self._project_to(keys, jnp.float32, precision="highest", use_bias=True)
        self.output_gate = self._project_to(values, self.dtype)
        self.norm = nn.RMSNorm(epsilon=1e-5, dtype=jnp.float32)
        self.out = self._project_to(self.width, self.dtype)

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        q, k, v, history = self._project(x, state["conv"], reset)
        o, s = scan_gated_outer(q, k, v, self.transition(x), h0=state["S"], reset=reset, method=scan)
        gate = nn.silu(self.output_gate(x).astype(jnp.float32))
        return self.out((self.norm(o).reshape(gate.shape) * gate).astype(self.dtype)), {"S": s, "conv": history}

    def init_state(self, batch: int) -> State:
        return {
            "S": jnp.zeros((batch, self.heads, self._key_size, self._value_size), jnp.float32),
            "conv": empty_history(batch, self._conv_features, self.conv_width),
        }

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns the eigenvalues alpha_t, or ``2 alpha_t - 1``, ``[B T H K]`` float32."""
        logit = self.gate_up(self.gate_down(x.astype(jnp.float32)))
        alpha = jnp.exp(nn.log_sigmoid(logit) / self.gate_normaliser).reshape(*x.shape[:2], self.heads, -1)
        return 2.0 * alpha - 1.0 if self.negative_eigenvalues else alpha

    def parameter_count(self) -> int:
        keys, values = self.heads * self._key_size, self.heads * self._value_size
        projections = self.width * (2 * keys + 3 * values)
        gate = self.gate_rank * (self.width + keys) + keys
        conv = count_parameters(self._conv_features, self.conv_width, use_bias=False)
        return projections + gate + conv + self._value_size

    def state_count(self) -> int:
        return self.heads * self._key_size * self._value_size + count_state(self._conv_features, self.conv_width)

    def _project_to(self, features: int, dtype: Any, precision: str | None = None, use_bias: bool = False) -> Dense:
        kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        bias_init = uniform(self.gate_rank**-0.5)
        return Dense(features, use_bias, dtype, kernel_init=kernel_init, bias_init=bias_init, precision=precision)

    def _project(self, x: jax.Array, history: jax.Array, reset: jax.Array | None) -> tuple:
        qkv = jnp.concatenate([self.q(x), self.k(x), self.v(x)], axis=-1)
        qkv, history = self.conv(qkv, history, reset)
        keys = self.heads * self._key_size
        parts = jnp.split(qkv.astype(jnp.float32), [keys, 2 * keys], axis=-1)
        q, k, v = (z.reshape(*z.shape[:2], self.heads, -1) for z in parts)
        return q * self._key_size**-0.5, k, v, history
