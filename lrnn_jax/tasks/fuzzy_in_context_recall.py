"""In-context recall whose keys and values have several tokens."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch, Length
from lrnn_jax.tasks.fixed_length import FixedLengthTask, draw_distinct, make_batch


class Pairs(NamedTuple):
    """Keys or values of several pairs.

    Attributes:
      tokens: of each ``[B N M]``, of which the first ``sizes`` count; -1 beyond them, so that equal ones are equal throughout.
      sizes: ``[B N]``.
    """

    tokens: jax.Array
    sizes: jax.Array


@dataclasses.dataclass(frozen=True)
class FuzzyInContextRecall(FixedLengthTask):
    """`InContextRecall` with keys of 1 to M and values of 1 to N different tokens, which are asked token by token.

    ::

        V = 16, L = 18  tokens           # # # # # 2 0 5 9 14  1 4 0 8  2 0 5 9 14     keys 0 to 6, values 7 to 14, 15 pads
        M = N = 3       inputs           # # # # # 2 0 5 9 14  1 4 0 8  2 0 5 9        all but the last token
                        targets, test    . . . . . . . . . .   . . . .  . . 9 14       the value of a key that came before
                        targets, train   # # # # 2 0 5 9 14 1  4 0 8 2  0 5 9 14       the next token, everywhere

    Sizes are uniform and independent, and then the tokens; in the test all keys have M tokens. A key has one value throughout a
    sequence. Pairs are added while fewer than L - p - M - N tokens are there. One of them, the probe, of p tokens, comes once a
    place is reached that is uniform among the first L - 2 p, unless its key came before by itself; and it ends the sequence.
    Padding comes first.

    Attributes:
      vocabulary: V; the last token pads, the first (V - 1) // 2 are for keys, the others for values.
      key_motif: M, at most (V - 1) // 2.
      value_motif: N, at most the tokens for values.

    Source: MAD (Poli et al. 2024), its released generator with several queries (V = 16, L = 128, M = N = 3).
    Differs: in MAD the probe's place may lie so late that no pair begins after it, and the question at the end has no answer
    (about 2 in 100 test examples at L = 128). Here such a place is L - p - 2 (M + N), after which a pair always begins.
    Numerics: CHANCE is 1 / (tokens for values), for the test's targets, as is CEILING; of the training's targets most cannot be
    foreseen.
    """

    vocabulary: int = 16
    key_motif: int = 3
    value_motif: int = 3

    EVAL_LENGTHS = ((128, 128),)
    ANSWERS_AHEAD = True
    SPLITS_DIFFER = True

    def __post_init__(self) -> None:
        for name, size, tokens in (("key_motif", self.key_motif, self._keys), ("value_motif", self.value_motif, self._values)):
            if size < 1:
                raise UserError(f"{name}={size} must be at least 1")
            if tokens < max(size, 2):
                raise UserError(
                    f"{name}={size}: vocabulary={self.vocabulary} leaves {max(tokens, 0)} tokens for it, and must "
                    f"leave {max(size, 2)} different ones"
                )

    @property
    def _keys(self) -> int:
        return (self.vocabulary - 1) // 2

    @property
    def _values(self) -> int:
        return self.vocabulary - 1 - self._keys

    @property
    def CHANCE(self) -> float:  # type: ignore[override]  # it depends on V
        return 1.0 / self._values

    @property
    def MIN_LENGTH(self) -> int:  # type: ignore[override]  # it depends on the motifs
        return 2 * (self.key_motif + self.value_motif) + 1

    def token_names(self) -> list[str]:
        return [f"k{i}" for i in range(self._keys)] + [f"v{i}" for i in range(self._values)] + ["pad"]

    def batch(self, key: jax.Array, size: int, length: Length, split: str = "train") -> Batch:
        steps, largest, training = length[1], self.key_motif + self.value_motif, split == "train"
        least = 1 if training else self.key_motif
        count = -(-(steps - largest) // (least + 1))
        key_key, value_key, place_key = jax.random.split(key, 3)
        # the last of the pairs is the probe
        keys = draw_motifs(key_key, (size, count + 1), self._keys, least, self.key_motif)
        values = draw_motifs(value_key, (size, count + 1), self._values, 1, self.value_motif)
        keys, probe = _split_last(keys)
        values, probe_value = _split_last(values)
        probe_size = (probe.sizes + probe_value.sizes)[:, 0]
        place = jax.random.randint(place_key, (size,), 0, steps - 2 * probe_size)
        place = jnp.minimum(place, jnp.maximum(steps - probe_size - 2 * largest, 0))

        keys = _put_probe(keys, values, probe, probe_value, place)
        seen, values = _resolve(keys, values, probe, probe_value)
        starts = _starts(keys, values)
        used = starts < (steps - probe_size - largest)[:, None]
        seen = jnp.concatenate([seen & used, jnp.ones_like(used[:, :1])], axis=1)
        used = jnp.concatenate([used, jnp.ones_like(used[:, :1])], axis=1)
        tokens, asked = _write(_join(keys, probe), _join(values, probe_value), used, seen, steps + 1, self._keys)
        tokens = jnp.where(tokens < 0, self.vocabulary - 1, tokens)
        return make_batch(tokens[:, :-1], tokens[:, 1:], True if training else asked[:, 1:])

    def oracle(self, example: list[int]) -> list[int]:
        def run(i: int, of_keys: bool) -> list[int]:
            j = i
            while j < len(example) and (example[j] < self._keys) == of_keys:
                j += 1
            return example[i:j]

        known: dict[tuple[int, ...], list[int]] = {}
        labels = [0] * len(example)
        i = example.count(self.vocabulary - 1)
        while i < len(example):
            key = run(i, True)
            i += len(key)
            value = run(i, False)
            for j, token in enumerate(known.get(tuple(key), [])):
                labels[i - 1 + j] = token
            known.setdefault(tuple(key), value)
            i += len(value)
        return labels


def draw_motifs(key: jax.Array, shape: tuple[int, int], tokens: int, least: int, most: int) -> Pairs:
    """Draws sizes uniform from ``least`` to ``most``, then so many different ones of ``tokens`` tokens."""
    size_key, token_key = jax.random.split(key)
    sizes = jax.random.randint(size_key, shape, least, most + 1)
    drawn = draw_distinct(token_key, shape, tokens, most)
    return Pairs(jnp.where(jnp.arange(most)[None, None] < sizes[..., None], drawn, -1), sizes)


def _split_last(pairs: Pairs) -> tuple[Pairs, Pairs]:
    return Pairs(*(x[:, :-1] for x in pairs)), Pairs(*(x[:, -1:] for x in pairs))


def _join(pairs: Pairs, last: Pairs) -> Pairs:
    return Pairs(*(jnp.concatenate(both, axis=1) for both in zip(pairs, last, strict=True)))


def _where(mask: jax.Array, pairs: Pairs, other: Pairs) -> Pairs:
    return Pairs(jnp.where(mask[..., None], pairs.tokens, other.tokens), jnp.where(mask, pairs.sizes, other.sizes))


def _same(keys: Pairs, others: Pairs) -> jax.Array:
    """Says which keys equal which others, ``[B N N']``."""
    return jnp.all(keys.tokens[:, :, None] == others.tokens[:, None], axis=-1)


def _resolve(keys: Pairs, values: Pairs, probe: Pairs, probe_value: Pairs) -> tuple[jax.Array, Pairs]:
    """Returns which keys came before, and the values: a key's first one, and the probe's own."""
    first = jnp.argmax(_same(keys, keys), axis=2)
    values = Pairs(
        jnp.take_along_axis(values.tokens, first[..., None], axis=1), jnp.take_along_axis(values.sizes, first, axis=1)
    )
    return first < jnp.arange(first.shape[1])[None], _where(_same(keys, probe)[..., 0], probe_value, values)


def _starts(keys: Pairs, values: Pairs) -> jax.Array:
    """Returns how many tokens come before each pair."""
    sizes = keys.sizes + values.sizes
    return jnp.cumsum(sizes, axis=1) - sizes


def _put_probe(keys: Pairs, values: Pairs, probe: Pairs, probe_value: Pairs, place: jax.Array) -> Pairs:
    """Returns the keys with the probe's in place of the first that begins at ``place`` or later, unless it came before.

    What it replaces was drawn independently of everything before, so that this is as good as putting it between two pairs.
    """
    _, resolved = _resolve(keys, values, probe, probe_value)
    late = _starts(keys, resolved) >= place[:, None]
    here = late & (jnp.cumsum(late, axis=1) == 1)
    came = jnp.cumsum(_same(keys, probe)[..., 0], axis=1) > 0
    return _where(here & ~came, probe, keys)


def _write(
    keys: Pairs, values: Pairs, used: jax.Array, seen: jax.Array, steps: int, first_value: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the used pairs' tokens at the end of rows of ``steps``, -1 before them; and which are values of seen keys."""
    sizes = jnp.where(used, keys.sizes + values.sizes, 0)
    begin = steps - jnp.sum(sizes, axis=1, keepdims=True) + jnp.cumsum(sizes, axis=1) - sizes
    row = jnp.arange(used.shape[0])[:, None, None]
    tokens, asked = jnp.full((used.shape[0], steps), -1), jnp.zeros((used.shape[0], steps), bool)

    def places(pairs: Pairs, begin: jax.Array) -> jax.Array:
        j = jnp.arange(pairs.tokens.shape[-1])[None, None]
        # what does not count is written beyond the end, where it is dropped
        return jnp.where((j < pairs.sizes[..., None]) & used[..., None], begin[..., None] + j, steps)

    of_values = places(values, begin + keys.sizes)
    tokens = tokens.at[row, places(keys, begin)].set(keys.tokens, mode="drop")
    tokens = tokens.at[row, of_values].set(values.tokens + first_value, mode="drop")
    return tokens, asked.at[row, of_values].set(seen[..., None], mode="drop")
