"""The sLSTM: an LSTM with exponential gates, a normaliser, and heads that do not mix."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.parts.conv import CausalConv, count_parameters, count_state, empty_history
from lrnn_jax.parts.layer import (
    MATRICES,
    NO_DECAY,
    RecurrentLayer,
    State,
    check_at_least,
    check_choice,
    check_divides,
    check_heads_with_norm,
)
from lrnn_jax.scans.exact import einsum
from lrnn_jax.scans.method import Serves
from lrnn_jax.scans.recurrence import keep_mask, run_recurrence

FORGET_GATES = ("sigmoid", "exp")
BIAS_INITS = ("powerlaw", "powerlaw_by_block", "standard")
CELL = ("c", "n", "h", "m")


class SLSTM(RecurrentLayer):
    """``c_t = f' c_{t-1} + i' tanh(z)``, ``n_t = f' n_{t-1} + i'``, ``h_t = sigmoid(o) c_t / n_t``, ``y_t = GroupNorm(h_t)``.

    ``(i, f) = W_if u_t + R_if h_{t-1} + b_if`` and ``(z, o) = W_zo x_t + R_zo h_{t-1} + b_zo``, with ``u = silu(conv(x))``.
    The stabilised gates are ``i' = exp(i - m_t)`` and ``f' = exp(log f + m_{t-1} - m_t)``, ``m_t = max(log f + m_{t-1},
    i)``, where ``log f`` is log sigmoid(f) or f itself. Every W and R is block-diagonal with P = D / heads; the norm is over
    each head's P features. No projection follows.

    Attributes:
      heads: H; divides the width and leaves at least two features per head.
      conv_width: taps of the convolution in front of the gates i and f; 0 leaves it and its silu out.
      forget_gate: "sigmoid", as released, or "exp", the paper's other choice.
      bias_init: the forget gate's bias starts at "powerlaw", 5 - 12 (j / (P - 1))^0.3 for feature j, with all other biases
        at 0; at "powerlaw_by_block", the same with the exponent 0.3 + 1.3 index / (depth - 1), as released; or at "standard",
        every bias uniform in +-1/sqrt(D).

    Parameters (name: symbol, shape; name in ``sLSTMLayer`` of NX-AI's ``xlstm``):
      ``i_kernel``: W_i, [H P P], input before output; ``fgate.weight`` (see below), [H out in], as the next three.
      ``f_kernel``: W_f; ``igate.weight``.
      ``z_kernel``: W_z; ``zgate.weight``.
      ``o_kernel``: W_o; ``ogate.weight``.
      ``recurrent_kernel``: R, [H P 4 P]: head, from, gate in the order i f z o, to; ``slstm_cell.recurrent_kernel``, stored as
        ``_recurrent_kernel_``, which is [H 4P P], from last, in its backend "vanilla".
      ``bias``: b, [H 4 P]; ``slstm_cell.bias``, stored as ``_bias_``, which is [4 H P] as a vector there.
      ``norm/scale``: [H P]; 1 + ``group_norm.weight``, which is [D].
      ``conv/kernel``: [conv_width D]; ``conv1d.conv.weight``, which is [D 1 conv_width], last tap first.
      ``conv/bias``: [D]; ``conv1d.conv.bias``.

    Its state is h, c, n and m stacked.

    Source: Beck et al. 2024 (xLSTM), Section 2.2; initialised as released: W normal with variance 2 / (5 D), R zero.
    Numerics: the norm adds 1e-5 to the variance. Where n = 0, at the first step, m_t is i as released, and f' is 0.
    Differs: the released ``forward`` feeds the weights called ``fgate`` to the input gate and ``igate`` to the forget gate;
    ours are named by what they do. It divides by n, ours by max(n, 1): after the first step n >= 1. Its power law becomes
    steeper with depth, ours with bias_init="powerlaw_by_block" alone; by default every block starts as the first.

    Example:
    >>> layer, x = SLSTM(width=8, heads=2), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), {'c': (1, 2, 4), 'conv': (1, 3, 8), 'h': (1, 2, 4), 'm': (1, 2, 4), 'n': (1, 2, 4)})
    """

    heads: int = 4
    conv_width: int = 4
    forget_gate: str = "sigmoid"
    bias_init: str = "powerlaw"

    SOURCE = "Beck et al. 2024, Section 2.2"
    METHODS = {"sequential": Serves()}
    BLOCK = {"norm": "layernorm", "mixer": "geglu"}
    PARAM_GROUPS = {r"kernel$": MATRICES, r"(bias|scale)$": NO_DECAY}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_divides("heads", fields["heads"], fields["width"])
        check_heads_with_norm(fields["heads"], fields["width"])
        check_at_least(0, fields, "conv_width")
        check_choice("forget_gate", fields["forget_gate"], FORGET_GATES)
        check_choice("bias_init", fields["bias_init"], BIAS_INITS)

    @property
    def indexed(self) -> bool:
        return self.bias_init == "powerlaw_by_block"

    @property
    def _head_dim(self) -> int:
        return self.width // self.heads

    def setup(self) -> None:
        heads, size = self.heads, self._head_dim
        init = nn.initializers.normal((0.4 / self.width) ** 0.5)
        self.kernels = {gate: self.param(f"{gate}_kernel", init, (heads, size, size)) for gate in "ifzo"}
        self.recurrent_kernel = self.param("recurrent_kernel", nn.initializers.zeros, (heads, size, 4, size))
        share = self.index / max(self.depth - 1, 1) if self.bias_init == "powerlaw_by_block" else 0.0
        bias_init = _init_uniform if self.bias_init == "standard" else functools.partial(_init_powerlaw, 0.3 + 1.3 * share)
        self.bias = self.param("bias", bias_init, (heads, 4, size))
        self.conv = CausalConv(self.width, self.conv_width, activation=nn.silu, dtype=self.dtype)
        self.norm = nn.LayerNorm(
            epsilon=1e-5,
            use_bias=False,
            use_fast_variance=False,
            reduction_axes=-1,
            feature_axes=(-2, -1),
            dtype=jnp.float32,
        )

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        (h, _), state = self._run(x, state, reset)
        return self.norm(h).reshape(x.shape), state

    def init_state(self, batch: int) -> State:
        cell = {name: jnp.zeros((batch, self.heads, self._head_dim), jnp.float32) for name in CELL}
        return {**cell, "conv": empty_history(batch, self.width, self.conv_width)}

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns the forget gate f along the trajectory from the zero state, ``[B T D]`` float32.

        It is the eigenvalue of c and n before any division by exp(m), as the mLSTM's; with forget_gate="exp" it may exceed 1.
        """
        return jnp.exp(self._run(x, self.init_state(x.shape[0]), None)[0][1]).reshape(x.shape)

    def parameter_count(self) -> int:
        return 8 * self.width * self._head_dim + 5 * self.width + count_parameters(self.width, self.conv_width)

    def state_count(self) -> int:
        return len(CELL) * self.width + count_state(self.width, self.conv_width)

    def _run(self, x: jax.Array, state: State, reset: jax.Array | None) -> tuple:
        u, history = self.conv(x, state["conv"], reset)
        recurrent = self.recurrent_kernel.reshape(self.heads, self._head_dim, -1)
        inputs = (self._project(u, x), keep_mask(reset, reverse=False))
        step = functools.partial(_step, self.forget_gate)
        outputs, cell = run_recurrence(step, recurrent, {name: state[name] for name in CELL}, inputs)
        return outputs, {**cell, "conv": history}

    def _project(self, u: jax.Array, x: jax.Array) -> jax.Array:
        """What the gates get from the input, ``[B T H 4P]``; i and f in float32, for an exponential magnifies rounding."""
        gates = []
        for gate, source, dtype in (("i", u, jnp.float32), ("f", u, jnp.float32), ("z", x, self.dtype), ("o", x, self.dtype)):
            heads = source.reshape(*x.shape[:2], self.heads, -1).astype(dtype)
            gates.append(einsum("bthp,hpq->bthq", heads, self.kernels[gate].astype(dtype)).astype(jnp.float32))
        return jnp.concatenate(gates, axis=-1) + self.bias.reshape(1, 1, self.heads, -1)


