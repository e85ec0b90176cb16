"""Gated DeltaNet: the delta rule on a state that decays, with eigenvalues in [0, 1] or [-1, 1]."""

from lrnn_jax.parts.delta_rule import DeltaRuleLayer


class GatedDeltaNet(DeltaRuleLayer):
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
      initial_values: matrices start normal with standard deviation 1/sqrt(fan_in), "default", or as in Differs, "released".

    Parameters (name: symbol, shape; name in `fla.layers.GatedDeltaNet`, which stores matrices transposed):
      ``q/kernel``: W_q, [D HK]; q_proj.
      ``k/kernel``: W_k, [D HK]; k_proj.
      ``v/kernel``: W_v, [D HV]; v_proj.
      ``conv/kernel``: [conv_width 2HK+HV], newest tap first; q_conv1d, k_conv1d and v_conv1d side by side,
        [features 1 conv_width] each and newest tap last there.
      ``decay/kernel``: W_a, [D H]; a_proj.
      ``decay/A_log``: [H]; A_log.
      ``decay/dt_bias``: [H]; dt_bias.
      ``beta/kernel``: W_b, [D H]; b_proj.
      ``gate/kernel``: W_g, [D HV]; g_proj.
      ``norm/scale``: [V]; o_norm.
      ``out/kernel``: W_o, [HV D]; o_proj.

    negative_eigenvalues is fla's allow_neg_eigval. The state S is [K V]; the caches of fla 0.6.0 hold [V K].

    Source: Yang et al. 2025, Sections 3.1 and 3.4; the range [-1, 1]: Grazzi et al. 2025, Eq. 2.
    Numerics: keys and queries are normalised with 1e-6 added to the squared norm, outputs with 1e-5 added to the mean square.
    Differs: heads of values equal heads of keys (fla's num_v_heads); fla's defaults are 6 heads of 256 for a width of 2048 and
    the range [0, 1]. With initial_values="released" all matrices start as in fla of the paper's time, uniform with standard
    deviation 2^-2.5 sqrt(2 / (fan_in + fan_out)); fla's layers of today start uniform in +-1/sqrt(fan_in), and its language
    models redraw every matrix and convolution, normal with standard deviation 0.02. The Qwen3NextGatedDeltaNet of transformers
    is this layer with the range [0, 1], with q, k, v and gate joined head by head in one matrix, beta and decay in another, and
    with 1e-6 added to the mean square unless told otherwise.

    Example:
    >>> layer, x = GatedDeltaNet(width=8, heads=2), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), {'S': (1, 2, 4, 8), 'conv': (1, 3, 32)})
    """

    heads: int = 4
    head_dim: int = 0
    expand_v: int = 2
    conv_width: int = 4
    negative_eigenvalues: bool = True
    initial_values: str = "default"

    gated = True
    output_gate = True

    SOURCE = "Yang et al. 2025, Sections 3.1, 3.4; Grazzi et al. 2025, Eq. 2"
