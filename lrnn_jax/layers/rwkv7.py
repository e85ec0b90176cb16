"""RWKV-7's time mixing: a decay per feature, a delta rule with a rate per feature, and a token shift."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.parts.dense import Dense, project
from lrnn_jax.parts.initializers import uniform
from lrnn_jax.parts.layer import (
    INITIAL_VALUES,
    MATRICES,
    NO_DECAY,
    RecurrentLayer,
    State,
    check_at_least,
    check_choice,
    check_divides,
    check_heads_with_norm,
)
from lrnn_jax.scans.dplr import METHODS, scan_dplr, transition_matrices

# Exponents of the token shift's initial weights, 1 - (j / D)^p for feature j.
SHIFTS = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}


class RWKV7(RecurrentLayer):
    """``S_t = (diag(w_t) - (a_t * kk_t) kk_t^T) S_{t-1} + k~_t v_t^T``, ``y_t = W_o (g_t * (GroupNorm(S_t^T r_t) + bonus))``.

    Per head, ``kk = (k * k_k) / ||.||``, ``k~ = k * (1 + (a - 1) * k_a)``, ``bonus = (sum r * k~ * r_k) v``, with ``r = W_r
    x^r``, ``k = W_k x^k``, ``v = W_v x^v``, ``w = exp(-e^(-1/2) sigmoid(d_w + tanh(x^w U_w) V_w))``, ``a = sigmoid(d_a + x^a
    U_a V_a)``, ``g = sigmoid(x^g U_g) V_g`` and the token shift ``x^j_t = x_t + (x_{t-1} - x_t) * mu_j``. K = V = D / heads.

    Attributes:
      heads: H; divides the width and leaves at least two features per head.
      decay_rank: rank of U_w; 0 means RWKV-LM's 32 round(2.5 sqrt(D) / 32), at least 32 but at most D / 2.
      rate_rank: rank of U_a; 0 means the same.
      gate_rank: rank of U_g; 0 means the same with 5 instead of 2.5.
      initial_values: "default" or "released" (see Differs).

    Parameters (name: symbol, shape; name in ``fla.layers.rwkv7.RWKV7Attention`` where it is another; matrices [out in] there):
      ``x_r``: mu_r, [D]; [1 1 D] there, as the next five.
      ``x_w``: mu_w, [D].
      ``x_k``: mu_k, [D].
      ``x_v``: mu_v, [D].
      ``x_a``: mu_a, [D].
      ``x_g``: mu_g, [D].
      ``k_k``: [D].
      ``k_a``: [D].
      ``r_k``: [H K].
      ``r_proj/kernel``: W_r, [D D].
      ``k_proj/kernel``: W_k, [D D].
      ``v_proj/kernel``: W_v, [D D].
      ``o_proj/kernel``: W_o, [D D].
      ``w_lora/down``: U_w, [D rank]; ``w_lora.lora.0.weight``.
      ``w_lora/up``: V_w, [rank D]; ``w_lora.lora.2.weight``.
      ``w_lora/bias``: d_w, [D]; ``w_lora.lora.2.bias``.
      ``a_lora/down``: U_a, [D rank]; ``a_lora.lora.0.weight``.
      ``a_lora/up``: V_a, [rank D]; ``a_lora.lora.2.weight``.
      ``a_lora/bias``: d_a, [D]; ``a_lora.lora.2.bias``.
      ``g_lora/down``: U_g, [D rank]; ``g_lora.lora.0.weight``.
      ``g_lora/up``: V_g, [rank D]; ``g_lora.lora.2.weight``.
      ``norm/scale``: [H K]; ``g_norm.weight``, [D].
      ``norm/bias``: [H K]; ``g_norm.bias``, [D].

    The state S is [K V], as in fla 0.6.0, which calls ``-kk`` and ``kk * a`` a and b.

    Source: Peng et al. 2025 (RWKV-7); constants, initial values and parameter groups from BlinkDL/RWKV-LM, RWKV-v7: d_w has
    twice the learning rate, only the four projections decay.
    Numerics: the norm adds 1e-5 K to the variance; ||.|| is at least 1e-12.
    Differs: no value residual, for the first layer's values are not there within one layer: this is the released layer 0. fla's
    default ranks grow with the size of a head, have no upper limit, and are its decay_low_rank_dim, a_low_rank_dim and
    gate_low_rank_dim. By default every block starts as the released block 0 of 1, and U and W_o, zero there, start uniform in
    +-1e-4, so that every parameter has a gradient from the first step. With initial_values="released" both are as released: the
    token shift's weights fade and the decay's curve steepens from block to block.

    Example:
    >>> layer, x = RWKV7(width=8, heads=2), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), {'S': (1, 2, 4, 4), 'x': (1, 8)})
    """

    heads: int = 4
    decay_rank: int = 0
    rate_rank: int = 0
    gate_rank: int = 0
    initial_values: str = "default"

    SOURCE = "Peng et al. 2025"
    PARAMETER_FORMULA = "4 D^2 + 2 D (rank_w + rank_a + rank_g) + 13 D"
    METHODS = METHODS
    BLOCK = {"norm": "layernorm", "mixer": "swiglu"}
    DIAGONAL = False
    PARAM_GROUPS = {
        r"kernel$": MATRICES,
        r"^w_lora/bias$": {"lr": 2.0, "wd": 0.0},
        r"^(x_.|k_k|k_a|r_k)$|(down|up|scale)$|^(a_lora|norm)/bias$": NO_DECAY,
    }

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_divides("heads", fields["heads"], fields["width"])
        check_heads_with_norm(fields["heads"], fields["width"])
        check_at_least(0, fields, "decay_rank", "rate_rank", "gate_rank")
        check_choice("initial_values", fields["initial_values"], INITIAL_VALUES)

    @property
    def indexed(self) -> bool:
        return self.initial_values == "released"

    @property
    def _ranks(self) -> dict[str, int]:
        def default(factor: float) -> int:
            released = max(32, 32 * round(factor * self.width**0.5 / 32))
            return min(released, self.width // 2)

        return {
            "w": self.decay_rank or default(2.5),
            "a": self.rate_rank or default(2.5),
            "g": self.gate_rank or default(5.0),
        }

    def setup(self) -> None:
        width, size, ranks = self.width, self.width // self.heads, self._ranks
        released = self.initial_values == "released"
        fading = 1.0 - self.index / self.depth if released else 1.0
        steepness = 1.0 + (self.index / max(self.depth - 1, 1)) ** 0.3 if released else 1.0
        small = nn.initializers.zeros if released else uniform(1e-4)
        share = jnp.arange(width, dtype=jnp.float32) / (width - 1)
        centred = 2.0 * (jnp.arange(width) % size).astype(jnp.float32) / (size - 1) - 1.0
        zigzag = centred * jnp.abs(centred)
        self.shifts = {
            name: self.param(f"x_{name}", _start_at(1.0 - (jnp.arange(width, dtype=jnp.float32) / width) ** (power * fading)))
            for name, power in SHIFTS.items()
        }
        self.k_k = self.param("k_k", _start_at(0.71 - 0.1 * (share - 0.5)))
        self.k_a = self.param("k_a", _start_at(jnp.full((width,), 1.02)))
        self.r_k = self.param("r_k", _start_at(jnp.full((self.heads, size), -0.04)))
        bound = width**-0.5
        self.r_proj = Dense(width, use_bias=False, kernel_init=uniform(0.5 * bound), dtype=self.dtype)
        self.k_proj = Dense(width, use_bias=False, kernel_init=uniform(0.05 * bound), dtype=self.dtype)
        self.v_proj = Dense(width, use_bias=False, kernel_init=uniform(0.5 * bound), dtype=self.dtype)
        self.o_proj = Dense(width, use_bias=False, kernel_init=small, dtype=self.dtype)
        # decays and rates in float32 whatever the compute dtype
        self.w_lora = LowRank(ranks["w"], jnp.tanh, small, _start_at(-5.5 + 6.0 * share**steepness + 2.5 * zigzag), jnp.float32)
        self.a_lora = LowRank(ranks["a"], None, small, _start_at(-0.19 + 0.3 * zigzag + 0.4 * (share - 0.5)), jnp.float32)
        self.g_lora = LowRank(ranks["g"], nn.sigmoid, small, None, self.dtype)
        self.norm = nn.LayerNorm(
            epsilon=1e-5 * size, use_fast_variance=False, reduction_axes=-1, feature_axes=(-2, -1), dtype=jnp.float32
        )

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        (r, k, v, log_w, a, b), g = self._project(x, state["x"], reset)
        o, s = scan_dplr(r, k, v, log_w, a, b, h0=state["S"], reset=reset, method=scan)
        bonus = jnp.sum(r * k * self.r_k[None, None], axis=-1, keepdims=True) * v
        y = (self.norm(o) + bonus).reshape(x.shape).astype(self.dtype) * g
        return self.o_proj(y), {"S": s, "x": x[:, -1].astype(jnp.float32)}

    def init_state(self, batch: int) -> State:
        size = self.width // self.heads
        return {
            "S": jnp.zeros((batch, self.heads, size, size), jnp.float32),
            "x": jnp.zeros((batch, self.width), jnp.float32),
        }

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns ``diag(w_t) - (a_t * kk_t) kk_t^T``, ``[B T H K K]`` float32."""
        (_, _, _, log_w, a, b), _ = self._project(x, self.init_state(x.shape[0])["x"], None)
        return transition_matrices(log_w, a, b)

    def parameter_count(self) -> int:
        return 4 * self.width**2 + 2 * self.width * sum(self._ranks.values()) + 13 * self.width

    def state_count(self) -> int:
        return self.width**2 // self.heads + self.width

    def _project(self, x: jax.Array, last: jax.Array, reset: jax.Array | None) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """What the scan takes, ``[B T H K]`` in float32, and the output gate."""
        x = x.astype(jnp.float32)
        shifted = jnp.concatenate([last[:, None], x[:, :-1]], axis=1)
        if reset is not None:
            shifted = jnp.where(reset[..., None], jnp.zeros_like(shifted), shifted)
        mixed = {name: x + (shifted - x) * mu[None, None] for name, mu in self.shifts.items()}
        r, k, v = (
            project(mixed[name]).astype(jnp.float32)
            for name, project in (("r", self.r_proj), ("k", self.k_proj), ("v", self.v_proj))
        )
        log_w = -math.exp(-0.5) * nn.sigmoid(self.w_lora(mixed["w"]))
        rate = nn.sigmoid(self.a_lora(mixed["a"]))
        kk = self._split(k * self.k_k[None, None])
        kk = kk * jax.lax.rsqrt(jnp.maximum(jnp.sum(kk * kk, axis=-1, keepdims=True), 1e-24))
        k = k * (1.0 + (rate - 1.0) * self.k_a[None, None])
        r, k, v, log_w, rate = (self._split(z) for z in (r, k, v, log_w, rate))
        return (r, k, v, log_w, -rate * kk, kk), self.g_lora(mixed["g"])

    def _split(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], self.heads, -1)


class LowRank(nn.Module):
    """``f(x U) V + d``, from D features to D.

    Attributes:
      rank: columns of U.
      activation: f; None for the identity.
      down_init: of U.
      bias_init: of d; None for no d.
      dtype: compute dtype.
    """

    rank: int
    activation: Callable[[jax.Array], jax.Array] | None
    down_init: nn.initializers.Initializer
    bias_init: nn.initializers.Initializer | None
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[B T D]`` to ``[B T D]``."""
        down = self.param("down", self.down_init, (x.shape[-1], self.rank), jnp.float32)
        up = self.param("up", nn.initializers.orthogonal(0.1), (self.rank, x.shape[-1]), jnp.float32)
        hidden = project(x.astype(self.dtype), down.astype(self.dtype), precision="highest")
        hidden = hidden if self.activation is None else self.activation(hidden)
        y = project(hidden, up.astype(self.dtype), precision="highest")
        if self.bias_init is None:
            return y
        return (y.astype(jnp.float32) + self.param("bias", self.bias_init)[None, None]).astype(self.dtype)


def _start_at(values: jax.Array) -> Callable[..., jax.Array]:
    return lambda key: values.astype(jnp.float32)
