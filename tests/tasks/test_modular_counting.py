"""Modular counting: the docstring's example, its sampling, and what it refuses."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.modular_counting import ModularCounting
from lrnn_jax.tasks.parity import Parity, make_counting_batch

MODULI = (2, 3, 5, 7)


BITS = range(1, 20)


@functools.cache
def rows(modulus):
    """20 000 rows of 1 to 19 bits."""
    batch = jax.jit(lambda key: ModularCounting(modulus).batch(key, 20_000, (2, 20)))
    return jax.tree.map(np.asarray, batch(jax.random.key(0)))


def rows_of(modulus, bits):
    return jax.tree.map(lambda x: x[rows(modulus).lengths == bits], rows(modulus))


def assert_uniform(values, choices):
    shares = np.bincount(values, minlength=choices) / values.size
    assert shares.size == choices
    np.testing.assert_allclose(shares, 1 / choices, atol=5 * math.sqrt((choices - 1) / values.size) / choices)


def test_worked_example_of_the_docstring():
    batch = make_counting_batch(jnp.asarray([[1, 0, 1, 1, 1, 1]], jnp.int32), jnp.asarray([5], jnp.int32), modulus=3)
    np.testing.assert_array_equal(batch.inputs, [[2, 1, 2, 2, 2, 0]])
    np.testing.assert_array_equal(batch.targets, [1])
    assert ModularCounting(3).oracle([2, 1, 2, 2, 2]) == 1


@pytest.mark.parametrize(("modulus", "ones", "label"), [(2, 3, 1), (3, 3, 0), (3, 5, 2), (5, 4, 4), (7, 13, 6), (7, 0, 0)])
def test_oracle_by_hand(modulus, ones, label):
    assert ModularCounting(modulus).oracle([1, *[2] * ones, 1]) == label


@pytest.mark.parametrize("modulus", MODULI)
def test_constants_follow_the_modulus(modulus):
    task = ModularCounting(modulus)
    assert pytest.approx(1 / modulus) == task.CHANCE
    assert task.outputs == modulus
    assert task.vocab_size == 3


@pytest.mark.parametrize("modulus", MODULI)
def test_classes_are_balanced_at_every_length_from_m_minus_1_bits(modulus):
    for bits in BITS[modulus - 2 :]:
        assert_uniform(rows_of(modulus, bits).targets, modulus)


@pytest.mark.parametrize("modulus", [3, 5, 7])
def test_short_rows_draw_among_the_classes_they_reach(modulus):
    for bits in range(1, modulus - 1):
        assert_uniform(rows_of(modulus, bits).targets, bits + 1)


@pytest.mark.parametrize("modulus", MODULI)
def test_label_is_the_number_of_ones_modulo_m(modulus):
    batch = rows(modulus)
    np.testing.assert_array_equal(batch.targets, np.sum(batch.inputs == 2, axis=1) % modulus)
    np.testing.assert_array_equal(batch.lengths, np.sum(batch.inputs != 0, axis=1))
    assert set(batch.lengths) == set(BITS)


def test_every_number_of_ones_of_a_class_is_equally_likely():
    batch = rows_of(3, 11)
    ones = np.sum(batch.inputs == 2, axis=1)
    for remainder in range(3):
        assert_uniform((ones[batch.targets == remainder] - remainder) // 3, 4)


def test_ones_fall_anywhere():
    batch = rows_of(3, 8)
    ones = batch.inputs[:, :8] == 2
    expected = ones.mean()
    np.testing.assert_allclose(ones.mean(axis=0), expected, atol=5 * 0.5 / math.sqrt(len(ones)))
    # two ones of four stand in each of the 6 pairs of places alike
    four = rows_of(3, 4).inputs[:, :4] == 2
    assert_uniform(np.unique(four[four.sum(axis=1) == 2], axis=0, return_inverse=True)[1], 6)


def test_modulus_two_asks_what_parity_asks():
    batch = jax.tree.map(lambda x: x[:200], rows(2))
    labels = [Parity().oracle(row[:n].tolist()) for row, n in zip(batch.inputs, batch.lengths, strict=True)]
    assert labels == batch.targets.tolist()


@pytest.mark.parametrize("modulus", [1, 0, -3])
def test_modulus_below_two_is_refused(modulus):
    with pytest.raises(UserError, match=rf"^modulus={modulus} .*at least 2$"):
        ModularCounting(modulus)
