"""What mixes channels after a recurrence has mixed positions. A new mixer is one class here and one line in `names`."""

from typing import Any, ClassVar

import flax.linen as nn
import jax

from lrnn_jax.parts.dense import Dense


class Mixer(nn.Module):
    """Maps ``[B T D]`` to ``[B T D]``; this one, "none", stands nowhere and does nothing.

    Attributes:
      width: D.
      hidden: hidden features, where `NEEDS_HIDDEN`.
      dropout: probability of dropping an activation; used by mixers inside the layer's branch.
      dtype: compute dtype.
      kernel_init: initial values of the matrices.

    Class attributes:
      PLACE: "inside" the layer's residual branch, where it drops out by itself (S4, S5, LRU), or "after" it, as a second
        branch with a norm of its own (Transformer, DeltaNet, sLSTM); "nowhere" for none at all.
      NEEDS_HIDDEN: whether ``hidden`` must be at least 1.
    """

    width: int
    hidden: int
    dropout: float
    dtype: Any
    kernel_init: nn.initializers.Initializer

    PLACE: ClassVar[str] = "nowhere"
    NEEDS_HIDDEN: ClassVar[bool] = False

    def dense(self, features: int, name: str, *, use_bias: bool = True) -> Dense:
        """Returns a linear map to ``features`` of this mixer's dtype and initial values."""
        return Dense(features, use_bias=use_bias, dtype=self.dtype, kernel_init=self.kernel_init, name=name)

    def make_dropout(self, *, train: bool) -> nn.Dropout:
        """Returns a dropout whose mask is shared by all positions, as in S5."""
        return nn.Dropout(self.dropout, broadcast_dims=(1,), deterministic=not train)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps ``[B T D]`` to ``[B T D]``; ``train`` turns on dropout."""
        return x


class GLU(Mixer):
    """``dropout(W1 u * sigmoid(W2 u))`` with ``u = dropout(gelu(x))``. Source: Orvieto et al. 2023, App. D.1; S4, S5."""

    PLACE = "inside"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        drop = self.make_dropout(train=train)
        u = drop(nn.gelu(x))
        value = self.dense(self.width, "value")(u)
        gate = self.dense(self.width, "gate")(u)
        return drop(value * nn.sigmoid(gate))


class HalfGLU1(Mixer):
    """``dropout(u * sigmoid(W u))`` with ``u = dropout(gelu(x))``: the gated linear unit without its first linear map.

    Source: "half_glu1" in the code of S5; Orvieto et al. 2023, App. D.1, for PathX ("GLU without one additional linear
    transform; the same as used by S5").
    """

    PLACE = "inside"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        drop = self.make_dropout(train=train)
        u = drop(nn.gelu(x))
        return drop(u * nn.sigmoid(self.dense(self.width, "gate")(u)))


class HalfGLU2(Mixer):
    """``dropout(x * sigmoid(W u))`` with ``u = dropout(gelu(x))``: only the gate sees the gelu. Source: the code of S5."""

    PLACE = "inside"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        drop = self.make_dropout(train=train)
        u = drop(nn.gelu(x))
        return drop(x * nn.sigmoid(self.dense(self.width, "gate")(u)))


class MLP(Mixer):
    """``W2 gelu(W1 x)`` with biases; gelu is its tanh approximation."""

    PLACE = "after"
    NEEDS_HIDDEN = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.dense(self.width, "down")(nn.gelu(self.dense(self.hidden, "up")(x)))


class SwiGLU(Mixer):
    """``W2 (silu(W1 x) * W3 x)`` without biases. Source: Shazeer 2020."""

    PLACE = "after"
    NEEDS_HIDDEN = True

    def activate(self, x: jax.Array) -> jax.Array:
        """Returns the activation of the half that has one."""
        return nn.silu(x)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        hidden = self.activate(self.dense(self.hidden, "up", use_bias=False)(x))
        hidden = hidden * self.dense(self.hidden, "gate", use_bias=False)(x)
        return self.dense(self.width, "down", use_bias=False)(hidden)


class GeGLU(SwiGLU):
    """``W2 (gelu(W1 x) * W3 x)`` without biases. Source: Shazeer 2020; after the sLSTM, Beck et al. 2024: the exact gelu."""

    def activate(self, x: jax.Array) -> jax.Array:
        return nn.gelu(x, approximate=False)
