"""What turns a task's inputs into the stream of the blocks: tokens or features, and positions."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from lrnn_jax.parts.dense import Dense

# What the released code of DeltaNet's models and of H-LRU and BD-LRU draws every matrix and embedding from.
_RELEASED = nn.initializers.normal(0.02)


def matrix_init(initial_values: str) -> nn.initializers.Initializer:
    """Returns what the matrices outside the layers start from: lecun-normal ("default") or N(0, 0.02^2) ("released")."""
    return _RELEASED if initial_values == "released" else nn.linear.default_kernel_init


def make_encoder(vocab_size: int, width: int, *, initial_values: str, dtype: Any) -> Callable[[jax.Array], jax.Array]:
    """Returns the encoder of tokens ``[B T]`` or, with ``vocab_size`` 0, of features ``[B T F]`` of any F, to ``[B T D]``.

    Tokens are embedded in float32 whatever ``dtype``, so that the table's gradient is summed in it. A sum in bfloat16 stops
    growing after a few hundred of a batch's thousands of tokens, and on a GPU each addition waits for the one before.

    Args:
      vocab_size: tokens that there are; 0 for features.
      width: D.
      initial_values: "released" draws the embedding from N(0, 0.02^2); "default" from N(0, 1/D).
      dtype: compute dtype of the linear map of features.
    """
    if not vocab_size:
        return Dense(width, dtype=dtype, kernel_init=matrix_init(initial_values), name="encode")
    embedding = _RELEASED if initial_values == "released" else nn.linear.default_embed_init
    return nn.Embed(vocab_size, width, embedding_init=embedding, dtype=jnp.float32, name="embed")


class Positions(nn.Module):
    """A vector for each position, which is added to the encoded input: learned, or sines and cosines.

    ``p_{t, 2i} = sin(t / 10000^{2i/D})``, ``p_{t, 2i+1} = cos(t / 10000^{2i/D})``.

    Attributes:
      kind: "learned" or "sinusoidal".
      length: positions that there are.
      width: D.

    Parameters: ``embedding`` ([length D], from N(0, 0.02^2)) where learned.

    Source: Vaswani et al. 2017, Section 3.5.
    """

    kind: str
    length: int
    width: int

    def setup(self) -> None:
        if self.kind == "learned":
            self.embedding = self.param("embedding", _RELEASED, (self.length, self.width), jnp.float32)

    def table(self) -> Float[Array, "length D"]:
        """Returns the vectors of all positions."""
        return self.embedding if self.kind == "learned" else jnp.asarray(sinusoids(self.length, self.width))

    def __call__(
        self, x: Float[Array, "B T D"], start: Int[Array, " B"] | None, reset: Bool[Array, "B T"] | None
    ) -> tuple[Float[Array, "B T D"], Int[Array, " B"]]:
        """Adds the positions in float32; returns the position that follows each row too.

        Args:
          x: the encoded input.
          start: position of each row's first vector; 0 if None.
          reset: True where positions begin again at 0.
        """
        batch, steps = x.shape[:2]
        if start is None and reset is None:
            return x.astype(jnp.float32) + self.table()[None, :steps], jnp.full((batch,), steps, jnp.int32)
        index = jnp.broadcast_to(jnp.arange(steps, dtype=jnp.int32), (batch, steps))
        begun = jnp.zeros((batch,), jnp.int32) if start is None else start
        positions = index + begun[:, None]
        if reset is not None:
            last = jax.lax.cummax(jnp.where(reset, index, -1), axis=1)
            positions = jnp.where(last < 0, positions, index - last)
        # a position that there is not becomes NaN, which no result survives unnoticed
        vectors = jnp.take(self.table(), positions, axis=0, mode="fill", fill_value=jnp.nan)
        following = jnp.concatenate([begun[:, None], positions + 1], axis=1)[:, -1]
        return x.astype(jnp.float32) + vectors, following


def sinusoids(length: int, width: int) -> np.ndarray:
    """Returns the sines and cosines of `Positions`, ``[length D]`` float32."""
    channel = np.arange(width)
    angles = np.arange(length)[:, None] / 10_000.0 ** ((channel - channel % 2) / width)
    return np.where(channel % 2, np.cos(angles), np.sin(angles)).astype(np.float32)
