"""Modular arithmetic with brackets: the recursive sampling of Deletang et al. 2023, and Python's own evaluation."""

import collections
import functools
import math
import random

import jax
import numpy as np
import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.modular_arithmetic_brackets import ModularArithmeticBrackets

SHORT = {1: "d", 2: "-d", 3: "(d)", 4: "(-d)"}


@functools.cache
def rows(modulus=5, multiplication=False, length=(5, 40), size=8192):
    task = ModularArithmeticBrackets(modulus, multiplication)
    batch = jax.jit(lambda key: task.batch(key, size, length))
    return jax.tree.map(np.asarray, batch(jax.random.key(0)))


def text(tokens, modulus=5):
    """The expression as Python writes it."""
    return "".join(
        "" if token == 0 else str(token - 1) if token <= modulus else "+-*()="[token - modulus - 1] for token in tokens
    )


def shape(expression):
    """The expression without its digits and operators."""
    expression = "".join("d" if c.isdigit() else c for c in expression.rstrip("="))
    for before in "d)":
        for sign in "+-*":
            expression = expression.replace(before + sign, before + "o")
    return expression


@functools.cache
def shapes(n):
    """The probability of every shape of n tokens, by the recursion itself."""
    if n < 5:
        return {SHORT[n]: 1.0}
    found = {}
    for left in range(1, n - 3):
        for a, p in shapes(left).items():
            for b, q in shapes(n - left - 3).items():
                whole = f"({a}o{b})"
                found[whole] = found.get(whole, 0.0) + p * q / (n - 4)
    return found


def sample_depth(n, rng):
    """Depth of brackets of one expression, by the recursion itself."""
    if n < 5:
        return int(n > 2)
    left = rng.randint(1, n - 4)
    return 1 + max(sample_depth(left, rng), sample_depth(n - left - 3, rng))


def depth(expression):
    return max(expression[:i].count("(") - expression[:i].count(")") for i in range(len(expression) + 1))


def sigma(p, n):
    return math.sqrt(p * (1 - p) / n)


def test_worked_example_of_the_docstring():
    tokens = [9, 3, 7, 9, 7, 4, 10, 10, 11]
    assert text(tokens) == "(2-(-3))="
    assert ModularArithmeticBrackets().oracle(tokens) == 0


@pytest.mark.parametrize(
    ("expression", "value"),
    [("3", 3), ("-3", 2), ("(4)", 4), ("(-1)", 4), ("(2-3)", 4), ("(2--3)", 0), ("((1+4)*-(3))", 0), ("((2*3)-(4*(1+1)))", 3)],
)
def test_oracle_by_hand(expression, value):
    tokens = [int(c) + 1 if c.isdigit() else 6 + "+-*()=".index(c) for c in f"{expression}="]
    assert ModularArithmeticBrackets().oracle(tokens) == value


@pytest.mark.parametrize(("modulus", "multiplication", "longest"), [(5, False, 40), (5, True, 64), (10, True, 40)])
def test_target_is_what_python_says(modulus, multiplication, longest):
    batch = rows(modulus, multiplication, (5, longest))
    for tokens, target in zip(batch.inputs[:500], batch.targets[:500], strict=True):
        expression = text(tokens, modulus).rstrip("=")
        assert target == eval(expression) % modulus, expression


def test_a_length_counts_equals_sign_answer_and_one_padding():
    batch = rows()
    for tokens, n in zip(batch.inputs[:500], batch.lengths, strict=False):
        assert len(text(tokens[:n])) == n
        assert tokens[n - 1] == 11
        assert 11 not in tokens[: n - 1]
        assert not tokens[n:].any()
    assert (batch.lengths.min(), batch.lengths.max()) == (3, 38)
    assert batch.inputs.shape == (8192, 40)
    np.testing.assert_array_equal(rows(length=(64, 64)).lengths, 62)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 9, 13])
def test_every_shape_is_as_likely_as_the_recursion_makes_it(n):
    batch = rows(length=(5, 16), size=65_536)
    found = collections.Counter(shape(text(tokens)) for tokens in batch.inputs[batch.lengths == n + 1])
    size = found.total()
    assert size > 5000
    expected = shapes(n)
    assert sum(expected.values()) == pytest.approx(1.0)
    assert set(found) <= set(expected)
    for one, p in expected.items():
        assert found[one] / size == pytest.approx(p, abs=5 * sigma(p, size) + 1e-9), one


def test_the_outermost_split_of_a_long_expression_is_uniform():
    lefts = []
    for tokens in rows(length=(64, 64)).inputs:
        expression, open_brackets = shape(text(tokens)), 0
        for i, c in enumerate(expression):
            open_brackets += (c == "(") - (c == ")")
            if c == "o" and open_brackets == 1:
                lefts.append(i - 1)
                break
    shares = np.bincount(lefts, minlength=58)[1:] / 8192
    assert shares.size == 57  # 61 tokens, 4 of which neither side has
    np.testing.assert_allclose(shares, 1 / 57, atol=5 * sigma(1 / 57, 8192))


def test_long_expressions_are_as_deep_as_the_recursions():
    rng = random.Random(0)
    depths = np.array([sample_depth(125, rng) for _ in range(2048)])
    found = np.array([depth(text(tokens)) for tokens in rows(length=(128, 128), size=2048).inputs])
    assert found.mean() == pytest.approx(depths.mean(), abs=5 * depths.std() * math.sqrt(2 / 2048))
    assert found.std() == pytest.approx(depths.std(), rel=0.15)


@pytest.mark.parametrize("multiplication", [False, True])
def test_digits_and_operators_are_uniform_and_independent(multiplication):
    batch = rows(multiplication=multiplication, length=(5, 16), size=65_536)
    five = batch.inputs[batch.lengths == 6]  # "(dod)="
    operators = 3 if multiplication else 2
    triples = (five[:, 1] - 1) * 5 * operators + (five[:, 2] - 6) * 5 + five[:, 3] - 1
    counts = np.bincount(triples)
    assert counts.size == 25 * operators
    np.testing.assert_allclose(counts / len(five), 1 / counts.size, atol=5 * sigma(1 / counts.size, len(five)))


def test_only_products_make_zero_commoner():
    plain = np.bincount(rows(length=(64, 64)).targets) / 8192
    products = np.bincount(rows(5, True, (5, 64)).targets) / 8192
    np.testing.assert_allclose(plain, 0.2, atol=5 * sigma(0.2, 8192))
    assert 0.27 < products[0] < 0.31
    np.testing.assert_allclose(products[1:], products[1:].mean(), atol=5 * sigma(0.2, 8192))


@pytest.mark.parametrize("modulus", [2, 5, 7])
def test_constants_follow_the_modulus(modulus):
    task = ModularArithmeticBrackets(modulus)
    assert (pytest.approx(1 / modulus), task.outputs, task.vocab_size) == (task.CHANCE, modulus, modulus + 7)


@pytest.mark.parametrize("modulus", [1, 0, -3])
def test_modulus_below_two_is_refused(modulus):
    with pytest.raises(UserError, match=rf"^modulus={modulus} .*at least 2$"):
        ModularArithmeticBrackets(modulus)
