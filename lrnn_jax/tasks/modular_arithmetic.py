"""Sums, differences and products modulo m, without brackets."""

import dataclasses

import jax
import jax.numpy as jnp

from lrnn_jax.tasks.base import Batch, Length, ModularTask

PLUS, MINUS, TIMES, EQUALS = 1, 2, 3, 4
ZERO = 5  # the digit 0; digit d is ZERO + d


@dataclasses.dataclass(frozen=True)
class ModularArithmetic(ModularTask):
    """What is the expression's value modulo m? Products come before sums; the answer is asked at the equals sign.

    ::

        m = 5   input   2 - 3 - 3 * 2 = .      tokens 7 2 8 2 8 3 7 4 0     "." is the answer's place, which holds padding
                target                3        class 3: 2 - 3 - 6 = -7

    Digits and operators are independent and uniform. A length counts the answer's place and is odd: numbers and the signs
    between them, the equals sign, the answer. Both ends of a range are rounded down to odd ones, so 40 to 256 is 39 to 255.

    Attributes:
      modulus: m, at least 2.
      multiplication: with ``*`` beside ``+`` and ``-``.

    Source: Grazzi et al. 2025, Section 5.1 and App. E.1 (train 3 to 40, test 40 to 256, m = 5); Beck et al. 2024 for the
    sampling and the token numbers.
    Differs: m output classes instead of a vocabulary of m + 5. The paper's example has products, and so has its released
    generator, but one of its tables tells "mult" apart: hence the choice.
    Numerics: CHANCE is 1/m, as the paper scales by. Without multiplication it is exact. With it the answer 0 is commoner in
    short expressions; from length 39 on, all but one row of four thousand have a number that no ``*`` touches, and one
    such number makes the answer uniform.
    """

    modulus: int = 5
    multiplication: bool = True

    EVAL_LENGTHS = ((40, 64), (65, 128), (129, 192), (193, 256), (257, 512))
    KEY_PER_BATCH = True
    MIN_LENGTH = 3
    LENGTH_STEP = 2

    @property
    def vocab_size(self) -> int:
        return ZERO + self.modulus

    def token_names(self) -> list[str]:
        return ["pad", *"+-*=", *map(str, range(self.modulus))]

    def batch(self, key: jax.Array, size: int, length: Length, split: str = "train") -> Batch:
        shortest, longest = length
        count_key, digit_key, sign_key = jax.random.split(key, 3)
        # n numbers make n signs with the equals sign, and the answer: 2 n + 1 places
        most = (longest - 1) // 2
        counts = jax.random.randint(count_key, (size,), (shortest - 1) // 2, most + 1)
        digits = jax.random.randint(digit_key, (size, most), 0, self.modulus)
        signs = jax.random.randint(sign_key, (size, most), PLUS, (TIMES if self.multiplication else MINUS) + 1)
        i = jnp.arange(most)[None]
        signs = jnp.where(i == counts[:, None] - 1, EQUALS, signs)
        pairs = jnp.stack([digits + ZERO, signs], axis=-1)
        tokens = jnp.where((i < counts[:, None])[..., None], pairs, 0).reshape(size, 2 * most)
        return Batch(
            inputs=jnp.pad(tokens, ((0, 0), (0, longest - 2 * most))),
            targets=_evaluate(digits, signs, counts, self.modulus),
            weights=jnp.ones((size,), jnp.float32),
            lengths=2 * counts,
        )

    def oracle(self, example: list[int]) -> int:
        total, product, sign = 0, 1, 1
        for token in example:
            if token >= ZERO:
                product *= token - ZERO
            elif token != TIMES:
                total += sign * product
                product, sign = 1, -1 if token == MINUS else 1
        return total % self.modulus


def _evaluate(digits: jax.Array, signs: jax.Array, counts: jax.Array, modulus: int) -> jax.Array:
    """Returns the values of the rows' first ``counts`` numbers with the signs between them; both are ``[B N]``."""
    before = jnp.pad(signs[:, :-1], ((0, 0), (1, 0)), constant_values=PLUS)
    inside = jnp.arange(digits.shape[1])[None] < counts[:, None]

    def add(carry: tuple[jax.Array, jax.Array], x: tuple[jax.Array, ...]) -> tuple[tuple[jax.Array, jax.Array], None]:
        total, product = carry  # the finished terms' sum and the unfinished term, its sign included
        digit, sign, inside = x
        goes_on = sign == TIMES
        term = jnp.where(goes_on, product * digit, jnp.where(sign == MINUS, -digit, digit)) % modulus
        total = jnp.where(goes_on, total, total + product) % modulus
        return (jnp.where(inside, total, carry[0]), jnp.where(inside, term, product)), None

    zeros = jnp.zeros_like(counts)
    (total, product), _ = jax.lax.scan(add, (zeros, zeros), (digits.T, before.T, inside.T))
    return (total + product) % modulus
