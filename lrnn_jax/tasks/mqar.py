"""Multi-query associative recall (MQAR): pairs first, then their keys among random tokens."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch, Length
from lrnn_jax.tasks.fixed_length import FixedLengthTask, draw_distinct, make_batch


@dataclasses.dataclass(frozen=True)
class MQAR(FixedLengthTask):
    """Which value came with this key? D pairs begin the sequence; each key comes back once and is asked there.

    ::

        V = 12, D = 2, T = 12   input    2 8 4 7  4 9  0 3  2 2  11 5      keys 1 to 5, values 6 to 11
                                targets  . . . .  7 .  . .  8 .  .  .      at each key's second place: its value

    The D keys of a sequence differ, and so do its values. Second places are 2 D + 2 g with different gaps g from 0 to S - 1,
    S = (T - 2 D) / 2, drawn one after the other with probabilities proportional to ``(g + 1)^(a - 1)``. All other positions
    after the pairs hold uniform tokens of 0, ..., V - 1, which may be keys and are not asked, or 0, which is never one.

    Attributes:
      vocabulary: V; keys are 1, ..., V // 2 - 1, values V // 2, ..., V - 1.
      pairs: D; 4 D must not exceed the length.
      power: a, above 0; 1 makes all places equally likely.
      random_fill: other positions hold random tokens, as the released generator has it by default, and not 0, as the released
        configs of the paper's Figure 2.

    Source: Zoology (Arora et al. 2023), its released generator (V = 8192, a = 0.01; T = 64, D = 4 to T = 512, D = 64).
    Differs: V may be below T, which the released generator refuses.
    Numerics: CHANCE is 1 / (number of values).
    """

    vocabulary: int = 8192
    pairs: int = 4
    power: float = 0.01
    random_fill: bool = True

    EVAL_LENGTHS = ((64, 64),)
    LENGTH_STEP = 2

    def __post_init__(self) -> None:
        if self.pairs < 1:
            raise UserError(f"pairs={self.pairs} must be at least 1")
        least = 2 * max(self.pairs, 1) + 2
        if self.vocabulary < least:
            raise UserError(
                f"vocabulary={self.vocabulary} must be at least {least} for pairs={self.pairs}: different keys, "
                "1 to vocabulary // 2 - 1, and different values above"
            )
        if not 0.0 < self.power < float("inf"):
            raise UserError(f"power={self.power} must be a finite number above 0")

    @property
    def CHANCE(self) -> float:  # type: ignore[override]  # it depends on V
        return 1.0 / (self.vocabulary - self.vocabulary // 2)

    @property
    def MIN_LENGTH(self) -> int:  # type: ignore[override]  # it depends on D
        return 4 * self.pairs

    def check_length(self, field: str, length: Length) -> None:
        if length[1] < self.MIN_LENGTH <= self.MAX_LENGTH:
            raise UserError(
                f"{field}={list(length)} is too short for task.pairs={self.pairs}: 4 * pairs = {self.MIN_LENGTH} positions "
                f"must fit, two of each pair and two of each question; lengths run within {self.MIN_LENGTH}..{self.MAX_LENGTH}"
            )
        super().check_length(field, length)

    def batch(self, key: jax.Array, size: int, length: Length, split: str = "train") -> Batch:
        steps, count, half = length[1], self.pairs, self.vocabulary // 2
        key_key, value_key, gap_key, fill_key = jax.random.split(key, 4)
        keys = 1 + draw_distinct(key_key, (size,), half - 1, count)
        values = half + draw_distinct(value_key, (size,), self.vocabulary - half, count)
        log_p = (self.power - 1.0) * np.log(np.arange(1, (steps - 2 * count) // 2 + 1))
        # the largest of log p + Gumbel noise, in order, are draws without replacement
        scores = jnp.asarray(log_p, jnp.float32)[None] + jax.random.gumbel(gap_key, (size, log_p.size))
        places = 2 * count + 2 * jax.lax.top_k(scores, count)[1]
        row = jnp.arange(size)[:, None]
        inputs = jax.random.randint(fill_key, (size, steps), 0, self.vocabulary if self.random_fill else 1)
        inputs = inputs.at[row, places].set(keys)
        inputs = inputs.at[:, : 2 * count].set(jnp.stack([keys, values], axis=-1).reshape(size, -1))
        targets = jnp.zeros((size, steps), jnp.int32).at[row, places].set(values)
        return make_batch(inputs, targets, targets > 0)

    def oracle(self, example: list[int]) -> list[int]:
        begin = 2 * self.pairs
        values = dict(zip(example[:begin:2], example[1:begin:2], strict=True))
        return [0] * begin + [values.get(token, 0) for token in example[begin:]]
