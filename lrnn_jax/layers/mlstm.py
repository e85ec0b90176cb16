"""mLSTM, the matrix-memory cell of xLSTM inside its released layer."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from lrnn_jax.errors import UserError
from lrnn_jax.parts.conv import CausalConv, count_parameters, count_state, empty_history
from lrnn_jax.parts.dense import Dense
from lrnn_jax.parts.layer import MATRICES, NO_DECAY, RecurrentLayer, State, check_at_least, check_heads_with_norm
from lrnn_jax.scans import scan_gated_outer
from lrnn_jax.scans.outer import METHODS, choose_outer_method
from lrnn_jax.scans.recurrence import keep_mask, loop_over_time


class MLSTM(RecurrentLayer):
    """``C_t = f_t C_{t-1} + i_t k_t v_t^T``, ``n_t = f_t n_{t-1} + i_t k_t``, ``h_t = C_t^T q_t / max(|n_t^T q_t|, 1)``.

    ``(u, z) = W_up x``, ``c = silu(conv(u))``, ``q = W_q c``, ``k = W_k c / sqrt(K)``, ``v = W_v u`` with W of small diagonal
    blocks, ``i = exp(W_i [q, k, v] + b_i)``, ``f = sigmoid(W_f [q, k, v] + b_f)`` (here k before its division), ``y = W_down
    ((LayerNorm(h) + skip * c) * silu(z))``. E = expand * D channels in H heads of K = V = E / H.

    Attributes:
      heads: H; divides expand * D and leaves at least two features per head.
      expand: E / D.
      conv_width: taps of the convolution on u; 0 leaves it and its silu out, so that c = u.
      block_size: width of the diagonal blocks of W_q, W_k and W_v; divides expand * D.

    Parameters (name: symbol, shape; name in xlstm's `mLSTMLayer`, whose kernels are [out in]):
      ``up/kernel``: W_up, [D 2E]; proj_up.weight.
      ``conv/kernel``: [conv_width E], newest tap first; conv1d.conv.weight, [E 1 conv_width] and newest tap last.
      ``conv/bias``: [E]; conv1d.conv.bias.
      ``q_kernel``: W_q, [E/block_size block_size block_size], in before out; q_proj.weight, out before in.
      ``k_kernel``: W_k, likewise; k_proj.weight.
      ``v_kernel``: W_v, likewise; v_proj.weight.
      ``input_gate/kernel``: W_i, [3E H]; mlstm_cell.igate.weight.
      ``input_gate/bias``: b_i, [H]; mlstm_cell.igate.bias.
      ``forget_gate/kernel``: W_f, [3E H]; mlstm_cell.fgate.weight.
      ``forget_gate/bias``: b_f, [H]; mlstm_cell.fgate.bias.
      ``norm_scale``: [E]; 1 + mlstm_cell.outnorm.weight.
      ``skip``: [E]; learnable_skip.
      ``down/kernel``: W_down, [E D]; proj_down.weight.

    Source: Beck et al. 2024 (arXiv 2405.04517), Eqs. 15-17, 19-27, Figure 11 and the layer that was released with it.
    Differs: xlstm rounds E up to a multiple of 64 (unless round_proj_up_to_multiple_of says otherwise). Its proj_factor and
    qkv_proj_blocksize are expand and block_size. It has no conv_width=0. Of the paper's two forget gates it is the sigmoid; the
    output gate is silu(z) outside of the norm, as released. Weights start as released, W_down with a deviation of 2 / (depth
    sqrt(D)).
    Numerics: C and n are kept divided by exp(m_t), ``m_t = max(log f_t + m_{t-1}, log i_t)``, with m = 0 at the start, as
    xlstm's step; its parallel form has no such start, which moves h by 1e-6 of itself at most. 1e-6 is added to the divisor
    after that division. As h does not depend on m otherwise, m is held constant in gradients.

    Example:
    >>> layer, x = MLSTM(width=8, heads=2), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), {'C': (1, 2, 8, 8), 'conv': (1, 3, 16), 'm': (1, 2), 'n': (1, 2, 8)})
    """

    heads: int = 4
    expand: int = 2
    conv_width: int = 4
    block_size: int = 4

    SOURCE = "Beck et al. 2024, Eqs. 15-17, 19-27"
    METHODS = METHODS
    BLOCK = {"norm": "layernorm"}
    PARAM_GROUPS = {r"kernel$": MATRICES, r"(bias|scale|skip)$": NO_DECAY}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_at_least(1, fields, "heads", "expand", "block_size")
        check_at_least(0, fields, "conv_width")
        inner = fields["expand"] * fields["width"]
        for name in ("heads", "block_size"):
            if inner % fields[name]:
                raise UserError(f"{name}={fields[name]} must divide expand * width = {inner}")
        check_heads_with_norm(fields["heads"], inner)

    @property
    def _inner(self) -> int:
        return self.expand * self.width

    @property
    def _head_size(self) -> int:
        return self._inner // self.heads

    def setup(self) -> None:
        small = nn.initializers.normal((2 / (5 * self.width)) ** 0.5)
        last = nn.initializers.normal(2 / self.depth / self.width**0.5)
        blocks = (self._inner // self.block_size, self.block_size, self.block_size)
        self.up = Dense(2 * self._inner, use_bias=False, kernel_init=small, dtype=self.dtype)
        self.conv = CausalConv(self._inner, self.conv_width, activation=nn.silu, dtype=self.dtype)
        self.q_kernel = self.param("q_kernel", small, blocks)
        self.k_kernel = self.param("k_kernel", small, blocks)
        self.v_kernel = self.param("v_kernel", small, blocks)
        self.input_gate = self._make_gate(nn.initializers.normal(0.1))
        self.forget_gate = self._make_gate(_init_forget_bias)
        self.norm_scale = self.param("norm_scale", nn.initializers.ones, (self._inner,))
        self.skip = self.param("skip", nn.initializers.ones, (self._inner,))
        self.down = Dense(self.width, use_bias=False, kernel_init=last, dtype=self.dtype)

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        scan = choose_outer_method(scan, x.shape[1], per_head=True)  # for m and for the memory alike
        u, z = jnp.split(self.up(x), 2, axis=-1)
        c, history = self.conv(u, state["conv"], reset)
        h, memory = self._remember(u, c, state, reset, scan)
        y = self._normalise(h) + self.skip[None, None] * c.astype(jnp.float32)
        return self.down((y * nn.silu(z.astype(jnp.float32))).astype(self.dtype)), {**memory, "conv": history}

    def init_state(self, batch: int) -> State:
        size = self._head_size
        return {
            "C": jnp.zeros((batch, self.heads, size, size), jnp.float32),
            "n": jnp.zeros((batch, self.heads, size), jnp.float32),
            "m": jnp.zeros((batch, self.heads), jnp.float32),
            "conv": empty_history(batch, self._inner, self.conv_width),
        }

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns the forget gate f_t of every head, ``[B T H]`` float32: the eigenvalue of C before any division by exp(m)."""
        u, _ = jnp.split(self.up(x), 2, axis=-1)
        c, _ = self.conv(u, self.init_state(x.shape[0])["conv"], None)
        return jnp.exp(self._project(u, c)[4])

    def parameter_count(self) -> int:
        inner = self._inner
        gates = 2 * self.heads * (3 * inner + 1)
        conv = count_parameters(inner, self.conv_width)
        return 3 * self.width * inner + conv + 3 * inner * self.block_size + gates + 2 * inner

    def state_count(self) -> int:
        return self._inner * (self._head_size + 1) + self.heads + count_state(self._inner, self.conv_width)

    def _make_gate(self, bias_init: Any) -> Dense:
        # float32 whatever the compute dtype: a gate near 1 does not survive bfloat16
        zeros = nn.initializers.zeros
        return Dense(self.heads, kernel_init=zeros, bias_init=bias_init, dtype=jnp.float32, precision="highest")

    def _project(self, u: jax.Array, c: jax.Array) -> tuple[jax.Array, ...]:
        """Returns q, k, v per head and the logarithms of both gates, float32."""
        parts = [self._multiply_blocks(*pair) for pair in ((c, self.q_kernel), (c, self.k_kernel), (u, self.v_kernel))]
        together = jnp.concatenate(parts, axis=-1).astype(jnp.float32)
        log_i, log_f = self.input_gate(together), nn.log_sigmoid(self.forget_gate(together))
        q, k, v = (z.reshape(*z.shape[:2], self.heads, -1) for z in jnp.split(together, 3, axis=-1))
        return q, k * self._head_size**-0.5, v, log_i, log_f

    def _multiply_blocks(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        blocks = x.reshape(*x.shape[:2], *kernel.shape[:2])
        return jnp.einsum("btni,nio->btno", blocks, kernel.astype(self.dtype)).reshape(x.shape)

    def _remember(
        self, u: jax.Array, c: jax.Array, state: State, reset: jax.Array | None, scan: str
    ) -> tuple[jax.Array, State]:
        """The cell. n is one more column of C, whose value is always 1."""
        q, k, v, log_i, log_f = self._project(u, c)
        start = lax.stop_gradient(state["m"])
        m, last = _stabilise(lax.stop_gradient(log_i), lax.stop_gradient(log_f), start, reset, scan)
        before = jnp.concatenate([start[:, None], m[:, :-1]], axis=1)
        if reset is not None:
            before = jnp.where(reset[..., None], 0.0, before)
        # m changes by whole float32 roundings of log f, so their difference comes first.
        decay = jnp.exp(log_f + (before - m))
        k = k * jnp.exp(log_i - m)[..., None]
        v = jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)
        carried = jnp.concatenate([state["C"], state["n"][..., None]], axis=-1)
        carried = carried * jnp.exp(state["m"] - start)[..., None, None]
        o, s = scan_gated_outer(q, k, v, decay, h0=carried, reset=reset, method=scan)
        divisor = jnp.maximum(jnp.abs(o[..., -1:]), jnp.exp(-m)[..., None]) + 1e-6
        return o[..., :-1] / divisor, {"C": s[..., :-1], "n": s[..., -1], "m": last}

    def _normalise(self, h: jax.Array) -> jax.Array:
        h = h - jnp.mean(h, axis=-1, keepdims=True)
        h = h * lax.rsqrt(jnp.mean(h * h, axis=-1, keepdims=True) + 1e-5)
        return h.reshape(*h.shape[:2], -1) * self.norm_scale[None, None]


