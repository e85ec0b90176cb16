"""Parity of a string of bits: modular counting with m = 2, exactly as the state-tracking papers sample it."""

import dataclasses

import jax
import jax.numpy as jnp

from lrnn_jax.tasks.base import Batch, Length, SyntheticTask

# What `make_counting_batch` makes tokens of.
COUNTING_NAMES = ["pad", "0", "1"]


@dataclasses.dataclass(frozen=True)
class Parity(SyntheticTask):
    """Is the number of ones odd? The answer is asked at the last bit.

    ::

        input   0 1 1 0 1 .      tokens 1 2 2 1 2 0     "." is the answer's place, which holds padding
        target          1        class 1: three ones, an odd number

    Bits are independent and fair, so the classes are balanced at every length. As in the paper, a length counts the
    answer's place: length 40 has 39 bits.

    Source: Grazzi et al. 2025, Section 5.1 and App. E.1 (train 3 to 40, test 40 to 256); Deletang et al. 2023.
    Differs: two output classes instead of a vocabulary of three.
    """

    EVAL_LENGTHS = ((40, 64), (65, 128), (129, 192), (193, 256), (257, 512))
    KEY_PER_BATCH = True
    CHANCE = 0.5
    MIN_LENGTH = 2

    @property
    def vocab_size(self) -> int:
        return 3

    @property
    def outputs(self) -> int:
        return 2

    def token_names(self) -> list[str]:
        return COUNTING_NAMES

    def batch(self, key: jax.Array, size: int, length: Length, split: str = "train") -> Batch:
        shortest, longest = length
        bits_key, length_key = jax.random.split(key)
        lengths = jax.random.randint(length_key, (size,), shortest, longest + 1) - 1
        bits = jax.random.bernoulli(bits_key, 0.5, (size, longest)).astype(jnp.int32)
        return make_counting_batch(bits, lengths, modulus=2)

    def oracle(self, example: list[int]) -> int:
        return sum(token == 2 for token in example) % 2


def make_counting_batch(bits: jax.Array, lengths: jax.Array, *, modulus: int) -> Batch:
    """Turns bits ``[B T]`` of which the first ``lengths`` count into tokens (0 padding, 1 zero, 2 one) and answers."""
    inside = jnp.arange(bits.shape[1])[None] < lengths[:, None]
    return Batch(
        inputs=jnp.where(inside, bits + 1, 0),
        targets=jnp.sum(jnp.where(inside, bits, 0), axis=1) % modulus,
        weights=jnp.ones(lengths.shape, jnp.float32),
        lengths=lengths,
    )
