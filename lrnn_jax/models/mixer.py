"""What mixes channels after a recurrence has mixed positions."""

from typing import Any

import flax.linen as nn
import jax

from lrnn_jax.parts.dense import Dense

# "glu" follows the layer inside the same residual branch (S4, S5, LRU);
# "mlp" and the gated "swiglu" and "geglu" are a second residual branch with a norm of their own (Transformer; DeltaNet; sLSTM).
SECOND_BRANCH = ("mlp", "swiglu", "geglu")
MIXERS = ("none", "glu", *SECOND_BRANCH)


class GatedLinearUnit(nn.Module):
    """``dropout(W1 u * sigmoid(W2 u))`` with ``u = dropout(gelu(x))``. Source: Orvieto et al. 2023, App. D.1; S4, S5."""

    width: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps ``[B T D]`` to ``[B T D]``."""
        drop = nn.Dropout(self.dropout, broadcast_dims=(1,), deterministic=not train)
        u = drop(nn.gelu(x))
        value = Dense(self.width, dtype=self.dtype, name="value")(u)
        gate = Dense(self.width, dtype=self.dtype, name="gate")(u)
        return drop(value * nn.sigmoid(gate))


class MLP(nn.Module):
    """``W2 gelu(W1 x)`` or, gated and without biases, ``W2 (act(W1 x) * W3 x)``: SwiGLU with silu, GeGLU with gelu.

    Attributes:
      width: D.
      hidden: features of W1 x.
      kind: one of `SECOND_BRANCH`.
      dtype: compute dtype.

    Source: Shazeer 2020; GeGLU after the sLSTM: Beck et al. 2024, whose gelu is the exact one.
    """

    width: int
    hidden: int
    kind: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[B T D]`` to ``[B T D]``."""
        gated = self.kind != "mlp"
        hidden = Dense(self.hidden, use_bias=not gated, dtype=self.dtype, name="up")(x)
        hidden = nn.silu(hidden) if self.kind == "swiglu" else nn.gelu(hidden, approximate=self.kind == "mlp")
        if gated:
            hidden = hidden * Dense(self.hidden, use_bias=False, dtype=self.dtype, name="gate")(x)
        return Dense(self.width, use_bias=not gated, dtype=self.dtype, name="down")(hidden)
