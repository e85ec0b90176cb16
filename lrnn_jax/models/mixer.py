"""What mixes channels after a recurrence has mixed positions."""

from typing import Any

import flax.linen as nn
import jax

# "glu" follows the layer inside the same residual branch (S4, S5, LRU);
# "mlp" and "swiglu" are a second residual branch with a norm of their own (Transformer, DeltaNet).
MIXERS = ("none", "glu", "mlp", "swiglu")


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
        value = nn.Dense(self.width, dtype=self.dtype, name="value")(u)
        gate = nn.Dense(self.width, dtype=self.dtype, name="gate")(u)
        return drop(value * nn.sigmoid(gate))


class MLP(nn.Module):
    """``W2 gelu(W1 x)`` or, gated, ``W2 (silu(W1 x) * W3 x)`` (SwiGLU)."""

    width: int
    hidden: int
    gated: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[B T D]`` to ``[B T D]``."""
        hidden = nn.Dense(self.hidden, use_bias=not self.gated, dtype=self.dtype, name="up")(x)
        if self.gated:
            hidden = nn.silu(hidden) * nn.Dense(self.hidden, use_bias=False, dtype=self.dtype, name="gate")(x)
        else:
            hidden = nn.gelu(hidden)
        return nn.Dense(self.width, use_bias=not self.gated, dtype=self.dtype, name="down")(hidden)
