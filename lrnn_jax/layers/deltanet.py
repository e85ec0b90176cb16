"""DeltaNet, with eigenvalues in [0, 1] or [-1, 1]."""

from lrnn_jax.parts.delta_rule import DeltaRuleLayer
from lrnn_jax.parts.layer import MATRICES, NO_DECAY


class DeltaNet(DeltaRuleLayer):
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
    PARAM_GROUPS = {r"kernel$": MATRICES, r"scale$": NO_DECAY}
