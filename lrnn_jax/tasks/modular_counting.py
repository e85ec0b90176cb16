"""Counting ones modulo m."""

import dataclasses

import jax
import jax.numpy as jnp

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch, Length, ModularTask
from lrnn_jax.tasks.parity import COUNTING_NAMES, make_counting_batch


@dataclasses.dataclass(frozen=True)
class ModularCounting(ModularTask):
    """How many ones, modulo m? The answer is asked at the last bit.

    ::

        m = 3   input   1 0 1 1 1 .      tokens 2 1 2 2 2 0     "." is the answer's place, which holds padding
                target          1        class 1: four ones

    Each row draws its class uniformly, then a number of ones of that class, then their places: fair bits would leave the
    classes of a large m unbalanced. Rows with fewer than m - 1 bits cannot reach every class and draw among those they
    can. A length counts the answer's place, as in `Parity`.

    Attributes:
      modulus: m, at least 2.

    Source: Grazzi et al. 2025, Theorem 2 (counting modulo m); the sampling is ours, the paper has no such experiment.
    """

    modulus: int = 3

    EVAL_LENGTHS = ((40, 64), (65, 128), (129, 192), (193, 256), (257, 512))
    KEY_PER_BATCH = True
    MIN_LENGTH = 2

    @property
    def vocab_size(self) -> int:
        return 3

    def token_names(self) -> list[str]:
        return COUNTING_NAMES

    def batch(self, key: jax.Array, size: int, length: Length, split: str = "train") -> Batch:
        shortest, longest = length
        length_key, class_key, count_key, place_key = jax.random.split(key, 4)
        lengths = jax.random.randint(length_key, (size,), shortest, longest + 1) - 1
        remainder = jax.random.randint(class_key, (size,), 0, jnp.minimum(self.modulus, lengths + 1))
        turns = jax.random.randint(count_key, (size,), 0, (lengths - remainder) // self.modulus + 1)
        ones = remainder + self.modulus * turns
        inside = jnp.arange(longest)[None] < lengths[:, None]
        places = jnp.where(inside, jax.random.uniform(place_key, (size, longest)), 2.0)
        rank = jnp.argsort(jnp.argsort(places, axis=1), axis=1)
        bits = (rank < ones[:, None]).astype(jnp.int32)
        return make_counting_batch(bits, lengths, modulus=self.modulus)

    def check_length(self, field: str, length: tuple[int, int]) -> None:
        super().check_length(field, length)
        if field == "eval.lengths" and length[0] < self.modulus:
            raise UserError(f"{field}={list(length)}: task.modulus={self.modulus} has all its answers from that length on only")

    def oracle(self, example: list[int]) -> int:
        return sum(token == 2 for token in example) % self.modulus
