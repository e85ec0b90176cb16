"""The word problem of a group: multiply a sequence of its elements and say the product at every position."""

import dataclasses
import functools
import itertools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch, Example, Length, Sums, SyntheticTask

Permutation = tuple[int, ...]

# A multiplication table has the square of this many entries.
MOST_ELEMENTS = 720


@dataclasses.dataclass(frozen=True)
class WordProblem(SyntheticTask):
    """What is the product of all elements so far? Asked at every position: ``y_t = x_1 o x_2 o ... o x_t``.

    ::

        S3      input     4 2 4      tokens 5 3 5      4 is (2,0,1), the images of 0, 1 and 2; 2 is (1,0,2)
                targets   4 1 2                        4 o 2 = 1, which is (0,2,1); 2 o 4 would be 5

    Elements are numbered from 0, the identity, in the lexicographic order of their permutations, which are written as images
    of 0, 1, ...; ``(a o b)(i) = a(b(i))``, so the newest element acts first. Element e is token e + 1; after the elements
    come the token that stands for "no element" (if ``tokens_per_transition`` > 1) and then BOS (if ``bos``).

    Letters are uniform and independent.

    Attributes:
      group: cyclic "Z60", symmetric "S5", alternating "A5", dihedral "D4" (of the square: 8 elements), and direct products
        such as "A4xZ5"; at most 720 elements.
      letters: which elements occur in the input: "all", "swaps" (identity and transpositions), or "moved_K": those that move
        at most K of the numbers, as "moved_3".
      tokens_per_transition: k; only every k-th input, the first among them, is an element, and the answers come k - 1
        positions later; the identity comes before the first.
      bos: puts a token before the sequence, whose own position is not asked. It is not part of a length, so that such rows
        have one position more. A model whose state begins at zero needs it.
      padding: keeps token 0 for what is beyond a row's end. Without it, element e is token e, and the vocabulary is the group;
        what is beyond the end is the identity, which is not asked.

    Source: Grazzi et al. 2025, Section 5.2 and App. E.2 (S5: all 120, the 11 of "swaps" and the 31 of "moved_3", or 4 tokens
    per transition; Z60); Merrill et al. 2024 for the task. Dubinin et al. 2026 have S2 to S5 with all letters and neither BOS
    nor padding; products and numbers of elements are as here.
    Differs: every batch is fresh, where the paper draws a finite set once (1.6 million distinct sequences of length 32, and
    40 thousand of length 500 for the test); ``train_examples`` makes such a set, whose sequences may come twice and in the test
    too. BOS is not asked for itself, which the released code does: it is always right.
    Numerics: CHANCE is 1 / |G|, exact with all letters and one token per transition. With few letters the products of the
    first positions are not uniform yet.
    """

    group: str = "S5"
    letters: str = "all"
    tokens_per_transition: int = 1
    bos: bool = False
    padding: bool = True

    EVAL_LENGTHS = ((32, 32), (64, 64), (128, 128), (256, 256), (500, 500))
    METRICS = {**SyntheticTask.METRICS, "sequence_accuracy": "higher"}
    KEY_PER_BATCH = True
    HEADS = ("token",)

    def __post_init__(self) -> None:
        if self.tokens_per_transition < 1:
            raise UserError(f"tokens_per_transition={self.tokens_per_transition} must be at least 1")
        _find_letters(self.group, self.letters)

    @property
    def CHANCE(self) -> float:  # type: ignore[override]  # it depends on the group
        return 1.0 / self.outputs

    @property
    def vocab_size(self) -> int:
        return self.bos_token + self.bos

    @property
    def outputs(self) -> int:
        return len(make_group(self.group).elements)

    @property
    def bos_token(self) -> int:
        """The token before the sequence."""
        return self.padding + self.outputs + (self.tokens_per_transition > 1)

    def example_spec(self, length: int) -> Example:
        return super().example_spec(length + self.bos)

    def token_names(self) -> list[str]:
        """Returns a permutation's images side by side, or the element's number where that has more than nine points."""
        elements = make_group(self.group).elements
        names = ["".join(map(str, row)) for row in elements] if elements.shape[1] < 10 else map(str, range(len(elements)))
        return [
            *(["pad"] if self.padding else []),
            *names,
            *(["wait"] if self.tokens_per_transition > 1 else []),
            *(["bos"] if self.bos else []),
        ]

    def batch(self, key: jax.Array, size: int, length: Length, split: str = "train") -> Batch:
        shortest, longest = length
        k, bos = self.tokens_per_transition, int(self.bos)
        letter_key, length_key = jax.random.split(key)
        lengths = jax.random.randint(length_key, (size,), shortest, longest + 1)
        letters = jnp.asarray(_find_letters(self.group, self.letters))
        elements = letters[jax.random.randint(letter_key, (size, longest), 0, letters.size)]
        t = jnp.arange(longest)[None]
        holds = t % k == 0
        products = multiply(self.group, jnp.where(holds, elements, 0))
        inside = t < lengths[:, None]
        tokens = jnp.where(inside, jnp.where(holds, elements, self.outputs) + int(self.padding), 0)
        targets = jnp.where(inside, jnp.pad(products, ((0, 0), (k - 1, 0)))[:, :longest], 0)
        before = ((0, 0), (bos, 0))
        return Batch(
            inputs=jnp.pad(tokens, before, constant_values=self.bos_token),
            targets=jnp.pad(targets, before),
            weights=jnp.pad(inside.astype(jnp.float32), before),
            lengths=lengths + bos,
        )

    def check_length(self, field: str, length: tuple[int, int]) -> None:
        super().check_length(field, length)
        if length[1] < self.tokens_per_transition:
            raise UserError(
                f"{field}={list(length)}: no sequence is as long as task.tokens_per_transition={self.tokens_per_transition}, "
                "so every answer would be the identity"
            )

    def metrics(self, logits: Float[Array, "B T O"], batch: Batch) -> Sums:
        """Returns the accuracies of positions, and ``sequence_accuracy``: rows that are right at every position."""
        wrong = (jnp.argmax(logits, axis=-1) != batch.targets) & (batch.weights > 0)
        asked = jnp.any(batch.weights > 0, axis=1)
        right = asked & ~jnp.any(wrong, axis=1)
        rows = (jnp.sum(right.astype(jnp.float32)), jnp.sum(asked.astype(jnp.float32)))
        return {**super().metrics(logits, batch), "sequence_accuracy": rows}

    def curves(self, logits: Float[Array, "B T O"], batch: Batch) -> dict[str, tuple[Float[Array, " N"], Float[Array, " N"]]]:
        """Returns what rows are right, by length from 1 to N (T without BOS).

        ``sequence_accuracy_by_length`` is the paper's measure: right at every position up to there. ``accuracy_by_length``:
        right there.
        """
        weights = batch.weights[:, int(self.bos) :]
        right = (jnp.argmax(logits, axis=-1) == batch.targets)[:, int(self.bos) :].astype(jnp.float32)
        so_far = jnp.cumprod(jnp.where(weights > 0, right, 1.0), axis=1)
        rows = jnp.sum(weights, axis=0)
        return {
            "sequence_accuracy_by_length": (jnp.sum(so_far * weights, axis=0), rows),
            "accuracy_by_length": (jnp.sum(right * weights, axis=0), rows),
        }

    def oracle(self, example: list[int]) -> list[int]:
        elements = _list_elements(self.group)
        product = elements[0]
        products = [0]
        for token in example[int(self.bos) :]:
            if (number := token - self.padding) < len(elements):
                x = elements[number]
                product = tuple(product[i] for i in x)
            products.append(elements.index(product))
        delay = self.tokens_per_transition - 1
        return [0] * self.bos + ([0] * delay + products[1:])[: len(example) - self.bos]


