"""The diagonal linear RNN of Grazzi et al. 2025, Figure 1."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.parts.dense import Dense
from lrnn_jax.parts.layer import EIGENVALUE_RANGES, MATRICES, NO_DECAY, RecurrentLayer, State
from lrnn_jax.scans import scan_diagonal
from lrnn_jax.scans.diagonal import METHODS


class Diagonal(RecurrentLayer):
    """``h_t = a(x_t) * h_{t-1} + W_b x_t + c_b``, ``y_t = h_t``, with ``a = s(gain (W_a x_t + c_a))`` and N = D.

    ``s`` is the sigmoid for eigenvalues in [0, 1] and tanh for [-1, 1].

    Attributes:
      negative_eigenvalues: tanh instead of sigmoid.
      gain: factor inside ``s``; 10 in the released configuration, so that saturated decays are within easy reach.

    Parameters (symbol, shape; in the released ``SimpleRecurrentNet`` W_a is in ``A_diag`` and W_b in ``B_diag``):
    ``decay/kernel`` (W_a, [D D]), ``decay/bias`` (c_a, [D]), ``input/kernel`` (W_b, [D D]), ``input/bias`` (c_b, [D]).

    Source: Grazzi et al. 2025, Section 3 and Figure 1; settings from its released ``parity_diagonal`` configurations.
    """

    negative_eigenvalues: bool = True
    gain: float = 10.0

    SOURCE = "Grazzi et al. 2025, Figure 1"
    METHODS = METHODS
    VARIANTS = EIGENVALUE_RANGES
    BLOCK = {"residual": False}
    PARAM_GROUPS = {r"kernel$": MATRICES, r"bias$": NO_DECAY}

    def setup(self) -> None:
        # in float32 whatever the compute dtype: the gain multiplies the rounding of a logit
        self.decay = nn.Dense(self.width, dtype=jnp.float32, precision="highest")
        self.input = Dense(self.width, dtype=self.dtype)

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        h, state = scan_diagonal(self.transition(x), self.input(x), h0=state, reset=reset, method=scan)
        return h, state

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
