"""Mamba-2 (SSD), with eigenvalues in [0, 1] or, ours, [-1, 1]."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.errors import UserError
from lrnn_jax.parts.conv import CausalConv, count_parameters, count_state, empty_history
from lrnn_jax.parts.dense import Dense
from lrnn_jax.parts.initializers import init_dt_bias
from lrnn_jax.parts.layer import EIGENVALUE_RANGES, MATRICES, NO_DECAY, RecurrentLayer, State, check_at_least
from lrnn_jax.scans import scan_gated_outer
from lrnn_jax.scans.outer import METHODS


class Mamba2(RecurrentLayer):
    """``h_t = a_t h_{t-1} + dt_t B_t x_t^T``, ``y_t = W_out RMSNorm((h_t^T C_t + D x_t) * silu(z_t))``, scalar a_t per head.

    ``(z, x, B, C, dt) = W_in u``, ``(x, B, C) = silu(conv(x, B, C))``, ``dt = softplus(dt + c_dt)``, ``a = exp(dt A)``, with
    ``A = -exp(A_log)`` and E = expand * D channels in H heads of V = E / H.

    Attributes:
      heads: H; divides expand * D.
      state_size: N, rows of a head's state.
      expand: E / D.
      conv_width: taps of the convolution on x, B and C.
      groups: divides heads; H / groups heads share B and C, and each group is normalised by itself.
      negative_eigenvalues: ``2 exp(dt A) - 1`` instead of ``exp(dt A)``, the input term unchanged; ours, not the paper's.

    Parameters (name: symbol, shape with P = E + 2 groups N; name in `mamba_ssm.modules.mamba2.Mamba2`, whose kernels are [out
    in]; Mamba2Mixer of transformers has the same names and shapes):
      ``in_proj/kernel``: W^(z), W^(x), W^(B), W^(C), W^(Delta) side by side, [D E+P+H]; in_proj.weight.
      ``conv/kernel``: [conv_width P], newest tap first; conv1d.weight, [P 1 conv_width] and newest tap last.
      ``conv/bias``: [P]; conv1d.bias.
      ``dt_bias``: c_dt, [H]; dt_bias.
      ``A_log``: [H]; A_log.
      ``D``: [H]; D.
      ``norm_scale``: [E]; norm.weight.
      ``out_proj/kernel``: W^(o), [E D]; out_proj.weight.

    Source: Dao and Gu 2024 (arXiv 2405.21060), Sections 2 and 7; the range [-1, 1] as Grazzi et al. 2025, Eq. 2, who left
    Mamba-2 as it was.
    Differs: mamba_ssm's state is [V N]. It names the size of a head (headdim = E / H, 64) instead of the number of heads, and
    has a parallel MLP branch (d_ssm), D per channel, the norm before the gate and limits on dt. Initialised as mamba_ssm: A
    uniform in [1, 16], dt log-uniform in [1e-3, 1e-1], other weights uniform in +-1/sqrt(fan in); its language models also
    divide out_proj by sqrt(number of blocks). dt leaves in_proj in the compute dtype, as there, and is float32 from then on.

    Example:
    >>> layer, x = Mamba2(width=8, heads=2, state_size=4), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), {'conv': (1, 3, 24), 'h': (1, 2, 4, 8)})
    """

    heads: int = 4
    state_size: int = 128
    expand: int = 2
    conv_width: int = 4
    groups: int = 1
    negative_eigenvalues: bool = False

    SOURCE = "Dao and Gu 2024, Sections 2 and 7"
    METHODS = METHODS
    VARIANTS = EIGENVALUE_RANGES
    BLOCK = {"norm": "rmsnorm"}
    PARAM_GROUPS = {r"kernel$": MATRICES, r"(bias|scale|A_log|D)$": NO_DECAY}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_at_least(1, fields, "heads", "state_size", "expand", "conv_width", "groups")
        inner = fields["expand"] * fields["width"]
        if inner % fields["heads"]:
            raise UserError(f"heads={fields['heads']} must divide expand * width = {inner}")
        if fields["heads"] % fields["groups"]:
            raise UserError(f"groups={fields['groups']} must divide heads={fields['heads']}")

    @property
    def _inner(self) -> int:
        return self.expand * self.width

    @property
    def _conv_features(self) -> int:
        return self._inner + 2 * self.groups * self.state_size

    def setup(self) -> None:
        kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        features = self._inner + self._conv_features + self.heads
        self.in_proj = Dense(features, use_bias=False, kernel_init=kernel_init, dtype=self.dtype)
        self.conv = CausalConv(self._conv_features, self.conv_width, activation=nn.silu, dtype=self.dtype)
        self.dt_bias = self.param("dt_bias", init_dt_bias, (self.heads,))
        self.A_log = self.param("A_log", _init_a_log, (self.heads,))
        self.D = self.param("D", nn.initializers.ones, (self.heads,))
        self.norm_scale = self.param("norm_scale", nn.initializers.ones, (self._inner,))
        self.out_proj = Dense(self.width, use_bias=False, kernel_init=kernel_init, dtype=self.dtype)

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        z, v, b, c, dt, history = self._project(x, state["conv"], reset)
        y, h = scan_gated_outer(c, b, dt[..., None] * v, self._decay(dt), h0=state["h"], reset=reset, method=scan)
        y = (y + self.D[None, None, :, None] * v).reshape(z.shape)
        y = self._normalise(y * nn.silu(z.astype(jnp.float32)))
        return self.out_proj(y.astype(self.dtype)), {"h": h, "conv": history}

    def init_state(self, batch: int) -> State:
        return {
            "h": jnp.zeros((batch, self.heads, self.state_size, self._inner // self.heads), jnp.float32),
            "conv": empty_history(batch, self._conv_features, self.conv_width),
        }

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns the eigenvalue a_t of every head, ``[B T H]`` float32; each stands for all N rows of its state."""
        return self._decay(self._project(x, self.init_state(x.shape[0])["conv"], None)[4])

    def parameter_count(self) -> int:
        projections = self.width * (2 * self._inner + self._conv_features + self.heads)
        return projections + count_parameters(self._conv_features, self.conv_width) + 3 * self.heads + self._inner

    def state_count(self) -> int:
        return self._inner * self.state_size + count_state(self._conv_features, self.conv_width)

    def _project(self, x: jax.Array, history: jax.Array, reset: jax.Array | None) -> tuple[jax.Array, ...]:
        z, xbc, dt = jnp.split(self.in_proj(x), [self._inner, self._inner + self._conv_features], axis=-1)
        xbc, history = self.conv(xbc, history, reset)
        v, b, c = jnp.split(xbc.astype(jnp.float32), [self._inner, self._inner + self.groups * self.state_size], axis=-1)
        v = v.reshape(*v.shape[:2], self.heads, -1)
        b, c = (y.reshape(*y.shape[:2], self.groups, -1) for y in (b, c))
        return z, v, b, c, nn.softplus(dt.astype(jnp.float32) + self.dt_bias[None, None]), history

    def _decay(self, dt: jax.Array) -> jax.Array:
        a = jnp.exp(-dt * jnp.exp(self.A_log)[None, None])
        return 2.0 * a - 1.0 if self.negative_eigenvalues else a

    def _normalise(self, y: jax.Array) -> jax.Array:
        grouped = y.reshape(*y.shape[:2], self.groups, -1)
        grouped = grouped * jax.lax.rsqrt(jnp.mean(grouped * grouped, axis=-1, keepdims=True) + 1e-5)
        return grouped.reshape(y.shape) * self.norm_scale[None, None]


def _init_a_log(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.log(jax.random.uniform(key, shape, jnp.float32, 1.0, 16.0))
