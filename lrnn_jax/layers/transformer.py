"""Softmax attention, the comparison system that is no recurrence, made one by a window."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lrnn_jax.errors import UserError
from lrnn_jax.parts.dense import Dense
from lrnn_jax.parts.layer import MATRICES, RecurrentLayer, State, check_at_least, check_divides
from lrnn_jax.scans.attention import METHODS, empty_cache, scan_attention


class Transformer(RecurrentLayer):
    """``y_t = W_o [softmax_s((R_t q_t)^T (R_s k_s) / sqrt(K)) v_s]`` per head, over t - window < s <= t.

    ``q = W_q x``, ``k = W_k x``, ``v = W_v x``, K = D / heads; R_t rotates by the position. The state is the cache of the
    last ``window - 1`` keys and values, so its size does not depend on T. The MLP is the backbone's mixer.

    Attributes:
      heads: H; divides the width into heads of even size.
      window: positions that can be attended to, the own included.

    Parameters (name: symbol, shape; name in ``fla.layers.attn.Attention``, [out in] there, without biases; LlamaAttention of
    transformers has the same names):
      ``q/kernel``: W_q, [D D]; ``q_proj``.
      ``k/kernel``: W_k, [D D]; ``k_proj``.
      ``v/kernel``: W_v, [D D]; ``v_proj``.
      ``out/kernel``: W_o, [D D]; ``o_proj``.

    Source: Vaswani et al. 2017, Section 3.2; Su et al. 2021 (RoPE), with base 10000 and the feature pairs (j, j +
    K/2), as in fla. The comparison system of Grazzi et al. 2025, whose own configuration we have not found.
    Differs: fla has no window unless asked for one, and rounds each angle to float32. It makes positions start again where a
    document starts; here only differences of positions are used. Its matrices start uniform in +-1/sqrt(fan_in), ours normal
    with standard deviation 1/sqrt(fan_in).

    Example:
    >>> layer, x = Transformer(width=8, heads=2, window=4), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), {'k': (1, 3, 2, 4), 'v': (1, 3, 2, 4), 'valid': (1, 3)})
    """

    heads: int = 4
    window: int = 1024

    SOURCE = "Vaswani et al. 2017, Eq. 1; Su et al. 2021, Section 3.2"
    METHODS = METHODS
    BLOCK = {"norm": "rmsnorm", "mixer": "swiglu"}
    START_STATE = False  # an empty cache would be one more window of keys to look at
    PARAM_GROUPS = {r"kernel$": MATRICES}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_divides("heads", fields["heads"], fields["width"])
        if fields["width"] // fields["heads"] % 2:
            raise UserError(
                f"heads={fields['heads']} must leave an even number of features per head, "
                f"for positions rotate pairs: width={fields['width']} leaves {fields['width'] // fields['heads']}"
            )
        check_at_least(1, fields, "window")

    def setup(self) -> None:
        self.q = Dense(self.width, use_bias=False, dtype=self.dtype)
        self.k = Dense(self.width, use_bias=False, dtype=self.dtype)
        self.v = Dense(self.width, use_bias=False, dtype=self.dtype)
        self.out = Dense(self.width, use_bias=False, dtype=self.dtype)

    def recur(self, x: jax.Array, state: State | None, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        q, k, v = (project(x).reshape(*x.shape[:2], self.heads, -1) for project in (self.q, self.k, self.v))
        o, state = scan_attention(q, k, v, window=self.window, h0=state, reset=reset, method=scan)
        return self.out(o.reshape(x.shape).astype(self.dtype)), state

    def init_state(self, batch: int) -> State:
        return empty_cache(batch, self.window, self.heads, self.width // self.heads)

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns zeros, ``[B T 1]``: the cache is a shift register, and a shift's eigenvalues are all 0."""
        return jnp.zeros((*x.shape[:2], 1), jnp.float32)

    def parameter_count(self) -> int:
        return 4 * self.width**2

    def state_count(self) -> int:
        return (self.window - 1) * (2 * self.width + 1)
