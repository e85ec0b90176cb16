"""In-context recall: which value came with this key before?"""

import dataclasses

import jax
import jax.numpy as jnp

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch, Example, Length
from lrnn_jax.tasks.fixed_length import FixedLengthTask, make_batch


@dataclasses.dataclass(frozen=True)
class InContextRecall(FixedLengthTask):
    """Keys and values take turns. A key has one value throughout a sequence, which is asked wherever the key comes back.

    ::

        V = 16, L = 10  tokens           3 9  0 15  3 9  3 9  0 15     keys 0 to 7, values 8 to 15
                        inputs           3 9  0 15  3 9  3 9  0        all but the last token: L - 1 positions
                        targets, test    . .  . .   9 .  9 .  15       at a key that came before: its value
                        targets, train   9 0  15 3  9 3  9 0  15       the next token, everywhere

    Keys are uniform; each key's value is drawn uniformly for the sequence. The last pair's key is uniform among the different
    keys before it. A length L is the paper's and even: L / 2 pairs, of which the model sees L - 1 tokens.

    Attributes:
      vocabulary: V, at least 4: the first V // 2 are keys, the others values.

    Source: MAD (Poli et al. 2024), its released generator with several queries (V = 16, L = 128).
    Numerics: CHANCE is 1 / (number of values), for the test's targets. CEILING is for them too: of the training's targets, keys
    and first values cannot be foreseen, so the accuracy of training batches stays far below 1.
    """

    vocabulary: int = 16

    EVAL_LENGTHS = ((128, 128),)
    ANSWERS_AHEAD = True
    SPLITS_DIFFER = True
    MIN_LENGTH = 4
    LENGTH_STEP = 2

    def __post_init__(self) -> None:
        if self.vocabulary < 4:
            raise UserError(f"vocabulary={self.vocabulary} must be at least 4: two keys and two values")

    @property
    def CHANCE(self) -> float:  # type: ignore[override]  # it depends on V
        return 1.0 / (self.vocabulary - self.vocabulary // 2)

    def example_spec(self, length: int) -> Example:
        return super().example_spec(length - 1)

    def token_names(self) -> list[str]:
        return name_pairs(self.vocabulary)

    def batch(self, key: jax.Array, size: int, length: Length, split: str = "train") -> Batch:
        noise = jnp.zeros((size, length[1] // 2 - 1, 2), jnp.int32)
        return make_recall_batch(key, noise, jnp.zeros(noise.shape[:2], bool), self.vocabulary, split)

    def oracle(self, example: list[int]) -> list[int]:
        return recall(example, self.vocabulary // 2, self.vocabulary)


def name_pairs(vocabulary: int) -> list[str]:
    """Returns what to call the keys and values: ``k0``, ..., ``v0``, ..."""
    keys = vocabulary // 2
    return [f"k{i}" for i in range(keys)] + [f"v{i}" for i in range(vocabulary - keys)]


def make_recall_batch(key: jax.Array, noise: jax.Array, is_noise: jax.Array, vocabulary: int, split: str) -> Batch:
    """Makes sequences of pairs of key and value, and the last pair.

    Args:
      key: random key.
      noise: tokens ``[B N 2]`` of each pair before the last, where it is noise.
      is_noise: which of those pairs are noise ``[B N]``; not all of a row.
      vocabulary: keys and values.
      split: "train" asks for the next token everywhere, another for the values of keys that came before.
    """
    size, pairs = is_noise.shape
    keys = vocabulary // 2
    drawn_key, value_key, last_key = jax.random.split(key, 3)
    drawn = jax.random.randint(drawn_key, (size, pairs), 0, keys)
    values = jax.random.randint(value_key, (size, keys), keys, vocabulary)
    row, pair = jnp.arange(size)[:, None], jnp.arange(pairs + 1)[None]
    # the pair in which each key comes first; ``pairs`` where it comes in none
    first = jnp.full((size, keys), pairs).at[row, drawn].min(jnp.where(is_noise, pairs, pair[:, :-1]))
    last = jnp.argmax(jnp.where(first < pairs, jax.random.uniform(last_key, first.shape), -1.0), axis=1)
    drawn = jnp.concatenate([drawn, last[:, None]], axis=1)
    tokens = jnp.stack([drawn, values[row, drawn]], axis=-1)
    is_noise = jnp.pad(is_noise, ((0, 0), (0, 1)))
    tokens = jnp.where(is_noise[..., None], jnp.pad(noise, ((0, 0), (0, 1), (0, 0))), tokens).reshape(size, -1)
    asked = (pair > first[row, drawn]) & ~is_noise
    # the values' places are not asked
    asked = jnp.stack([asked, jnp.zeros_like(asked)], axis=-1).reshape(size, -1)[:, :-1]
    return make_batch(tokens[:, :-1], tokens[:, 1:], True if split == "train" else asked)


def recall(example: list[int], keys: int, vocabulary: int) -> list[int]:
    """Returns the labels of a test example by plain Python; 0 where nothing is asked.

    Args:
      example: its tokens.
      keys: how many of the first tokens are keys.
      vocabulary: keys and values; what is beyond is noise.
    """
    known: dict[int, int] = {}
    labels = [0] * len(example)
    for i in range(0, len(example), 2):
        key = example[i]
        if key in known:
            labels[i] = known[key]
        elif key < vocabulary and i + 1 < len(example):
            known[key] = example[i + 1]
    return labels
