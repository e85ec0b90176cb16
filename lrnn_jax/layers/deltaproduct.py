"""DeltaProduct and Gated DeltaProduct: several steps of the delta rule at every position."""

from lrnn_jax.parts.delta_rule import DeltaRuleLayer


class DeltaProduct(DeltaRuleLayer):
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
      initial_values: matrices start normal with standard deviation 1/sqrt(fan_in), "default", or as in Differs, "released".

    Parameters (name: symbol, shape; name in `fla.layers.GatedDeltaProduct`, which stores matrices transposed):
      ``q/kernel``: W_q, [D HK]; q_proj.
      ``k/kernel``: W_k, [D n_h*HK], all heads of the first write first; k_proj.
      ``v/kernel``: W_v, [D n_h*HV], likewise; v_proj.
      ``conv/kernel``: [conv_width HK+n_h*H(K+V)], newest tap first; q_conv1d, k_conv1d and v_conv1d side by side,
        [features 1 conv_width] each and newest tap last there.
      ``beta/kernel``: W_b, [D n_h*H], all heads of the first write first; b_proj.
      ``decay/kernel``: W_a, [D H]; a_proj.
      ``decay/A_log``: [H]; A_log.
      ``decay/dt_bias``: [H]; dt_bias.
      ``gate/kernel``: W_g, [D HV]; g_proj.
      ``norm/scale``: [V]; o_norm.
      ``out/kernel``: W_o, [HV D]; o_proj.

    The state S is [K V], as there. gated, output_gate, householders and negative_eigenvalues are fla's use_forget_gate,
    use_output_gate, num_householder and allow_neg_eigval.

    Source: Siems et al. 2025. State tracking as there: width 128, heads=8, head_dim=32, conv_width=0, gated and output_gate
    off.
    Numerics: keys and queries are normalised with 1e-6 added to the squared norm, outputs with 1e-5 added to the mean square.
    Differs: fla has no linear keys, always one head of keys per head of values here, and other defaults (6 heads of 256 for a
    width of 2048, expand_v 2, gated, with output gate). With initial_values="released" all matrices start as in the paper's
    code, uniform with standard deviation 2^-2.5 sqrt(2 / (fan_in + fan_out)), where each write counts as a matrix of its own;
    fla's layers of today start uniform in +-1/sqrt(fan_in), and its language models redraw every matrix and convolution, normal
    with standard deviation 0.02.

    Example:
    >>> layer, x = DeltaProduct(width=8, heads=2, householders=3), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), {'S': (1, 2, 4, 4), 'conv': (1, 3, 56)})
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
    initial_values: str = "default"

    SOURCE = "Siems et al. 2025; Grazzi et al. 2025, Eq. 2, Section 4.2"
