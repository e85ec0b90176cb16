"""In-context recall with noise between the pairs."""

import dataclasses

import jax

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch, Length
from lrnn_jax.tasks.in_context_recall import InContextRecall, make_recall_batch, name_pairs, recall


@dataclasses.dataclass(frozen=True)
class NoisyInContextRecall(InContextRecall):
    """`InContextRecall` in which pairs before the last are two noise tokens with probability p; noise is asked for nothing.

    ::

        V = 32, W = 16, L = 10  tokens           3 9  30 17  3 9  19 19  3 9     keys 0 to 7, values 8 to 15, noise 16 to 31
                                targets, test    . .  .  .   9 .  .  .   9
                                targets, train   9 30 17 3   9 19 19 3   9

    One pair of each sequence, drawn uniformly, is never noise.

    Attributes:
      vocabulary: V, at least 4 more than W; the others are keys, then values, then noise.
      noise_vocabulary: W, tokens of the noise, at least 1.
      noise: p, in [0, 1).

    Source: MAD (Poli et al. 2024), its released generator (V = 32, W = 16, p = 0.2, L = 128).
    Differs: MAD draws the pair that is never noise among all L / 2 and fails where it draws the last and the others are noise;
    here it is one of those before the last.
    """

    vocabulary: int = 32
    noise_vocabulary: int = 16
    noise: float = 0.2

    def __post_init__(self) -> None:
        if not 0.0 <= self.noise < 1.0:
            raise UserError(f"noise={self.noise} must be in [0, 1): a share of the pairs that leaves some")
        if self.noise_vocabulary < 1:
            raise UserError(f"noise_vocabulary={self.noise_vocabulary} must be at least 1")
        if self._pair_vocabulary < 4:
            raise UserError(
                f"vocabulary={self.vocabulary} must be at least {4 + self.noise_vocabulary}: two keys and two values "
                f"beside noise_vocabulary={self.noise_vocabulary}"
            )

    @property
    def _pair_vocabulary(self) -> int:
        return self.vocabulary - self.noise_vocabulary

    @property
    def CHANCE(self) -> float:  # type: ignore[override]  # it depends on V
        return 1.0 / (self._pair_vocabulary - self._pair_vocabulary // 2)

    def token_names(self) -> list[str]:
        return name_pairs(self._pair_vocabulary) + [f"n{i}" for i in range(self.noise_vocabulary)]

    def batch(self, key: jax.Array, size: int, length: Length, split: str = "train") -> Batch:
        pairs = length[1] // 2 - 1
        key, token_key, place_key, kept_key = jax.random.split(key, 4)
        noise = jax.random.randint(token_key, (size, pairs, 2), self._pair_vocabulary, self.vocabulary)
        kept = jax.nn.one_hot(jax.random.randint(kept_key, (size,), 0, pairs), pairs, dtype=bool)
        is_noise = jax.random.bernoulli(place_key, self.noise, (size, pairs)) & ~kept
        return make_recall_batch(key, noise, is_noise, self._pair_vocabulary, split)

    def oracle(self, example: list[int]) -> list[int]:
        return recall(example, self._pair_vocabulary // 2, self._pair_vocabulary)
