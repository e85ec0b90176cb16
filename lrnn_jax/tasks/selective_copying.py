"""Selective copying: repeat the tokens between blanks, in order, at the end."""

import dataclasses

import jax
import jax.numpy as jnp

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch, Length
from lrnn_jax.tasks.fixed_length import FixedLengthTask, make_batch


@dataclasses.dataclass(frozen=True)
class SelectiveCopying(FixedLengthTask):
    """Which tokens came before, blanks left out? Asked at the last C positions, one token at each.

    ::

        V = 16, C = 3, L = 10   input    _ 5 _ _ 0 5 >  _ _ _      _ = V - 2 is a blank, > = V - 1 says "copy"
                                targets  . . . . . . .  5 0 5      "." is not asked

    Content is uniform over 0, ..., V - 3. Each of the L - 2 C - 1 blanks in it stands before a content token drawn uniformly,
    as in MAD's generator, so that the last content token always comes right before the copy token.

    Attributes:
      vocabulary: V, at least 4.
      copies: C, tokens to copy; 2 C + 1 must not exceed the length.

    Source: MAD (Poli et al. 2024), its released generator (V = 16, L = 256, C = 16).
    Differs: the blanks' places follow the run's seed, which MAD's generator does not.
    """

    vocabulary: int = 16
    copies: int = 16

    EVAL_LENGTHS = ((256, 256),)

    def __post_init__(self) -> None:
        if self.vocabulary < 4:
            raise UserError(f"vocabulary={self.vocabulary} must be at least 4: two tokens to copy, blank and copy token")
        if self.copies < 1:
            raise UserError(f"copies={self.copies} must be at least 1")

    @property
    def CHANCE(self) -> float:  # type: ignore[override]  # it depends on V
        return 1.0 / (self.vocabulary - 2)

    @property
    def MIN_LENGTH(self) -> int:  # type: ignore[override]  # it depends on C
        return 2 * self.copies + 1

    def token_names(self) -> list[str]:
        return [*map(str, range(self.vocabulary - 2)), "blank", "copy"]

    def check_length(self, field: str, length: Length) -> None:
        if length[1] < self.MIN_LENGTH <= self.MAX_LENGTH:
            raise UserError(
                f"{field}={list(length)} is too short for task.copies={self.copies}: 2 * copies + 1 = {self.MIN_LENGTH} "
                f"positions must fit; lengths run within {self.MIN_LENGTH}..{self.MAX_LENGTH}"
            )
        super().check_length(field, length)

    def batch(self, key: jax.Array, size: int, length: Length, split: str = "train") -> Batch:
        steps, count, blank = length[1], self.copies, self.vocabulary - 2
        content_key, blank_key = jax.random.split(key)
        content = jax.random.randint(content_key, (size, count), 0, blank)
        before = jax.random.randint(blank_key, (size, steps - self.MIN_LENGTH), 0, count)
        rank = jnp.arange(count)[None]
        places = rank + jnp.sum(before[:, :, None] <= rank[None], axis=1)
        inputs = jnp.full((size, steps), blank).at[jnp.arange(size)[:, None], places].set(content)
        inputs = inputs.at[:, steps - count - 1].set(blank + 1)
        targets = jnp.pad(content, ((0, 0), (steps - count, 0)))
        return make_batch(inputs, targets, jnp.arange(steps)[None] >= steps - count)

    def oracle(self, example: list[int]) -> list[int]:
        content = [token for token in example if token < self.vocabulary - 2]
        return [0] * (len(example) - len(content)) + content
