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
      initial_values: matrices start normal with standard deviation 1/sqrt(fan_in), "default", or as in Differs, "released".

    Parameters (name: symbol, shape; name in `fla.layers.DeltaNet`, which stores matrices transposed):
      ``q/kernel``: W_q, [D D]; q_proj.
      ``k/kernel``: W_k, [D D]; k_proj.
      ``v/kernel``: W_v, [D D]; v_proj.
      ``conv/kernel``: [conv_width 3D], newest tap first; q_conv1d, k_conv1d and v_conv1d side by side, [D 1 conv_width] each
        and newest tap last there.
      ``beta/kernel``: W_beta, [D H]; b_proj.
      ``norm/scale``: [V]; o_norm.
      ``out/kernel``: W_o, [D D]; o_proj.

    The state S is [K V], as there. negative_eigenvalues is fla's allow_neg_eigval, key_activation="linear" its
    qk_activation="identity".

    Source: Yang et al. 2024; Grazzi et al. 2025, Table 1 and Eq. 2. Doubling beta doubles the input term too, as in the
    paper's code.
    Numerics: keys and queries are normalised with 1e-6 added to the squared norm, outputs with 1e-5 added to the mean square.
    Differs: phi belongs to the convolution in fla. Without one, its versions of the paper's time left q and k linear
    (key_activation="linear" here), later ones apply silu. By default all matrices start 5.7 times as large as in the paper's
    code, and W_beta 4 times; with initial_values="released" they start as there, uniform with standard deviation
    2^-2.5 sqrt(2 / (fan_in + fan_out)). fla's layers of today start uniform in +-1/sqrt(fan_in), and its language models redraw
    every matrix and convolution, normal with standard deviation 0.02. Its expand_k, expand_v, sum normalisation and output gate
    are left out.

    Example:
    >>> layer, x = DeltaNet(width=8, heads=2), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), {'S': (1, 2, 4, 4), 'conv': (1, 3, 24)})
    """

    heads: int = 4
    conv_width: int = 4
    key_activation: str = "silu"
    negative_eigenvalues: bool = True
    initial_values: str = "default"

    SOURCE = "Yang et al. 2024; Grazzi et al. 2025, Table 1, Eq. 2"
    PARAM_GROUPS = {r"kernel$": MATRICES, r"scale$": NO_DECAY}
