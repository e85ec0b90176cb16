"""The full-matrix baseline of the word problems: whatever a product of learned matrices can do."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.parts.dense import Dense
from lrnn_jax.parts.layer import MATRICES, NO_DECAY, RecurrentLayer, State, check_at_least
from lrnn_jax.scans.product import METHODS, scan_product, start_product


class FullMatrix(RecurrentLayer):
    """``H_t = A(x_t) H_{t-1}``, ``H_0 = I``, ``y_t = W_o h_t / max(1, ||h_t||) + c_o``, where h_t is H_t as a vector.

    ``A(x) = W x + c``, read as an N x N matrix row by row.

    Attributes:
      size: N.

    Parameters (name: symbol, shape):
      ``matrix/kernel``: W, [D N^2].
      ``matrix/bias``: c, [N^2].
      ``out/kernel``: W_o, [N^2 D].
      ``out/bias``: c_o, [D].

    Source: Grazzi et al. 2025, App. E.2, "Full matrix simple", with N = 32. We know of no published code.
    Numerics: the state is H_t / ||H_t|| with the logarithm of the Frobenius norm beside it: the same outputs, but products
    of any length stay finite. Nothing keeps A's eigenvalues within the unit circle; in the paper, too, norms drift, and
    the longest sequences are lost to it.
    Differs: the paper learns one matrix per token; a linear map of an embedding gives every token a matrix of its own only
    where the embedding's width is at least the vocabulary's size. It gives no initial values; ours are A near I, as c = I
    and W x has entries of standard deviation 0.01.

    Example:
    >>> layer, x = FullMatrix(width=8, size=3), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), {'H': (1, 3, 3), 'log_norm': (1,)})
    """

    size: int = 32

    SOURCE = "Grazzi et al. 2025, App. E.2"
    METHODS = METHODS
    DIAGONAL = False
    MAY_EXPAND = True
    PARAM_GROUPS = {r"kernel$": MATRICES, r"bias$": NO_DECAY}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_at_least(1, fields, "size")

    def setup(self) -> None:
        # in float32 whatever the compute dtype: a product of T matrices multiplies their rounding
        self.matrix = Dense(
            self.size**2,
            kernel_init=nn.initializers.variance_scaling(1e-4, "fan_in", "normal"),
            bias_init=_init_identity,
            dtype=jnp.float32,
            precision="highest",
        )
        self.out = Dense(self.width, dtype=self.dtype)

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        start = state["H"], state["log_norm"]
        (h, log_norm), last = scan_product(self.transition(x), h0=start, reset=reset, method=scan)
        ball = h * jnp.exp(jnp.minimum(log_norm, 0.0))[..., None, None]
        return self.out(ball.reshape(*x.shape[:2], -1).astype(self.dtype)), _name(last)

    def init_state(self, batch: int) -> State:
        return _name(start_product(batch, self.size))

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns A(x_t), ``[B T N N]`` float32."""
        return self.matrix(x.astype(jnp.float32)).reshape(*x.shape[:2], self.size, self.size)

    def parameter_count(self) -> int:
        return 2 * self.width * self.size**2 + self.size**2 + self.width

    def state_count(self) -> int:
        return self.size**2 + 1


def _name(state: tuple[jax.Array, jax.Array]) -> State:
    return {"H": state[0], "log_norm": state[1]}


def _init_identity(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    size = round(shape[0] ** 0.5)
    return jnp.eye(size, dtype=dtype).reshape(-1)
