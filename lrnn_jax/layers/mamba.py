"""Mamba (S6), with eigenvalues in [0, 1] or [-1, 1]."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.parts.conv import CausalConv, count_parameters, count_state, empty_history
from lrnn_jax.parts.dense import Dense
from lrnn_jax.parts.initializers import init_dt_bias
from lrnn_jax.parts.layer import (
    EIGENVALUE_RANGES,
    INITIAL_VALUES,
    MATRICES,
    NO_DECAY,
    RecurrentLayer,
    State,
    check_at_least,
    check_choice,
)
from lrnn_jax.scans import scan_selective
from lrnn_jax.scans.selective import METHODS, transition_eigenvalues


class Mamba(RecurrentLayer):
    """``h_t = abar_t * h_{t-1} + dt_t u_t B_t^T``, ``y_t = W_o ((h_t C_t + D * u_t) * silu(z_t))``.

    ``(u, z) = W_in x``, ``u = silu(conv(u))``, ``(delta, B, C) = W_x u``, ``dt = softplus(W_dt delta + c_dt)``, ``abar =
    exp(dt A)`` or ``2 exp(dt A) - 1``, with ``A = -exp(A_log)`` and E = expand * D channels.

    Attributes:
      state_size: N, states per channel.
      expand: E / D.
      conv_width: taps of the convolution on u.
      dt_rank: rank of W_dt; 0 means ceil(D / 16).
      negative_eigenvalues: ``2 exp(dt A) - 1`` instead of ``exp(dt A)``; the input term is unchanged.
      initial_values: W_in, W_x and W_o start normal with variance 1/fan_in, "default", or uniform in +-1/sqrt(fan_in),
        "released".

    Parameters (name: symbol, shape; name in `mamba_ssm.modules.mamba_simple.Mamba`, whose kernels are [out in]; MambaMixer of
    transformers has the same names and shapes):
      ``in_proj/kernel``: W_in, [D 2E], u before z; in_proj.weight.
      ``conv/kernel``: [conv_width E], newest tap first; conv1d.weight, [E 1 conv_width] and newest tap last.
      ``conv/bias``: [E]; conv1d.bias.
      ``x_proj/kernel``: W_x (s_Delta, s_B and s_C side by side), [E dt_rank+2N]; x_proj.weight.
      ``dt_proj/kernel``: W_dt (in s_Delta), [dt_rank E]; dt_proj.weight.
      ``dt_proj/bias``: c_dt (the parameter Delta), [E]; dt_proj.bias.
      ``A_log``: [E N]; A_log.
      ``D``: [E]; D.
      ``out_proj/kernel``: W_o, [E D]; out_proj.weight.

    The state h is [E N], as there; that of the convolution, [E conv_width] there, holds the last conv_width - 1 inputs alone.

    Source: Gu and Dao 2023 (arXiv 2312.00752), Algorithm 2, Sections 3.4 and 3.6; the range [-1, 1]: Grazzi et al. 2025, Eq. 2.
    Differs: mamba_ssm has biases on in_proj and out_proj as an option. Below float32, dt is projected and D u added in float32
    here; the gate is in the compute dtype. Initialised as mamba_ssm (A_log = log(1..N), dt log-uniform in [1e-3, 1e-1], W_dt
    and convolution uniform in +-1/sqrt(fan_in)) but for W_in, W_x and W_o, which start 1.73 times as large by default and as
    there with initial_values="released"; its language models also divide W_o by sqrt(number of blocks).

    Example:
    >>> layer, x = Mamba(width=8, state_size=4), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), {'conv': (1, 3, 16), 'h': (1, 16, 4)})
    """

    state_size: int = 16
    expand: int = 2
    conv_width: int = 4
    dt_rank: int = 0
    negative_eigenvalues: bool = True
    initial_values: str = "default"

    SOURCE = "Gu and Dao 2023, Algorithm 2; Grazzi et al. 2025, Table 1, Eq. 2"
    METHODS = METHODS
    VARIANTS = EIGENVALUE_RANGES
    BLOCK = {"norm": "rmsnorm"}
    PARAMETER_FORMULA = "6 D^2 + 4 D rank + 110 D"
    PARAM_GROUPS = {r"kernel$": MATRICES, r"(bias|A_log|D)$": NO_DECAY}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_at_least(1, fields, "state_size", "expand", "conv_width")
        check_at_least(0, fields, "dt_rank")
        check_choice("initial_values", fields["initial_values"], INITIAL_VALUES)

    @property
    def _inner(self) -> int:
        return self.expand * self.width

    @property
    def _rank(self) -> int:
        return self.dt_rank or -(-self.width // 16)

    def setup(self) -> None:
        released = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        kernel_init = released if self.initial_values == "released" else nn.linear.default_kernel_init
        self.in_proj = Dense(2 * self._inner, use_bias=False, kernel_init=kernel_init, dtype=self.dtype)
        self.conv = CausalConv(self._inner, self.conv_width, activation=nn.silu, dtype=self.dtype)
        features = self._rank + 2 * self.state_size
        self.x_proj = Dense(features, use_bias=False, kernel_init=kernel_init, dtype=self.dtype)
        # float32 whatever the compute dtype: decays near 1 do not survive bfloat16
        self.dt_proj = Dense(
            self._inner,
            kernel_init=released,
            bias_init=init_dt_bias,
            dtype=jnp.float32,
            precision="highest",
        )
        self.A_log = self.param("A_log", _init_a_log, (self._inner, self.state_size))
        self.D = self.param("D", nn.initializers.ones, (self._inner,))
        self.out_proj = Dense(self.width, use_bias=False, kernel_init=kernel_init, dtype=self.dtype)

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        u, z, dt, b, c, history = self._project(x, state["conv"], reset)
        y, h = scan_selective(
            u,
            dt,
            -jnp.exp(self.A_log),
            b,
            c,
            negative_eigenvalues=self.negative_eigenvalues,
            h0=state["h"],
            reset=reset,
            method=scan,
        )
        y = y + self.D[None, None] * u.astype(jnp.float32)
        return self.out_proj(y.astype(self.dtype) * nn.silu(z)), {"h": h, "conv": history}

    def init_state(self, batch: int) -> State:
        return {
            "h": jnp.zeros((batch, self._inner, self.state_size), jnp.float32),
            "conv": empty_history(batch, self._inner, self.conv_width),
        }

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns the eigenvalues abar_t, ``[B T E N]`` float32."""
        _, _, dt, _, _, _ = self._project(x, self.init_state(x.shape[0])["conv"], None)
        return transition_eigenvalues(dt, -jnp.exp(self.A_log), negative_eigenvalues=self.negative_eigenvalues)

    def parameter_count(self) -> int:
        inner, rank, states = self._inner, self._rank, self.state_size
        projections = 3 * self.width * inner + inner * (rank + 2 * states) + rank * inner + inner
        return projections + count_parameters(inner, self.conv_width) + inner * states + inner

    def state_count(self) -> int:
        return self._inner * self.state_size + count_state(self._inner, self.conv_width)

    def _project(self, x: jax.Array, history: jax.Array, reset: jax.Array | None) -> tuple[jax.Array, ...]:
        u, z = jnp.split(self.in_proj(x), 2, axis=-1)
        u, history = self.conv(u, history, reset)
        delta, b, c = jnp.split(self.x_proj(u), [self._rank, self._rank + self.state_size], axis=-1)
        dt = nn.softplus(self.dt_proj(delta.astype(jnp.float32)))
        return u, z, dt, b, c, history


def _init_a_log(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.broadcast_to(jnp.log(jnp.arange(1, shape[1] + 1, dtype=jnp.float32))[None], shape)
