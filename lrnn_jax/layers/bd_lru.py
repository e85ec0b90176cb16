"""The block-diagonal LRU (BD-LRU) of Dubinin et al. 2026."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.parts.budgets import count_blocks
from lrnn_jax.parts.dense import Dense
from lrnn_jax.parts.gates import GATES, normalise_gates, repeat_gates
from lrnn_jax.parts.layer import MATRICES, NO_DECAY, RecurrentLayer, State, check_at_least, check_choice
from lrnn_jax.scans import scan_blocks
from lrnn_jax.scans.blocks import METHODS


class BDLRU(RecurrentLayer):
    """``h_t = A_t h_{t-1} + a_t^0 * v_t`` in each of H blocks of M features, ``y_t = W_o h_t``, with ``v = W_v x``.

    Each row of ``[A_t | a_t^0]``, M + 1 gates, is normalised together: by default the softmax of its part of ``W_a x_t + b_a``.
    Their magnitudes add up to at most 1, so no entry of h exceeds the largest of v and of the first state (Proposition 1).

    Attributes:
      blocks: H.
      block_size: M; 1 is a diagonal recurrence.
      gates: "softmax", "sigmoid", "relu", "tanh", "linear", "silu" (see `lrnn_jax.parts.gates`), or "none", which keeps no
        bound.
      selective: gates depend on x_t; False: their logits are parameters, the same at every position.

    Parameters (name: symbol, shape):
      ``v/kernel``: W_v, [D HM].
      ``a/kernel``: W_a, [D HM(M+1)], rows of A_t one after the other, each with its input gate last.
      ``a/bias``: b_a, [HM(M+1)].
      ``logits``: in their place if not selective, [H M M+1].
      ``out/kernel``: W_o, [HM D].

    Source: Dubinin et al. 2026, the BD-LRU; initial values, normalisations and the layer without selection from its released
    code: matrices normal with standard deviation 0.02, biases 0, ``logits`` uniform in [0, 1).
    Numerics: logits are products in the compute dtype; gates and recurrence are float32. Gates that would be 0/0 ("tanh",
    "linear" and "silu" of zeros) are 0.

    Example:
    >>> layer, x = BDLRU(width=8, blocks=2, block_size=3), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), (1, 2, 3))
    """

    blocks: int = 32
    block_size: int = 4
    gates: str = "softmax"
    selective: bool = True

    SOURCE = "Dubinin et al. 2026, BD-LRU"
    METHODS = METHODS
    DIAGONAL = False
    VARIANTS = {**{name: {"gates": name} for name in GATES}, "fixed": {"selective": False}}
    BLOCK = {"norm": "layernorm", "mixer": "swiglu"}
    PARAM_GROUPS = {r"kernel$": MATRICES, r"(bias|logits)$": NO_DECAY}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_at_least(1, fields, "blocks", "block_size")
        check_choice("gates", fields["gates"], GATES)

    def setup(self) -> None:
        features, init = self.blocks * self.block_size, nn.initializers.normal(0.02)
        self.v = Dense(features, use_bias=False, dtype=self.dtype, kernel_init=init)
        if self.selective:
            self.a = Dense(features * (self.block_size + 1), dtype=self.dtype, kernel_init=init)
        else:
            self.logits = self.param("logits", nn.initializers.uniform(1.0), self._gate_shape)
        self.out = Dense(self.width, use_bias=False, dtype=self.dtype, kernel_init=init)

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        a, a0 = self._gates(x)
        v = self.v(x).astype(jnp.float32).reshape(a0.shape)
        h, state = scan_blocks(a, a0 * v, h0=state, reset=reset, method=scan)
        return self.out(h.reshape(*x.shape[:2], -1).astype(self.dtype)), state

    def init_state(self, batch: int) -> State:
        return jnp.zeros((batch, self.blocks, self.block_size), jnp.float32)

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns A(x_t), ``[B T H M M]`` float32."""
        return self._gates(x)[0]

    def parameter_count(self) -> int:
        if self.selective:
            return count_blocks(self.width, self.blocks, self.block_size)
        return self.blocks * self.block_size * (2 * self.width + self.block_size + 1)

    def state_count(self) -> int:
        return self.blocks * self.block_size

    @property
    def _gate_shape(self) -> tuple[int, ...]:
        return self.blocks, self.block_size, self.block_size + 1

    def _gates(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """A_t, ``[B T H M M]``, and a_t^0, ``[B T H M]``, float32."""
        if self.selective:
            logits = self.a(x).astype(jnp.float32).reshape(*x.shape[:2], *self._gate_shape)
            return normalise_gates(logits, self.gates)
        return repeat_gates(self.logits, self.gates, *x.shape[:2])
