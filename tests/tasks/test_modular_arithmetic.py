"""Modular arithmetic without brackets: Python's own evaluation, and the paper's facts (Grazzi et al. 2025, App. E.1)."""

import functools
import math

import jax
import numpy as np
import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.modular_arithmetic import ModularArithmetic

SIGNS = {0: "", 1: "+", 2: "-", 3: "*", 4: ""}


@functools.cache
def rows(modulus=5, multiplication=True, length=(3, 40), size=8192):
    task = ModularArithmetic(modulus, multiplication)
    batch = jax.jit(lambda key: task.batch(key, size, length))
    return jax.tree.map(np.asarray, batch(jax.random.key(0)))


def text(tokens):
    """The expression as Python writes it."""
    return "".join(SIGNS.get(int(token), str(int(token) - 5)) for token in tokens)


def sigma(p, n):
    return math.sqrt(p * (1 - p) / n)


def test_worked_example_of_the_docstring():
    tokens = [7, 2, 8, 2, 8, 3, 7, 4]
    assert text(tokens) == "2-3-3*2"
    assert ModularArithmetic().oracle(tokens) == (2 - 3 - 3 * 2) % 5 == 3


@pytest.mark.parametrize(
    ("expression", "value"), [("3", 3), ("2*3", 1), ("1+2*3", 2), ("4*4-1*3+2", 0), ("0-1", 4), ("2*2*2*2", 1), ("1-2*3*4", 2)]
)
def test_oracle_by_hand(expression, value):
    tokens = ["_+-*".index(c) if c in "+-*" else 5 + int(c) for c in expression]
    assert ModularArithmetic().oracle([*tokens, 4]) == value


@pytest.mark.parametrize(("modulus", "multiplication"), [(5, True), (5, False), (7, True)])
def test_target_is_what_python_says(modulus, multiplication):
    batch = rows(modulus, multiplication)
    for tokens, target in zip(batch.inputs[:600], batch.targets[:600], strict=True):
        assert target == eval(text(tokens)) % modulus, text(tokens)


@pytest.mark.parametrize(("length", "sizes"), [((3, 40), range(3, 40, 2)), ((40, 64), range(39, 64, 2)), ((5, 5), [5])])
def test_sizes_are_odd_and_uniform_as_released(length, sizes):
    batch = rows(length=length)
    values, counts = np.unique(batch.lengths + 1, return_counts=True)
    np.testing.assert_array_equal(values, list(sizes))
    share = 1 / len(values)
    np.testing.assert_allclose(counts / 8192, share, atol=5 * sigma(share, 8192))
    assert batch.inputs.shape == (8192, length[1])


def test_numbers_and_signs_alternate_until_the_equals_sign():
    batch = rows()
    for tokens, n in zip(batch.inputs[:600], batch.lengths, strict=False):
        assert n % 2 == 0
        assert all(5 <= token <= 9 for token in tokens[:n:2])
        assert all(1 <= token <= 3 for token in tokens[1 : n - 1 : 2])
        assert tokens[n - 1] == 4
        assert not tokens[n:].any()


@pytest.mark.parametrize("multiplication", [True, False])
def test_digits_and_signs_are_uniform_and_independent(multiplication):
    batch = rows(multiplication=multiplication)
    operators = 3 if multiplication else 2
    assert set(np.unique(batch.inputs)) == {0, 4, 5, 6, 7, 8, 9, *range(1, operators + 1)}
    long = batch.inputs[batch.lengths >= 6]
    triples = (long[:, 0] - 5) * 5 * operators + (long[:, 1] - 1) * 5 + long[:, 2] - 5
    share = 1 / (25 * operators)
    np.testing.assert_allclose(np.bincount(triples) / len(long), share, atol=5 * sigma(share, len(long)))


@pytest.mark.parametrize(("multiplication", "zero"), [(True, 2 / 3 / 5 + 9 / 25 / 3), (False, 1 / 5)])
def test_only_products_make_zero_commoner_and_only_in_short_rows(multiplication, zero):
    short = rows(multiplication=multiplication, length=(5, 5)).targets
    assert np.mean(short == 0) == pytest.approx(zero, abs=5 * sigma(zero, 8192))
    for share in np.bincount(rows(multiplication=multiplication, length=(39, 39)).targets) / 8192:
        assert share == pytest.approx(0.2, abs=5 * sigma(0.2, 8192))


@pytest.mark.parametrize("modulus", [2, 5, 7])
def test_constants_follow_the_modulus(modulus):
    task = ModularArithmetic(modulus)
    assert (pytest.approx(1 / modulus), task.outputs, task.vocab_size) == (task.CHANCE, modulus, modulus + 5)


@pytest.mark.parametrize("modulus", [1, 0, -3])
def test_modulus_below_two_is_refused(modulus):
    with pytest.raises(UserError, match=rf"^modulus={modulus} .*at least 2$"):
        ModularArithmetic(modulus)
