"""Memorization: a fixed map from keys to values, learned in the parameters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch, Length
from lrnn_jax.tasks.fixed_length import FixedLengthTask, make_batch


@dataclasses.dataclass(frozen=True)
class Memorization(FixedLengthTask):
    """Which value belongs to the key before? Asked at every second position; no example says.

    ::

        V = 256, L = 6  input    17 255 3 255 17 255      255 = V - 1 stands for the value
                        targets  .  140 . 201 .  140      140 is the value of 17, and 201 of 3, in all sequences

    Keys are uniform over 0, ..., K - 1 with K = (V - 1) // 2. Values are K different tokens of K, ..., V - 2. The map is the
    same for training, validation and test and for every seed of a run.

    Attributes:
      vocabulary: V, at least 5.
      map_seed: fixes the map.

    Source: MAD (Poli et al. 2024), its released generator (V = 256, L = 32, 256 training examples), whose map is this one for
    the same seed.
    """

    vocabulary: int = 256
    map_seed: int = 12345

    EVAL_LENGTHS = ((32, 32),)
    MIN_LENGTH = 2
    LENGTH_STEP = 2

    def __post_init__(self) -> None:
        if self.vocabulary < 5:
            raise UserError(
                f"vocabulary={self.vocabulary} must be at least 5: two keys, two values and a token that asks for one"
            )
        if self.map_seed < 0:
            raise UserError(f"map_seed={self.map_seed} must be at least 0")

    @property
    def CHANCE(self) -> float:  # type: ignore[override]  # it depends on V
        return 1.0 / ((self.vocabulary - 1) // 2)

    def token_names(self) -> list[str]:
        keys = (self.vocabulary - 1) // 2
        return [f"k{i}" for i in range(keys)] + [f"v{i}" for i in range(self.vocabulary - 1 - keys)] + ["value?"]

    def batch(self, key: jax.Array, size: int, length: Length, split: str = "train") -> Batch:
        values = jnp.asarray(make_map(self.vocabulary, self.map_seed))
        keys = jax.random.randint(key, (size, length[1] // 2), 0, values.size)
        inputs = jnp.stack([keys, jnp.full_like(keys, self.vocabulary - 1)], axis=-1).reshape(size, -1)
        targets = jnp.repeat(values[keys], 2, axis=1)
        return make_batch(inputs, targets, jnp.arange(inputs.shape[1])[None] % 2 == 1)

    def oracle(self, example: list[int]) -> list[int]:
        values = make_map(self.vocabulary, self.map_seed)
        return [int(values[example[i - 1]]) if i % 2 else 0 for i in range(len(example))]


@functools.cache
def make_map(vocabulary: int, seed: int) -> np.ndarray:
    """Returns the value of each key, ``[K]`` int32: keys and values are shuffled one after the other and matched."""
    count = (vocabulary - 1) // 2
    keys, values = np.arange(count), np.arange(count, vocabulary - 1)
    rng = np.random.default_rng(seed)
    rng.shuffle(keys)
    rng.shuffle(values)
    found = np.zeros(count, np.int32)
    found[keys] = values[:count]
    return found
