"""DeltaProduct and Gated DeltaProduct: several steps of the delta rule at every position."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.layers.base import MATRICES, NO_DECAY, RecurrentLayer, State, check_at_least, check_choice, check_divides
from lrnn_jax.models.conv import CausalConv
from lrnn_jax.models.delta import KEY_ACTIVATIONS, ForgetGate, finish_qkv
from lrnn_jax.scans import scan_delta_product
from lrnn_jax.scans.delta import transition_matrices


class DeltaProduct(RecurrentLayer):
    """``S <- g_t S``, ``S <- (I - beta_j k_j k_j^T) S + beta_j k_j v_j^T`` for j = 1..n_h, ``y_t = W_o RMSNorm(S^T q_t)``.

    Per head and write j: ``k_j = phi(conv(W_k x)) / ||.||``, ``v_j = silu(conv(W_v x))``, ``beta_j = sigmoid(W_b x)``, doubled
    for the range [-1, 1]. Per head: ``q = phi(conv(W_q x)) / (||.|| sqrt(K))`` and, if gated, ``g = exp(-exp(A_log)
    softplus(W_a x + dt_bias))``, else 1. With the output gate the normalised readout is multiplied with ``silu(W_g x)``.

    Attributes:
      heads: H.
      head_dim: K; 0 means D / heads.
      expand_v: V / K.
      householders: n_h, writes per position.
      conv_width: taps of the convolutions on q, k and v; 0 leaves them out.
      key_activation: phi of q and k, "silu" or "linear". Keys of mixed sign need "linear".
      gated: Gated DeltaProduct: the state decays by g_t before the writes.
      output_gate: multiplies the readout with ``silu(W_g x)``.
      negative_eigenvalues: beta in [0, 2] instead of [0, 1]: each factor's eigenvalue 1 - beta is in [-1, 1] instead of [0, 1].
        For n_h > 1 the product may then have complex eigenvalues.

    Parameters (symbol; name in `fla.layers.GatedDeltaProduct`, which stores matrices transposed; shape): ``q/kernel`` (W_q;
    q_proj; [D HK]), ``k/kernel`` (W_k; k_proj; [D n_h*HK], all heads of the first write first, as there), ``v/kernel`` (W_v;
    v_proj; [D n_h*HV]), ``conv/kernel`` (q_conv1d, k_conv1d, v_conv1d side by side, newest tap first where fla has it last;
    [conv_width HK+n_h*H(K+V)]; there [features 1 conv_width] each), ``beta/kernel`` (W_b; b_proj; [D n_h*H], all heads of the
    first write first), ``decay/kernel`` (W_a; a_proj; [D H]), ``decay/A_log`` (A_log; [H]), ``decay/dt_bias`` (dt_bias; [H]),
    ``gate/kernel`` (W_g; g_proj; [D HV]), ``norm/scale`` (o_norm; [V]), ``out/kernel`` (W_o; o_proj; [HV D]). The state S is [K
    V], as there. gated, output_gate, householders and negative_eigenvalues are fla's use_forget_gate, use_output_gate,
    num_householder and allow_neg_eigval.

    Source: Siems et al. 2025. State tracking as there: width 128, heads=8, head_dim=32, conv_width=0, gated and output_gate
    off.
    Numerics: keys and queries are normalised with 1e-6 added to the squared norm, outputs with 1e-5 added to the mean square.
    Differs: fla has no linear keys, always one head of keys per head of values here, and other defaults (6 heads of 256 for a
    width of 2048, expand_v 2, gated, with output gate); its matrices start uniform in +-1/sqrt(fan_in), ours normal with
    deviation 1/sqrt(fan_in).
    """

    heads: int = 4
    head_dim: int = 0
    expand_v: int = 1
    householders: int = 2
    conv_width: int = 4
    key_activation: str = "silu"
    gated: bool = False
    output_gate: bool = False
    negative_eigenvalues: bool = True

    SOURCE = "Siems et al. 2025; Grazzi et al. 2025, Eq. 2, Section 4.2"
    METHODS = ("sequential", "chunked")
    DIAGONAL = False
    PARAM_GROUPS = {r"kernel$": MATRICES, r"(A_log|dt_bias|scale)$": NO_DECAY}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_at_least(1, fields, "heads", "expand_v", "householders")
        check_at_least(0, fields, "head_dim", "conv_width")
        check_choice("key_activation", fields["key_activation"], KEY_ACTIVATIONS)
        if not fields["head_dim"]:
            check_divides("heads", fields["heads"], fields["width"])

    @property
    def _key_dim(self) -> int:
        return self.head_dim or self.width // self.heads

    @property
    def _keys(self) -> int:
        return self.heads * self._key_dim

    @property
    def _values(self) -> int:
        return self.expand_v * self._keys

    @property
    def _convolved(self) -> int:
        return self._keys + self.householders * (self._keys + self._values)

    def setup(self) -> None:
        self.q = nn.Dense(self._keys, use_bias=False, dtype=self.dtype)
        self.k = nn.Dense(self.householders * self._keys, use_bias=False, dtype=self.dtype)
        self.v = nn.Dense(self.householders * self._values, use_bias=False, dtype=self.dtype)
        if self.conv_width:
            self.conv = CausalConv(self._convolved, self.conv_width, use_bias=False, dtype=self.dtype)
        self.beta = nn.Dense(self.householders * self.heads, use_bias=False, dtype=jnp.float32)
        if self.gated:
            self.decay = ForgetGate(self.heads)
        if self.output_gate:
            self.gate = nn.Dense(self._values, use_bias=False, dtype=self.dtype)
        self.norm = nn.RMSNorm(epsilon=1e-5, dtype=jnp.float32)
        self.out = nn.Dense(self.width, use_bias=False, dtype=self.dtype)

    def __call__(
        self, x: jax.Array, *, state: State | None = None, reset: jax.Array | None = None, method: str = "auto"
    ) -> tuple[jax.Array, State]:
        self.check_state(x, state)
        state = self.init_state(x.shape[0]) if state is None else state
        q, k, v, beta, history = self._project(x, state.get("conv"), reset)
        log_gate = self.decay(x) if self.gated else None
        o, s = scan_delta_product(q, k, v, beta, log_gate=log_gate, h0=state["S"], reset=reset, method=method)
        o = self.norm(o).reshape(*x.shape[:2], -1)
        if self.output_gate:
            o = o * nn.silu(self.gate(x).astype(jnp.float32))
        return self.out(o.astype(self.dtype)), {"S": s} if history is None else {"S": s, "conv": history}

    def init_state(self, batch: int) -> State:
        state = {"S": jnp.zeros((batch, self.heads, self._key_dim, self.expand_v * self._key_dim), jnp.float32)}
        if self.conv_width:
            state["conv"] = jnp.zeros((batch, self.conv_width - 1, self._convolved), jnp.float32)
        return state

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns ``g_t (I - beta_{n_h} k_{n_h} k_{n_h}^T) ... (I - beta_1 k_1 k_1^T)``, ``[B T H K K]`` float32."""
        _, k, _, beta, _ = self._project(x, self.init_state(x.shape[0]).get("conv"), None)
        return transition_matrices(k, beta, self.decay(x) if self.gated else None)

    def parameter_count(self) -> int:
        outputs = self._convolved + self.householders * self.heads + self._values
        gates = self.gated * (self.width + 2) * self.heads + self.output_gate * self.width * self._values
        return self.width * outputs + self.conv_width * self._convolved + gates + self._values // self.heads

    def state_count(self) -> int:
        return self._key_dim * self._values + self._convolved * max(self.conv_width - 1, 0)

    def _project(self, x: jax.Array, history: jax.Array | None, reset: jax.Array | None) -> tuple:
        projected = (self.q(x), self.k(x), self.v(x))
        conv = self.conv if self.conv_width else None
        axes = (self.householders, self.heads)
        q, k, v, history = finish_qkv(projected, conv, history, reset, axes=axes, activation=self.key_activation)
        beta = nn.sigmoid(self.beta(x.astype(jnp.float32))).reshape(k.shape[:-1])
        return q, k, v, 2.0 * beta if self.negative_eigenvalues else beta, history
