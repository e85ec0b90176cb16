"""Sums, differences and products modulo m, with brackets."""

import dataclasses

import jax
import jax.numpy as jnp

from lrnn_jax.tasks.base import Batch, Length, ModularTask

# The tokens after padding (0) and the digits (1 to m), counted from m + 1.
SIGNS = "+-*()="


@dataclasses.dataclass(frozen=True)
class ModularArithmeticBrackets(ModularTask):
    """What is the bracketed expression's value modulo m? The answer is asked at the equals sign.

    ::

        m = 5   input   ( 2 - ( - 3 ) ) = . .      tokens 9 3 7 9 7 4 10 10 11 0 0
                target                  0          class 0: 2 + 3; "." is the answer's place and one padding more

    An expression of n tokens is, for n = 1 to 4, ``d``, ``-d``, ``(d)`` and ``(-d)`` with a uniform digit d; for n of 5 and
    more it is ``(L op R)`` with a uniform operator, L of uniformly 1 to n - 4 tokens and R of the rest, both made in the same
    way. A length counts the expression, the equals sign, the answer's place and one padding, as the paper's does.

    Attributes:
      modulus: m, at least 2.
      multiplication: with ``*`` beside ``+`` and ``-``.

    Source: Grazzi et al. 2025, Section 5.1 and App. E.1 (train up to 40, test 40 to 256, m = 5); Deletang et al. 2023 for the
    sampling.
    Differs: m output classes instead of a vocabulary of m + 7; tokens are the released ones plus one, so that padding is 0.
    The released generator accepts lengths 3 and 4 and makes 5 of them; ours begin at 5.
    Numerics: CHANCE is 1/m, as the paper scales by. Without multiplication it is exact; with it the answer 0 is commoner,
    for a third of the outermost operators are ``*``: 0.296 of all answers for m = 5 (65 536 rows of lengths 40 to 64).
    """

    modulus: int = 5
    multiplication: bool = False

    EVAL_LENGTHS = ((40, 64), (65, 128), (129, 192), (193, 256), (257, 512))
    KEY_PER_BATCH = True
    MIN_LENGTH = 5

    @property
    def vocab_size(self) -> int:
        return 1 + self.modulus + len(SIGNS)

    def token(self, sign: str) -> int:
        """Returns the token of one of `SIGNS`."""
        return 1 + self.modulus + SIGNS.index(sign)

    def token_names(self) -> list[str]:
        return ["pad", *map(str, range(self.modulus)), *SIGNS]

    def batch(self, key: jax.Array, size: int, length: Length, split: str = "train") -> Batch:
        shortest, longest = length
        length_key, cut_key, digit_key, operator_key = jax.random.split(key, 4)
        n = jax.random.randint(length_key, (size,), shortest, longest + 1) - 3
        shape = (size, longest)
        cuts = jax.random.bits(cut_key, shape, jnp.uint32)
        digits = jax.random.randint(digit_key, shape, 0, self.modulus)
        operators = jax.random.randint(operator_key, shape, 0, 3 if self.multiplication else 2)
        tokens, parts, lefts = self._write(n, cuts, digits, operators)
        equals = jnp.arange(longest)[None] == n[:, None]
        return Batch(
            inputs=jnp.where(equals, self.token("="), tokens),
            targets=self._evaluate(parts, lefts, digits, operators),
            weights=jnp.ones((size,), jnp.float32),
            lengths=n + 1,
        )

    def _write(self, n: jax.Array, cuts: jax.Array, digits: jax.Array, operators: jax.Array) -> tuple[jax.Array, ...]:
        """Returns tokens ``[B T]``, the length of the part that begins at each position (0: none) and of its left operand.

        The recursion as a loop over positions: what a part's length says about places further right is noted there, a part
        by its length, a token with a minus sign. At most one part begins at a position, so each has randomness of its own.
        """
        places = jnp.arange(cuts.shape[1])[None]

        def step(notes: jax.Array, x: tuple[jax.Array, ...]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
            t, cut, digit, operator = x
            note = jax.lax.dynamic_index_in_dim(notes, t, axis=1, keepdims=False)
            part = jnp.maximum(note, 0)
            left = 1 + (cut % jnp.maximum(part - 4, 1).astype(jnp.uint32)).astype(jnp.int32)
            first = jnp.where(part >= 5, left, jnp.where(part == 4, 2, 1))
            token = jnp.where(part >= 3, self.token("("), jnp.where(part == 2, self.token("-"), 1 + digit))
            written = [
                (part >= 2, t + 1, first),
                (part >= 3, t + part - 1, jnp.full_like(part, -self.token(")"))),
                (part >= 5, t + 1 + left, -(self.token("+") + operator)),
                (part >= 5, t + 2 + left, part - left - 3),
            ]
            for does, place, value in written:
                here = does[:, None] & (places == jnp.broadcast_to(place, part.shape)[:, None])
                notes = jnp.where(here, value[:, None], notes)
            return notes, (jnp.where(part > 0, token, -note), part, left)

        notes = jnp.where(places == 0, n[:, None], 0)
        xs = (jnp.arange(cuts.shape[1]), cuts.T, digits.T, operators.T)
        _, (tokens, parts, lefts) = jax.lax.scan(step, notes, xs)
        return tokens.T, parts.T, lefts.T

    def _evaluate(self, parts: jax.Array, lefts: jax.Array, digits: jax.Array, operators: jax.Array) -> jax.Array:
        """Returns the values of the parts at position 0, from the last part to the first: operands stand after their part."""
        size, longest = parts.shape

        def step(values: jax.Array, x: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
            t, part, left, digit, operator = x
            a = jax.lax.dynamic_index_in_dim(values, t + 1, axis=1, keepdims=False)
            right = jnp.minimum(t + 2 + left, longest)
            b = jnp.take_along_axis(values, right[:, None], axis=1)[:, 0]
            pair = jnp.where(operator == 2, a * b, jnp.where(operator == 1, a - b, a + b))
            single = jnp.where(part == 1, digit, jnp.where(part == 2, -a, a))
            value = jnp.where(part >= 5, pair, single) % self.modulus
            return jax.lax.dynamic_update_index_in_dim(values, value, t, axis=1), None

        xs = (jnp.arange(longest), parts.T, lefts.T, digits.T, operators.T)
        values, _ = jax.lax.scan(step, jnp.zeros((size, longest + 1), parts.dtype), xs, reverse=True)
        return values[:, 0]

    def oracle(self, example: list[int]) -> int:
        tokens = list(example)

        def read() -> int:
            token = tokens.pop(0)
            if token == self.token("-"):
                return -read()
            if token != self.token("("):
                return token - 1
            value = read()
            sign = tokens.pop(0)
            if sign == self.token(")"):
                return value
            other = read()
            tokens.pop(0)
            return value * other if sign == self.token("*") else value + (other if sign == self.token("+") else -other)

        return read() % self.modulus
