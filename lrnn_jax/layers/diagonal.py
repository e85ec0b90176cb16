"""The diagonal linear RNN of Grazzi et al. 2025, Figure 1."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.parts.dense import Dense
from lrnn_jax.parts.initializers import uniform
from lrnn_jax.parts.layer import EIGENVALUE_RANGES, INITIAL_VALUES, MATRICES, NO_DECAY, RecurrentLayer, State, check_choice
from lrnn_jax.scans import scan_diagonal
from lrnn_jax.scans.diagonal import METHODS


class Diagonal(RecurrentLayer):
    """``h_t = a(x_t) * h_{t-1} + W_b x_t + c_b``, ``y_t = h_t``, with ``a = s(gain (W_a x_t + c_a))`` and N = D.

    ``s`` is the sigmoid for eigenvalues in [0, 1] and tanh for [-1, 1]. With the input gate the input term is
    ``(W_b x_t + c_b) * x_t``.

    Attributes:
      negative_eigenvalues: tanh instead of sigmoid.
      gain: factor inside ``s``; 10 in the released configuration, so that saturated decays are within easy reach.
      input_gate: multiplies the input term with x_t, as the released code does.
      initial_values: "default" (matrices normal with standard deviation 1/sqrt(D), biases 0) or "released" (see Differs).

    Parameters (name: symbol, shape; name in the released ``SimpleRecurrentNet``):
      ``decay/kernel``: W_a, [D D]; in ``A_diag``.
      ``decay/bias``: c_a, [D]; in ``A_diag``.
      ``input/kernel``: W_b, [D D]; in ``B_diag``.
      ``input/bias``: c_b, [D]; in ``B_diag``.

    Source: Grazzi et al. 2025, Section 3 and Figure 1; settings from its released ``parity_diagonal`` configurations.
    Differs: the released layer is input_gate=True with initial_values="released": matrices uniform in +-1/sqrt(10 D), which is
    +-0.1 at its width of 10, biases uniform in +-1/sqrt(D). By default the matrices are 5.5 times as large, so that 81 % of the
    decays start saturated instead of 33 %.

    Example:
    >>> layer, x = Diagonal(width=8, negative_eigenvalues=False), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), (1, 8))
    """

    negative_eigenvalues: bool = True
    gain: float = 10.0
    input_gate: bool = False
    initial_values: str = "default"

    SOURCE = "Grazzi et al. 2025, Figure 1"
    METHODS = METHODS
    VARIANTS = EIGENVALUE_RANGES
    BLOCK = {"residual": False}
    PARAM_GROUPS = {r"kernel$": MATRICES, r"bias$": NO_DECAY}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_choice("initial_values", fields["initial_values"], INITIAL_VALUES)

    def setup(self) -> None:
        how: dict[str, Any] = {}
        if self.initial_values == "released":
            bound = self.width**-0.5
            how = {"kernel_init": uniform(bound / 10**0.5), "bias_init": uniform(bound)}
        # in float32 whatever the compute dtype: the gain multiplies the rounding of a logit
        self.decay = Dense(self.width, dtype=jnp.float32, precision="highest", **how)
        self.input = Dense(self.width, dtype=self.dtype, **how)

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        # in this order: gradients of x are added up in the reverse one, and measured runs are repeated to the bit
        a, b = self.transition(x), self.input(x)
        if self.input_gate:
            b = b.astype(jnp.float32) * x.astype(jnp.float32)
        return scan_diagonal(a, b, h0=state, reset=reset, method=scan)

    def init_state(self, batch: int) -> State:
        return jnp.zeros((batch, self.width), jnp.float32)

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns the eigenvalues a(x_t), ``[B T D]`` float32."""
        logits = self.gain * self.decay(x.astype(jnp.float32))
        return jnp.tanh(logits) if self.negative_eigenvalues else nn.sigmoid(logits)

    def parameter_count(self) -> int:
        return 2 * (self.width**2 + self.width)

    def state_count(self) -> int:
        return self.width