class Group(NamedTuple):
    """A group of permutations.

    Attributes:
      elements: images of 0, 1, ... under each element, ``[G P]``, lexicographic; the identity is the first.
      table: number of the product a o b at ``[a, b]``, ``[G G]`` int32.
    """

    elements: np.ndarray
    table: np.ndarray


def multiply(group: str, elements: jax.Array) -> jax.Array:
    """Returns ``x_1 o ... o x_t`` for every position of elements ``[B T]``."""
    table = jnp.asarray(make_group(group).table)
    return jax.lax.associative_scan(lambda a, b: table[a, b], elements, axis=1)


@functools.cache
def make_group(name: str) -> Group:
    """Returns the group called ``name``, as `WordProblem` names them.

    Raises:
      UserError: no such group, or one too large.
    """
    elements = np.asarray(_list_elements(name), np.int16)
    numbers = {row.tobytes(): i for i, row in enumerate(elements)}
    table = [[numbers[product.tobytes()] for product in a[elements]] for a in elements]
    return Group(elements, np.asarray(table, np.int32))


@functools.cache
def _find_letters(group: str, letters: str) -> np.ndarray:
    """Returns the numbers of the elements that ``letters`` means."""
    elements = make_group(group).elements
    found = re.fullmatch(r"moved_(\d+)", "moved_2" if letters == "swaps" else letters)
    if letters == "all":
        return np.arange(len(elements), dtype=np.int32)
    if not found:
        raise UserError(f"letters={letters!r} is not one of all, swaps, moved_K with a number K, such as moved_3")
    moved = np.sum(elements != elements[:1], axis=1)
    chosen = np.flatnonzero(moved <= int(found[1])).astype(np.int32)
    if chosen.size < 2:
        raise UserError(f"letters={letters!r} leaves only the identity of group={group!r}")
    return chosen


@functools.cache
def _list_elements(name: str) -> list[Permutation]:
    """Returns a group's permutations in lexicographic order; a product permutes the factors' points side by side."""
    parts = []
    for factor in name.split("x"):
        found = re.fullmatch(r"([SAZD])(\d{1,4})", factor)
        kind, n = (found[1], int(found[2])) if found else ("", 0)
        least, most = {"S": (2, 6), "A": (3, 6), "Z": (2, MOST_ELEMENTS), "D": (3, MOST_ELEMENTS // 2)}.get(kind, (1, 0))
        if not least <= n <= most:
            raise UserError(
                f"group={name!r}: {factor!r} is not one of S2 to S6, A3 to A6, Z2 to Z{MOST_ELEMENTS}, "
                f"D3 to D{MOST_ELEMENTS // 2} (products as in 'A4xZ5')"
            )
        parts.append(_list_factor(kind, n))
    order = int(np.prod([len(part) for part in parts]))
    if order > MOST_ELEMENTS:
        raise UserError(f"group={name!r} has {order} elements, more than {MOST_ELEMENTS}")
    elements: list[Permutation] = [()]
    for part in parts:
        elements = [(*a, *(len(a) + i for i in b)) for a, b in itertools.product(elements, part)]
    return elements


def _list_factor(kind: str, n: int) -> list[Permutation]:
    if kind in "SA":
        found = list(itertools.permutations(range(n)))
        return found if kind == "S" else [p for p in found if _is_even(p)]
    turns = [tuple((i + shift) % n for i in range(n)) for shift in range(n)]
    return turns if kind == "Z" else sorted(turns + [turn[::-1] for turn in turns])


def _is_even(p: Permutation) -> bool:
    return sum(a > b for a, b in itertools.combinations(p, 2)) % 2 == 0
