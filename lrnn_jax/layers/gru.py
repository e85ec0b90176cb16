"""The GRU, a nonlinear baseline beside the LSTM: no parallel form exists."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.parts.dense import Dense
from lrnn_jax.parts.initializers import uniform
from lrnn_jax.parts.layer import INITIAL_VALUES, MATRICES, NO_DECAY, RecurrentLayer, State, check_choice
from lrnn_jax.scans.exact import matmul
from lrnn_jax.scans.method import Serves
from lrnn_jax.scans.recurrence import keep_mask, run_recurrence

GATES = 3


class GRU(RecurrentLayer):
    """``h_t = z_t * h_{t-1} + (1 - z_t) * tanh(n_t + r_t * (U_n h_{t-1} + c))``, ``y_t = h_t``, with N = D.

    ``(r, z, n) = W x_t + b``, plus ``(U_r, U_z) h_{t-1}`` and a sigmoid on r and z.

    Attributes:
      initial_values: "default" (W normal with variance 1/D, U orthogonal per gate, biases 0) or "released", as
        ``torch.nn.GRU``: everything uniform in +-1/sqrt(D), the biases of r and z a sum of two such draws.

    Parameters (name: symbol, shape; name in ``torch.nn.GRU``, whose matrices are [3D D]), gates side by side as r, z, n:
      ``input/kernel``: W, [D 3D]; ``weight_ih_l0``.
      ``input/bias``: b, [3D]; of r and z ``bias_ih_l0 + bias_hh_l0``, of n ``bias_ih_l0``.
      ``recurrent_kernel``: U, [D 3D]; ``weight_hh_l0``.
      ``recurrent_bias``: c, [D]; the last third of ``bias_hh_l0``.

    Source: Cho et al. 2014, with the reset gate after the product, as torch and cuDNN have it.
    Differs: Cho et al. multiply h_{t-1} by r before the product, and have no biases. By default other initial values than
    torch's.

    Example:
    >>> layer, x = GRU(width=8), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), (1, 8))
    """

    initial_values: str = "default"

    SOURCE = "Cho et al. 2014, reset gate after the product"
    METHODS = {"sequential": Serves()}
    PARAM_GROUPS = {r"kernel$": MATRICES, r"bias$": NO_DECAY}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_choice("initial_values", fields["initial_values"], INITIAL_VALUES)

    def setup(self) -> None:
        kernel_init, recurrent_init = nn.linear.default_kernel_init, _init_recurrent
        bias_init: nn.initializers.Initializer = nn.initializers.zeros
        recurrent_bias_init = nn.initializers.zeros
        if self.initial_values == "released":
            kernel_init = recurrent_init = recurrent_bias_init = uniform(self.width**-0.5)
            bias_init = _init_biases
        self.input = Dense(GATES * self.width, kernel_init=kernel_init, bias_init=bias_init, dtype=self.dtype)
        self.recurrent_kernel = self.param("recurrent_kernel", recurrent_init, (self.width, GATES * self.width))
        self.recurrent_bias = self.param("recurrent_bias", recurrent_bias_init, (self.width,))

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        (h, _), state = self._run(x, state, reset)
        return h, state

    def init_state(self, batch: int) -> State:
        return jnp.zeros((batch, self.width), jnp.float32)

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns the gates z along the trajectory from the zero state, ``[B T D]``: dh_t/dh_{t-1} at fixed gates and n."""
        return self._run(x, self.init_state(x.shape[0]), None)[0][1]

    def parameter_count(self) -> int:
        return 6 * self.width**2 + 4 * self.width

    def state_count(self) -> int:
        return self.width

    def _run(self, x: jax.Array, state: State, reset: jax.Array | None) -> tuple:
        inputs = (self.input(x).astype(jnp.float32), keep_mask(reset))
        return run_recurrence(_step, (self.recurrent_kernel, self.recurrent_bias), state, inputs)


def _step(
    recurrent: tuple[jax.Array, jax.Array], h: jax.Array, x: tuple[jax.Array, jax.Array | None]
) -> tuple[jax.Array, tuple]:
    kernel, bias = recurrent
    gates, keep = x
    if keep is not None:
        h = h * keep[:, None]
    r, z, n = jnp.split(gates, GATES, axis=-1)
    u_r, u_z, u_n = jnp.split(matmul(h, kernel), GATES, axis=-1)
    z = nn.sigmoid(z + u_z)
    n = jnp.tanh(n + nn.sigmoid(r + u_r) * (u_n + bias[None]))
    h = z * h + (1.0 - z) * n
    return h, (h, z)


def _init_biases(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    size = shape[0] // GATES
    draws = uniform(size**-0.5)(key, (2, *shape), dtype)
    return draws[0] + draws[1].at[-size:].set(0.0)


def _init_recurrent(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    blocks = [nn.initializers.orthogonal()(k, (shape[0], shape[0]), dtype) for k in jax.random.split(key, GATES)]
    return jnp.concatenate(blocks, axis=1)
