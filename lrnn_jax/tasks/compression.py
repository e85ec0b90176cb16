"""Compression: write the whole input down from the one vector that is left of it."""

import dataclasses

import jax
import jax.numpy as jnp

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch, Length
from lrnn_jax.tasks.fixed_length import FixedLengthTask, make_batch


@dataclasses.dataclass(frozen=True)
class Compression(FixedLengthTask):
    """Which token was at each position? Every position is asked, and answered from the last position's vector.

    ::

        V = 16, L = 5   input    3 0 14 3 15      15 = V - 1 ends the sequence
                        targets  3 0 14 3 15

    The L - 1 tokens before the last are uniform over 0, ..., V - 2 and independent. The head "autoencoder" makes it a question
    of memory; it needs ``model.max_length`` of at least L.

    Attributes:
      vocabulary: V, at least 3.

    Source: MAD (Poli et al. 2024), its released generator (V = 16, L = 32); Dubinin et al. 2026, whose released code has L = 64
    and 128, and learned positions.
    Differs: MAD has one training set of a fixed seed; here the set follows the run's seed (``train_examples``).
    Numerics: CHANCE = 1 / (V - 1) is that of the tokens drawn. The last position is soon always right, which adds about 1 / L
      to the accuracy and 1 / V to the macro average.
    """

    vocabulary: int = 16

    EVAL_LENGTHS = ((32, 32),)
    HEADS = ("autoencoder",)
    MIN_LENGTH = 2

    def __post_init__(self) -> None:
        if self.vocabulary < 3:
            raise UserError(
                f"vocabulary={self.vocabulary} must be at least 3: two tokens to remember and one that ends the sequence"
            )

    @property
    def CHANCE(self) -> float:  # type: ignore[override]  # it depends on V
        return 1.0 / (self.vocabulary - 1)

    def token_names(self) -> list[str]:
        return [*map(str, range(self.vocabulary - 1)), "compress"]

    def batch(self, key: jax.Array, size: int, length: Length, split: str = "train") -> Batch:
        end = self.vocabulary - 1
        tokens = jax.random.randint(key, (size, length[1] - 1), 0, end)
        inputs = jnp.pad(tokens, ((0, 0), (0, 1)), constant_values=end)
        return make_batch(inputs, inputs, True)

    def oracle(self, example: list[int]) -> list[int]:
        return list(example)