def _stabilise(
    log_i: jax.Array, log_f: jax.Array, m0: jax.Array, reset: jax.Array | None, scan: str
) -> tuple[jax.Array, jax.Array]:
    """Returns ``m_t = max(log f_t + m_{t-1}, log i_t)``, with m = 0 before a reset, at every position and at the last."""
    keep = keep_mask(reset, reverse=False)
    if scan == "sequential":
        return loop_over_time(_step, m0, (log_i, log_f, keep))
    if keep is not None:
        # After a reset m_{t-1} is 0, so m_t does not depend on it: a candidate for the maximum and no way back.
        new = keep[..., None] == 0.0
        log_i = jnp.where(new, jnp.maximum(log_i, log_f), log_i)
        log_f = jnp.where(new, -jnp.inf, log_f)
    log_i = log_i.at[:, 0].max(log_f[:, 0] + m0)
    m = lax.associative_scan(_compose, (log_f, log_i), axis=1)[1]
    return m, m[:, -1]


def _step(_: tuple, m: jax.Array, x: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
    log_i, log_f, keep = x
    if keep is not None:
        m = m * keep[:, None]
    m = jnp.maximum(log_f + m, log_i)
    return m, m


def _compose(x: tuple[jax.Array, jax.Array], y: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    return x[0] + y[0], jnp.maximum(y[0] + x[1], y[1])


def _init_forget_bias(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    return jnp.linspace(3.0, 6.0, shape[0], dtype=dtype)
