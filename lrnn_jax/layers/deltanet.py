"""DeltaNet, with eigenvalues in [0, 1] or [-1, 1]."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.layers.base import MATRICES, NO_DECAY, RecurrentLayer, State, check_at_least, check_choice, check_divides
from lrnn_jax.models.conv import CausalConv
from lrnn_jax.models.delta import KEY_ACTIVATIONS, finish_qkv
from lrnn_jax.scans import scan_delta_rule
from lrnn_jax.scans.delta import transition_matrices


class DeltaNet(RecurrentLayer):
    """``S_t = (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T``, ``y_t = W_o RMSNorm(S_t^T q_t)`` per head.

    ``k = phi(W_k x) / ||.||``, ``q = phi(W_q x) / (||.|| sqrt(K))``, ``v = silu(W_v x)``, ``beta = sigmoid(W_beta x)``,
    doubled for the range [-1, 1]; each projection passes a short causal convolution first. K = V = D / heads.

    Attributes:
      heads: H; divides the width.
      conv_width: taps of the convolutions on q, k and v; 0 leaves them out.
      key_activation: phi of q and k, "silu" or "linear". Keys of mixed sign need "linear".
      negative_eigenvalues: beta in [0, 2] instead of [0, 1], so that the eigenvalue 1 - beta is in [-1, 1].

    Parameters (symbol; name in `fla.layers.DeltaNet`, which stores matrices transposed; shape): ``q/kernel`` (W_q; q_proj; [D
    D]), ``k/kernel`` (W_k; k_proj; [D D]), ``v/kernel`` (W_v; v_proj; [D D]), ``conv/kernel`` (q_conv1d, k_conv1d, v_conv1d
    side by side, newest tap first where fla has it last; [conv_width 3D], [D 1 conv_width] each there), ``beta/kernel``
    (W_beta; b_proj; [D H]), ``norm/scale`` (o_norm; [V]), ``out/kernel`` (W_o; o_proj; [D D]). The state S is [K V], as there.
    negative_eigenvalues is fla's allow_neg_eigval, key_activation="linear" its qk_activation="identity".

    Source: Yang et al. 2024; Grazzi et al. 2025, Table 1 and Eq. 2. Doubling beta doubles the input term too, as in the
    paper's code.
    Numerics: keys and queries are normalised with 1e-6 added to the squared norm, outputs with 1e-5 added to the mean square.
    Differs: phi belongs to the convolution in fla. Without one, its versions of the paper's time left q and k linear
    (key_activation="linear" here), later ones apply silu. Its matrices started uniform with deviation 0.18 sqrt(2 / (fan_in +
    fan_out)) then and start uniform in +-1/sqrt(fan_in) now, ours normal with deviation 1/sqrt(fan_in). Its expand_k, expand_v,
    sum normalisation and output gate are left out.
    """

    heads: int = 4
    conv_width: int = 4
    key_activation: str = "silu"
    negative_eigenvalues: bool = True

    SOURCE = "Yang et al. 2024; Grazzi et al. 2025, Table 1, Eq. 2"
    METHODS = ("sequential", "chunked")
    DIAGONAL = False
    PARAM_GROUPS = {r"kernel$": MATRICES, r"scale$": NO_DECAY}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_divides("heads", fields["heads"], fields["width"])
        check_at_least(0, fields, "conv_width")
        check_choice("key_activation", fields["key_activation"], KEY_ACTIVATIONS)

    def setup(self) -> None:
        self.q = nn.Dense(self.width, use_bias=False, dtype=self.dtype)
        self.k = nn.Dense(self.width, use_bias=False, dtype=self.dtype)
        self.v = nn.Dense(self.width, use_bias=False, dtype=self.dtype)
        if self.conv_width:
            self.conv = CausalConv(3 * self.width, self.conv_width, use_bias=False, dtype=self.dtype)
        self.beta = nn.Dense(self.heads, use_bias=False, dtype=jnp.float32)
        self.norm = nn.RMSNorm(epsilon=1e-5, dtype=jnp.float32)
        self.out = nn.Dense(self.width, use_bias=False, dtype=self.dtype)

    def __call__(
        self, x: jax.Array, *, state: State | None = None, reset: jax.Array | None = None, method: str = "auto"
    ) -> tuple[jax.Array, State]:
        self.check_state(x, state)
        state = self.init_state(x.shape[0]) if state is None else state
        q, k, v, beta, history = self._project(x, state.get("conv"), reset)
        o, s = scan_delta_rule(q, k, v, beta, h0=state["S"], reset=reset, method=method)
        y = self.out(self.norm(o).reshape(x.shape).astype(self.dtype))
        return y, {"S": s} if history is None else {"S": s, "conv": history}

    def init_state(self, batch: int) -> State:
        head_dim = self.width // self.heads
        state = {"S": jnp.zeros((batch, self.heads, head_dim, head_dim), jnp.float32)}
        if self.conv_width:
            state["conv"] = jnp.zeros((batch, self.conv_width - 1, 3 * self.width), jnp.float32)
        return state

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns ``I - beta_t k_t k_t^T``, ``[B T H K K]`` float32."""
        _, k, _, beta, _ = self._project(x, self.init_state(x.shape[0]).get("conv"), None)
        return transition_matrices(k[:, :, None], beta[:, :, None])

    def parameter_count(self) -> int:
        conv = 3 * self.width * self.conv_width
        return 4 * self.width**2 + conv + self.width * self.heads + self.width // self.heads

    def state_count(self) -> int:
        return self.width**2 // self.heads + 3 * self.width * max(self.conv_width - 1, 0)

    def _project(self, x: jax.Array, history: jax.Array | None, reset: jax.Array | None) -> tuple:
        projected = (self.q(x), self.k(x), self.v(x))
        conv = self.conv if self.conv_width else None
        q, k, v, history = finish_qkv(projected, conv, history, reset, axes=(self.heads,), activation=self.key_activation)
        beta = nn.sigmoid(self.beta(x.astype(jnp.float32)))
        return q, k, v, 2.0 * beta if self.negative_eigenvalues else beta, history
