"""Gated DeltaNet: the delta rule on a state that decays, with eigenvalues in [0, 1] or [-1, 1]."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.layers.base import MATRICES, NO_DECAY, RecurrentLayer, State, check_at_least, check_divides
from lrnn_jax.models.conv import CausalConv
from lrnn_jax.models.delta import ForgetGate, finish_qkv
from lrnn_jax.scans import scan_delta_rule
from lrnn_jax.scans.delta import transition_matrices


class GatedDeltaNet(RecurrentLayer):
    """``S_t = alpha_t (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T``, ``y_t = W_o (RMSNorm(S_t^T q_t) * silu(W_g x_t))``.

    ``k = silu(conv(W_k x)) / ||.||``, ``q = silu(conv(W_q x)) / (||.|| sqrt(K))``, ``v = silu(conv(W_v x))``, ``beta =
    sigmoid(W_b x)``, doubled for the range [-1, 1], ``alpha = exp(-exp(A_log) softplus(W_a x + dt_bias))``; alpha and beta are
    one number per head and position. V = expand_v * K.

    Attributes:
      heads: H.
      head_dim: K; 0 means D / heads.
      expand_v: V / K.
      conv_width: taps of the convolutions on q, k and v; 0 leaves them out.
      negative_eigenvalues: beta in [0, 2] instead of [0, 1], so that the eigenvalue alpha (1 - beta) is in [-1, 1].

    Parameters (symbol; name in `fla.layers.GatedDeltaNet`, which stores matrices transposed; shape): ``q/kernel`` (W_q; q_proj;
    [D HK]), ``k/kernel`` (W_k; k_proj; [D HK]), ``v/kernel`` (W_v; v_proj; [D HV]), ``conv/kernel`` (q_conv1d, k_conv1d,
    v_conv1d side by side, newest tap first where fla has it last; [conv_width 2HK+HV]; there [HK 1 conv_width], twice, and [HV
    1 conv_width]), ``decay/kernel`` (W_a; a_proj; [D H]), ``decay/A_log`` (A_log; [H]), ``decay/dt_bias`` (dt_bias; [H]),
    ``beta/kernel`` (W_b; b_proj; [D H]), ``gate/kernel`` (W_g; g_proj; [D HV]), ``norm/scale`` (o_norm; [V]), ``out/kernel``
    (W_o; o_proj; [HV D]). negative_eigenvalues is fla's allow_neg_eigval. The state S is [K V]; the caches of fla 0.6.0 hold [V
    K].

    Source: Yang et al. 2025, Sections 3.1 and 3.4; the range [-1, 1]: Grazzi et al. 2025, Eq. 2.
    Numerics: keys and queries are normalised with 1e-6 added to the squared norm, outputs with 1e-5 added to the mean square.
    Differs: heads of values equal heads of keys (fla's num_v_heads); fla's defaults are 6 heads of 256 for a width of 2048 and
    the range [0, 1]; its matrices start uniform in +-1/sqrt(fan_in), ours normal with deviation 1/sqrt(fan_in). The
    Qwen3NextGatedDeltaNet of transformers is this layer with the range [0, 1], with q, k, v and gate joined head by head in one
    matrix, beta and decay in another, and with 1e-6 added to the mean square unless told otherwise.
    """

    heads: int = 4
    head_dim: int = 0
    expand_v: int = 2
    conv_width: int = 4
    negative_eigenvalues: bool = True

    SOURCE = "Yang et al. 2025, Sections 3.1, 3.4; Grazzi et al. 2025, Eq. 2"
    METHODS = ("sequential", "chunked")
    DIAGONAL = False
    PARAM_GROUPS = {r"kernel$": MATRICES, r"(A_log|dt_bias|scale)$": NO_DECAY}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_at_least(1, fields, "heads", "expand_v")
        check_at_least(0, fields, "head_dim", "conv_width")
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

    def setup(self) -> None:
        self.q = nn.Dense(self._keys, use_bias=False, dtype=self.dtype)
        self.k = nn.Dense(self._keys, use_bias=False, dtype=self.dtype)
        self.v = nn.Dense(self._values, use_bias=False, dtype=self.dtype)
        if self.conv_width:
            self.conv = CausalConv(2 * self._keys + self._values, self.conv_width, use_bias=False, dtype=self.dtype)
        self.decay = ForgetGate(self.heads)
        self.beta = nn.Dense(self.heads, use_bias=False, dtype=jnp.float32)
        self.gate = nn.Dense(self._values, use_bias=False, dtype=self.dtype)
        self.norm = nn.RMSNorm(epsilon=1e-5, dtype=jnp.float32)
        self.out = nn.Dense(self.width, use_bias=False, dtype=self.dtype)

    def __call__(
        self, x: jax.Array, *, state: State | None = None, reset: jax.Array | None = None, method: str = "auto"
    ) -> tuple[jax.Array, State]:
        self.check_state(x, state)
        state = self.init_state(x.shape[0]) if state is None else state
        q, k, v, beta, history = self._project(x, state.get("conv"), reset)
        o, s = scan_delta_rule(q, k, v, beta, log_gate=self.decay(x), h0=state["S"], reset=reset, method=method)
        o = self.norm(o).reshape(*x.shape[:2], -1) * nn.silu(self.gate(x).astype(jnp.float32))
        return self.out(o.astype(self.dtype)), {"S": s} if history is None else {"S": s, "conv": history}

    def init_state(self, batch: int) -> State:
        state = {"S": jnp.zeros((batch, self.heads, self._key_dim, self.expand_v * self._key_dim), jnp.float32)}
        if self.conv_width:
            state["conv"] = jnp.zeros((batch, self.conv_width - 1, 2 * self._keys + self._values), jnp.float32)
        return state

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns ``alpha_t (I - beta_t k_t k_t^T)``, ``[B T H K K]`` float32."""
        _, k, _, beta, _ = self._project(x, self.init_state(x.shape[0]).get("conv"), None)
        return transition_matrices(k[:, :, None], beta[:, :, None], self.decay(x))

    def parameter_count(self) -> int:
        keys, values = self._keys, self._values
        projections = self.width * (2 * keys + 3 * values + 2 * self.heads)
        return projections + self.conv_width * (2 * keys + values) + 2 * self.heads + values // self.heads

    def state_count(self) -> int:
        return self._key_dim * self._values + (2 * self._keys + self._values) * max(self.conv_width - 1, 0)

    def _project(self, x: jax.Array, history: jax.Array | None, reset: jax.Array | None) -> tuple:
        projected = (self.q(x), self.k(x), self.v(x))
        conv = self.conv if self.conv_width else None
        q, k, v, history = finish_qkv(projected, conv, history, reset, axes=(self.heads,), activation="silu")
        beta = nn.sigmoid(self.beta(x.astype(jnp.float32)))
        return q, k, v, 2.0 * beta if self.negative_eigenvalues else beta, history
