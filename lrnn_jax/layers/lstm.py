"""The LSTM, the nonlinear baseline: no parallel form exists."""

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


class LSTM(RecurrentLayer):
    """``c_t = f_t * c_{t-1} + i_t * tanh(g_t)``, ``h_t = o_t * tanh(c_t)``, ``y_t = h_t``, with N = D.

    ``(i, f, g, o) = W x_t + U h_{t-1} + b``, with a sigmoid on i, f and o.

    Attributes:
      initial_values: "default" (W normal with variance 1/D, U orthogonal per gate, the forget gate's bias 1) or "released", as
        ``torch.nn.LSTM``: everything uniform in +-1/sqrt(D), the bias a sum of two such draws.

    Parameters (name: symbol, shape; name in ``torch.nn.LSTM``, whose matrices are [4D D]), gates side by side as i, f, g, o:
      ``input/kernel``: W, [D 4D]; ``weight_ih_l0``.
      ``input/bias``: b, [4D]; ``bias_ih_l0 + bias_hh_l0``.
      ``recurrent_kernel``: U, [D 4D]; ``weight_hh_l0``.

    Source: Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000.
    Differs: one bias where torch has two that are added; by default other initial values than torch's.

    Example:
    >>> layer, x = LSTM(width=8), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), {'c': (1, 8), 'h': (1, 8)})
    """

    initial_values: str = "default"

    SOURCE = "Hochreiter and Schmidhuber 1997; Gers et al. 2000"
    METHODS = {"sequential": Serves()}
    PARAM_GROUPS = {r"kernel$": MATRICES, r"bias$": NO_DECAY}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_choice("initial_values", fields["initial_values"], INITIAL_VALUES)

    def setup(self) -> None:
        kernel_init, bias_init, recurrent_init = nn.linear.default_kernel_init, _init_bias, _init_recurrent
        if self.initial_values == "released":
            kernel_init = recurrent_init = uniform(self.width**-0.5)
            bias_init = _init_two_biases
        self.input = Dense(4 * self.width, kernel_init=kernel_init, bias_init=bias_init, dtype=self.dtype)
        self.recurrent_kernel = self.param("recurrent_kernel", recurrent_init, (self.width, 4 * self.width))

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        (h, _), state = self._run(x, state, reset)
        return h, state

    def init_state(self, batch: int) -> State:
        return {"c": jnp.zeros((batch, self.width), jnp.float32), "h": jnp.zeros((batch, self.width), jnp.float32)}

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns the forget gates along the trajectory from the zero state, ``[B T D]``: dc_t/dc_{t-1} at fixed gates."""
        return self._run(x, self.init_state(x.shape[0]), None)[0][1]

    def parameter_count(self) -> int:
        return 8 * self.width**2 + 4 * self.width

    def state_count(self) -> int:
        return 2 * self.width

    def _run(self, x: jax.Array, state: State, reset: jax.Array | None) -> tuple:
        inputs = (self.input(x).astype(jnp.float32), keep_mask(reset, reverse=False))
        return run_recurrence(_step, self.recurrent_kernel, state, inputs)


def _step(recurrent: jax.Array, state: State, x: tuple[jax.Array, jax.Array | None]) -> tuple[State, tuple]:
    gates, keep = x
    c, h = state["c"], state["h"]
    if keep is not None:
        c, h = c * keep[:, None], h * keep[:, None]
    i, f, g, o = jnp.split(gates + matmul(h, recurrent), 4, axis=-1)
    forget = nn.sigmoid(f)
    c = forget * c + nn.sigmoid(i) * jnp.tanh(g)
    h = nn.sigmoid(o) * jnp.tanh(c)
    return {"c": c, "h": h}, (h, forget)


def _init_bias(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    size = shape[0] // 4
    return jnp.zeros(shape, dtype).at[size : 2 * size].set(1.0)


def _init_two_biases(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    draws = uniform((shape[0] // 4) ** -0.5)(key, (2, *shape), dtype)
    return draws[0] + draws[1]


def _init_recurrent(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    blocks = [nn.initializers.orthogonal()(k, (shape[0], shape[0]), dtype) for k in jax.random.split(key, 4)]
    return jnp.concatenate(blocks, axis=1)
