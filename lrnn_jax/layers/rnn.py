"""The vanilla recurrent network of Orvieto et al. 2023, where their ladder starts: a dense A, with or without nonlinearity."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.errors import UserError
from lrnn_jax.parts.dense import project
from lrnn_jax.parts.layer import MATRICES, RECURRENT, RecurrentLayer, State, check_at_least, check_choice
from lrnn_jax.scans.dense import ACTIVATIONS, METHODS, scan_dense, slope


class RNN(RecurrentLayer):
    """``h_t = f(A h_{t-1} + B u_t)``, ``y_t = C h_t + D * u_t``, real and dense.

    Attributes:
      state_size: N.
      activation: f: "tanh", "relu", or "linear" for none.
      radius: above 0; entries of A start with variance radius^2 / N, so that its eigenvalues fill a disk about so large.

    Parameters (name, as in the paper: shape):
      ``A``: [N N].
      ``B``: [N D].
      ``C``: [D N].
      ``D``: [D].

    Source: Orvieto et al. 2023, Eq. 1 and Section 3.1: A starts with entries of variance 1/N (Glorot), whose eigenvalues fill
    the unit disk.
    Numerics: nothing keeps A's eigenvalues within the unit circle. Without tanh, the state may then grow with the length: of
    64 x 64 entries with radius 1 the largest eigenvalue is mostly 1.02 to 1.11, and 1.11^1024 is beyond float32.
    Differs: Eq. 1 has a matrix D and the LRU's listing a vector; ours is the vector, so that RNN and LRU differ in the
    recurrence alone. The paper does not give the variances of B and C; ours are 1/D and 1/N, as the LRU's.

    Example:
    >>> layer, x = RNN(width=8, state_size=6), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), (1, 6))
    """

    state_size: int = 64
    activation: str = "tanh"
    radius: float = 1.0

    SOURCE = "Orvieto et al. 2023, Eq. 1 and Section 3.1"
    METHODS = METHODS
    DIAGONAL = False
    MAY_EXPAND = True
    VARIANTS = {name: {"activation": name} for name in ACTIVATIONS}
    BLOCK = {"norm": "batchnorm", "mixer": "glu"}
    PARAM_GROUPS = {r"^(A|B)$": RECURRENT, r"^(C|D)$": MATRICES}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_at_least(1, fields, "state_size")
        if not 0 < fields["radius"] < math.inf:
            raise UserError(f"radius={fields['radius']} must be above 0")
        check_choice("activation", fields["activation"], ACTIVATIONS)

    def setup(self) -> None:
        size, width = self.state_size, self.width
        self.A = self.param("A", nn.initializers.normal(self.radius * size**-0.5), (size, size))
        self.B = self.param("B", nn.initializers.normal(width**-0.5), (size, width))
        self.C = self.param("C", nn.initializers.normal(size**-0.5), (width, size))
        self.D = self.param("D", nn.initializers.normal(1.0), (width,))

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        h, state = self._run(x, state, reset, scan)
        y = project(h.astype(self.dtype), self.C.astype(self.dtype).T)
        return y.astype(jnp.float32) + self.D[None, None] * x.astype(jnp.float32), state

    def init_state(self, batch: int) -> State:
        return jnp.zeros((batch, self.state_size), jnp.float32)

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns ``dh_t/dh_{t-1} = diag(f'_t) A`` along the trajectory from the zero state, ``[B T N N]`` float32."""
        h, _ = self._run(x, self.init_state(x.shape[0]), None, "auto")
        return slope(self.activation, h)[..., None] * self.A[None, None]

    def parameter_count(self) -> int:
        return self.state_size**2 + 2 * self.state_size * self.width + self.width

    def state_count(self) -> int:
        return self.state_size

    def _run(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        """Every state; the product with B is that of all positions together."""
        b = project(x, self.B.astype(self.dtype).T)
        return scan_dense(self.A, b, activation=self.activation, h0=state, reset=reset, method=scan)