def _step(forget_gate: str, recurrent: jax.Array, state: State, x: tuple[jax.Array, jax.Array | None]) -> tuple[State, tuple]:
    gates, keep = x
    if keep is not None:
        state = {name: value * keep[:, None, None] for name, value in state.items()}
    c, n, h, m = (state[name] for name in CELL)
    i, f, z, o = jnp.split(gates + einsum("bhp,hpq->bhq", h, recurrent), 4, axis=-1)
    log_forget = f if forget_gate == "exp" else nn.log_sigmoid(f)
    empty = n == 0
    m_next = jnp.where(empty, i, jnp.maximum(i, log_forget + m))
    forget = jnp.exp(jnp.where(empty, -jnp.inf, log_forget + m - m_next))
    write = jnp.exp(i - m_next)
    c = forget * c + write * jnp.tanh(z)
    n = forget * n + write
    h = nn.sigmoid(o) * c / jnp.maximum(n, 1.0)
    return {"c": c, "n": n, "h": h, "m": m_next}, (h, log_forget)


def _init_powerlaw(exponent: float, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    share = jnp.arange(shape[-1], dtype=jnp.float32) / (shape[-1] - 1)
    return jnp.zeros(shape).at[:, 1].set(5.0 - 12.0 * share**exponent)


def _init_uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    bound = (shape[0] * shape[2]) ** -0.5
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)
