"""The higher-order LRU (H-LRU) of Dubinin et al. 2026."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.parts.budgets import count_channels
from lrnn_jax.parts.dense import Dense
from lrnn_jax.parts.gates import GATES, normalise_gates, repeat_gates
from lrnn_jax.parts.layer import MATRICES, NO_DECAY, RecurrentLayer, State, check_at_least, check_choice
from lrnn_jax.scans import scan_companion
from lrnn_jax.scans.companion import METHODS, make_companion

FORMS = ("companion", "observer")


class HLRU(RecurrentLayer):
    """``h_t = a_t^1 h_{t-1} + ... + a_t^M h_{t-M} + a_t^0 v_t`` per channel, ``y_t = W_o (h_t, ..., h_{t-M+1})``.

    ``v = W_v x``. A channel's M + 1 gates are normalised together: by default the softmax of its part of ``W_a x_t + b_a``.
    Their magnitudes add up to at most 1, so |h| never exceeds the largest of |v| and of the first state (Proposition 1).

    Attributes:
      channels: H.
      order: M, the last values that a channel keeps; 1 is a diagonal recurrence.
      form: "companion", the formula above, or "observer", the transposed transition of the released language models:
        ``s_t^i = a_t^i s_{t-1}^1 + s_{t-1}^{i+1}``, plus ``a_t^0 v_t`` for i = 1, and ``y_t = W_o s_t``. Proposition 1 does not
        hold for it.
      gates: "softmax", "sigmoid", "relu", "tanh", "linear", "silu" (see `lrnn_jax.parts.gates`), or "none", which keeps no
        bound.
      selective: gates depend on x_t; False: their logits are parameters, the same at every position.

    Parameters (name: symbol, shape):
      ``v/kernel``: W_v, [D H].
      ``a/kernel``: W_a, [D H(M+1)], a channel's a^1 to a^M and its input gate a^0 side by side.
      ``a/bias``: b_a, [H(M+1)].
      ``logits``: in their place if not selective, [H M+1].
      ``out/kernel``: W_o, [HM D], a channel's values side by side, the latest first.

    Source: Dubinin et al. 2026, the H-LRU; initial values, normalisations and the layer without selection from its released
    code: matrices normal with standard deviation 0.02, biases 0, ``logits`` uniform in [0, 1).
    Numerics: logits are products in the compute dtype; gates and recurrence are float32. Gates that would be 0/0 ("tanh",
    "linear" and "silu" of zeros) are 0.
    Differs: without selection the released layer has no W_o and returns h_t, so that H = D; ours has W_o.

    Example:
    >>> layer, x = HLRU(width=8, channels=3, order=4), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), (1, 3, 4))
    """

    channels: int = 32
    order: int = 4
    form: str = "companion"
    gates: str = "softmax"
    selective: bool = True

    SOURCE = "Dubinin et al. 2026, H-LRU"
    METHODS = METHODS
    DIAGONAL = False
    VARIANTS = {
        **{name: {"gates": name} for name in GATES},
        "fixed": {"selective": False},
        "observer": {"form": "observer"},
    }
    BLOCK = {"norm": "layernorm", "mixer": "swiglu"}
    PARAM_GROUPS = {r"kernel$": MATRICES, r"(bias|logits)$": NO_DECAY}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_at_least(1, fields, "channels", "order")
        check_choice("form", fields["form"], FORMS)
        check_choice("gates", fields["gates"], GATES)

    def setup(self) -> None:
        init = nn.initializers.normal(0.02)
        self.v = Dense(self.channels, use_bias=False, dtype=self.dtype, kernel_init=init)
        if self.selective:
            self.a = Dense(self.channels * (self.order + 1), dtype=self.dtype, kernel_init=init)
        else:
            self.logits = self.param("logits", nn.initializers.uniform(1.0), (self.channels, self.order + 1))
        self.out = Dense(self.width, use_bias=False, dtype=self.dtype, kernel_init=init)

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        a, a0 = self._gates(x)
        b = a0 * self.v(x).astype(jnp.float32)
        h, state = scan_companion(a, b, h0=state, reset=reset, method=scan, observer=self.form == "observer")
        return self.out(h.reshape(*x.shape[:2], -1).astype(self.dtype)), state

    def init_state(self, batch: int) -> State:
        return jnp.zeros((batch, self.channels, self.order), jnp.float32)

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns the companion matrices C(x_t), or their transposes in the observer form, ``[B T H M M]`` float32."""
        return make_companion(self._gates(x)[0], observer=self.form == "observer")

    def parameter_count(self) -> int:
        if self.selective:
            return count_channels(self.width, self.channels, self.order)
        return self.channels * (self.order + 1) * (self.width + 1)

    def state_count(self) -> int:
        return self.channels * self.order

    def _gates(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """a_t^1 to a_t^M, ``[B T H M]``, and a_t^0, ``[B T H]``, float32."""
        if self.selective:
            logits = self.a(x).astype(jnp.float32).reshape(*x.shape[:2], self.channels, self.order + 1)
            return normalise_gates(logits, self.gates)
        return repeat_gates(self.logits, self.gates, *x.shape[:2])
