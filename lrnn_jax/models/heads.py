"""What turns the blocks' stream into a task's answer. A new head is one class here and one line in `names`."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lrnn_jax.models.norms import Norm
from lrnn_jax.parts.dense import Dense


class Head(nn.Module):
    """Ends in a linear map to O outputs, whose parameters are ``kernel`` [D O] and ``bias`` [O].

    Attributes:
      outputs: O, classes or output vocabulary, or numbers to predict.
      width: D.
      use_bias: the linear map has a bias.
      norm: of heads that have one.
      train: BatchNorm uses the batch's statistics.
      dtype: compute dtype.
      kernel_init: initial values of the matrices.

    Class attributes:
      CAUSAL: an answer needs no position after its own, so that a model can go on from a state, token by token.
      ROWS: R, rows of one example; they pass the blocks side by side.
      NEEDS_MAX_LENGTH: the head has something for every position that there may be.
      OWN_NORM: no norm of the backbone's stands between the blocks and this head.
    """

    outputs: int
    width: int
    use_bias: bool
    norm: Norm
    train: bool
    dtype: Any
    kernel_init: nn.initializers.Initializer

    CAUSAL: ClassVar[bool] = False
    ROWS: ClassVar[int] = 1
    NEEDS_MAX_LENGTH: ClassVar[bool] = False
    OWN_NORM: ClassVar[bool] = False

    def setup(self) -> None:
        self.read = Dense(self.outputs, use_bias=self.use_bias, dtype=self.dtype, kernel_init=self.kernel_init)
        nn.share_scope(self, self.read)

    @classmethod
    def select(cls, x: Float[Array, "B T D"], lengths: Int[Array, " B"]) -> Float[Array, "B *T D"]:
        """Returns the vectors that the head reads. A norm over features may stand before or after this."""
        return x

    def __call__(
        self, x: Float[Array, "B *T D"], *, lengths: Int[Array, " B"], positions: Float[Array, "T D"] | None
    ) -> Float[Array, "*B O"]:
        """Returns the logits.

        Args:
          x: what `select` returned.
          lengths: positions of each row that count.
          positions: vectors of the positions, where `NEEDS_MAX_LENGTH`.
        """
        return self.read(x)


class TokenHead(Head):
    """``W x_t + b`` at every position: logits ``[B T O]``."""

    CAUSAL = True


class LastHead(Head):
    """``W x_l + b`` at each row's last position: logits ``[B O]``."""

    CAUSAL = True

    @classmethod
    def select(cls, x: jax.Array, lengths: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, (lengths - 1)[:, None, None], axis=1)[:, 0]


class MeanHead(Head):
    """``W (x_1 + ... + x_l) / l + b`` over each row's positions: logits ``[B O]``."""

    def __call__(self, x: jax.Array, *, lengths: jax.Array, positions: jax.Array | None) -> jax.Array:
        return self.read(take_mean(x, lengths))


class PairHead(Head):
    """``W2 gelu(W1 [u, v, u - v, u v] + b1) + b2`` of the means u, v over each row of a pair: logits ``[B O]``.

    Parameters besides the linear map's: ``hidden/kernel`` (W1, [4D D]), ``hidden/bias`` (b1, [D]).

    Source: the retrieval head of S4 and S5. gelu is its tanh approximation.
    """

    ROWS = 2

    def setup(self) -> None:
        super().setup()
        self.hidden = Dense(self.width, dtype=self.dtype, kernel_init=self.kernel_init)

    def __call__(self, x: jax.Array, *, lengths: jax.Array, positions: jax.Array | None) -> jax.Array:
        u, v = jnp.moveaxis(take_mean(x, lengths).reshape(-1, 2, self.width), 1, 0)
        return self.read(nn.gelu(self.hidden(jnp.concatenate([u, v, u - v, u * v], axis=-1))))


class AutoencoderHead(Head):
    """Decodes each row's last vector z at every position: logits ``[B T O]`` = ``W norm(f(f(z + p_t))) + b``.

    ``f(y) = gelu(W_i norm(y) + b_i)`` with the exact gelu, and p_t is the position's vector: the encoder's where it has
    positions, else sinusoidal.

    Parameters besides the linear map's: ``hidden_0/kernel`` ([D D]), ``hidden_0/bias`` ([D]), ``hidden_1/...`` likewise, and
    the norms ``norm_0``, ``norm_1`` and ``norm_2``.

    Source: the auto-encoder of MAD's compression task (Poli et al. 2024), whose encoder has no positions and whose decoder has
    sines and cosines; in Dubinin et al. 2026 both have one learned table (``positions="learned"``).
    Differs: sines and cosines alternate and have wavelengths up to 10,000^(1 - 2/D) 2 pi; MAD's sines stand before its cosines,
    with wavelengths up to 10,000 times 2 pi.
    """

    NEEDS_MAX_LENGTH = True
    OWN_NORM = True

    def setup(self) -> None:
        super().setup()
        self.hidden = [Dense(self.width, dtype=self.dtype, kernel_init=self.kernel_init) for _ in range(2)]

    @classmethod
    def select(cls, x: jax.Array, lengths: jax.Array) -> jax.Array:
        return LastHead.select(x, lengths)

    @nn.compact
    def __call__(self, x: jax.Array, *, lengths: jax.Array, positions: jax.Array | None) -> jax.Array:
        if positions is None:
            raise ValueError("positions: this head needs them")

        inside = jnp.arange(len(positions))[None] < lengths[:, None]

        def normalise(x: jax.Array, name: str) -> jax.Array:
            return self.norm.make(train=self.train, dtype=self.dtype, name=name, inside=inside)(x)

        y = x.astype(jnp.float32)[:, None] + positions[None]
        for i, hidden in enumerate(self.hidden):
            y = nn.gelu(hidden(normalise(y, f"norm_{i}")), approximate=False)
        return self.read(normalise(y, "norm_2"))


class RegressionHead(Head):
    """``W (x_1 + ... + x_l) / l + b``: numbers ``[B O]``, computed in float32 whatever ``dtype``.

    A regression on one answer per position or on the last position has the heads "token" and "last".
    """

    def setup(self) -> None:
        self.read = Dense(self.outputs, use_bias=self.use_bias, dtype=jnp.float32, kernel_init=self.kernel_init)
        nn.share_scope(self, self.read)

    def __call__(self, x: jax.Array, *, lengths: jax.Array, positions: jax.Array | None) -> jax.Array:
        return self.read(take_mean(x.astype(jnp.float32), lengths))


def take_mean(x: Float[Array, "B T D"], lengths: Int[Array, " B"]) -> Float[Array, "B D"]:
    """Returns the mean over each row's first ``lengths`` positions; summed in float32, returned in the dtype of ``x``."""
    counts = jnp.arange(x.shape[1])[None] < lengths[:, None]
    total = jnp.sum(jnp.where(counts[..., None], x.astype(jnp.float32), 0.0), axis=1)
    return (total / lengths[:, None].astype(jnp.float32)).astype(x.dtype)
