"""The short causal depthwise convolution in front of Mamba and DeltaNet."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lrnn_jax.parts.initializers import uniform


class CausalConv(nn.Module):
    """Depthwise causal convolution ``y_t = f(sum_j kernel_j * x_{t-j} (+ bias))``, j = 0..width-1; of width 0 the identity.

    Attributes:
      features: channels F.
      width: taps; the history holds the last ``width - 1`` inputs (see `empty_history`). 0 leaves out f and the bias too.
      use_bias: adds a bias per channel.
      activation: f, applied in ``dtype``; None for the identity.
      dtype: of the inputs that it reads and of the outputs; taps are multiplied and summed in float32.

    Numerics: the kernel starts uniform in +-1/sqrt(width), as a depthwise torch convolution does.
    """

    features: int
    width: int
    use_bias: bool = True
    activation: Callable[[jax.Array], jax.Array] | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T F"], history: Float[Array, "B J F"], reset: Bool[Array, "B T"] | None
    ) -> tuple[Float[Array, "B T F"], Float[Array, "B J F"]]:
        """Returns the convolved input and the history to carry on with, ``[B width-1 F]`` in float32."""
        if not self.width:
            return x, history
        bound = self.width**-0.5
        kernel = self.param("kernel", uniform(bound), (self.width, self.features), jnp.float32)
        taps = self.width - 1
        steps = x.shape[1]
        padded = jnp.concatenate([history.astype(self.dtype), x.astype(self.dtype)], axis=1).astype(jnp.float32)
        document = jnp.zeros(padded.shape[:2], jnp.int32)
        if reset is not None:
            document = jnp.pad(jnp.cumsum(reset.astype(jnp.int32), axis=1), ((0, 0), (taps, 0)))
        y = jnp.zeros(x.shape, jnp.float32)
        for j in range(self.width):
            window = slice(taps - j, taps - j + steps)
            tap = padded[:, window] * kernel[j][None, None]
            if reset is not None:
                same = document[:, window] == document[:, taps:]
                tap = jnp.where(same[..., None], tap, jnp.zeros_like(tap))
            y = y + tap
        if self.use_bias:
            y = y + self.param("bias", uniform(bound), (self.features,), jnp.float32)[None, None]
        history = padded[:, steps:]
        if reset is not None:
            same = document[:, steps:] == document[:, -1:]
            history = jnp.where(same[..., None], history, 0.0)
        y = y.astype(self.dtype)
        return y if self.activation is None else self.activation(y), history


def empty_history(batch: int, features: int, width: int) -> jax.Array:
    """Returns a `CausalConv`'s history before the first position: zeros ``[B width-1 F]``, ``[B 0 F]`` for width 0."""
    return jnp.zeros((batch, max(width - 1, 0), features), jnp.float32)


def count_parameters(features: int, width: int, *, use_bias: bool = True) -> int:
    """Returns the number of a `CausalConv`'s parameters."""
    return features * (width + use_bias) if width else 0


def count_state(features: int, width: int) -> int:
    """Returns the number of floats in one sequence's history of a `CausalConv`."""
    return features * max(width - 1, 0)
