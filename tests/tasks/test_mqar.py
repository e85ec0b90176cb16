"""Multi-query associative recall: pairs, second places and their gaps, filling, and what it refuses."""

import itertools

import numpy as np
import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.mqar import MQAR
from tests.helpers import assert_frequent, assert_uniform, draw_rows

TASK = MQAR(vocabulary=40, pairs=2)
ROWS = draw_rows(TASK, 20, size=8192)
KEYS, VALUES = ROWS.inputs[:, 0:4:2], ROWS.inputs[:, 1:4:2]
PLACES = np.stack([np.argmax((ROWS.targets == VALUES[:, i : i + 1]) & (ROWS.weights > 0), axis=1) for i in range(2)], axis=1)


def test_keys_and_values_differ_and_are_uniform():
    for both, choices, first in ((KEYS, 19, 1), (VALUES, 20, 20)):
        numbers = {pair: i for i, pair in enumerate(itertools.permutations(range(choices), 2))}
        assert_uniform(np.array([numbers[tuple(pair)] for pair in (both - first).tolist()]), len(numbers))


def test_each_value_is_asked_once_where_its_key_comes_back():
    assert np.all(ROWS.weights.sum(axis=1) == 2)
    assert not ROWS.weights[:, :4].any() and not ROWS.weights[:, 1::2].any()
    for row, targets, weights in zip(ROWS.inputs[:256].tolist(), ROWS.targets, ROWS.weights, strict=False):
        values = {row[0]: row[1], row[2]: row[3]}
        asked = np.flatnonzero(weights)
        assert sorted(row[i] for i in asked) == sorted(values)
        assert all(targets[i] == values[row[i]] for i in asked)
        assert not targets[weights == 0].any()


def gap_shares(power):
    """Ordered pairs of different gaps of 8, the second drawn without the first."""
    p = np.arange(1, 9.0) ** (power - 1)
    p /= p.sum()
    return {(i, j): p[i] * p[j] / (1 - p[i]) for i, j in itertools.permutations(range(8), 2)}


@pytest.mark.parametrize("power", [0.01, 1.0])
def test_gaps_are_drawn_one_after_the_other_by_the_power_law(power):
    places = PLACES
    if power != 0.01:
        rows = draw_rows(MQAR(vocabulary=40, pairs=2, power=power), 20, size=8192)
        places = np.stack([np.argmax(rows.targets == rows.inputs[:, i : i + 1], axis=1) for i in (1, 3)], axis=1)
    gaps = (places - 4) // 2
    shares = gap_shares(power)
    assert sum(shares.values()) == pytest.approx(1.0)
    counts = [np.sum((gaps[:, 0] == i) & (gaps[:, 1] == j)) for i, j in shares]
    assert_frequent(np.array(counts), list(shares.values()))


def test_all_other_places_hold_any_token():
    filled = np.ones(ROWS.inputs.shape, bool)
    filled[:, :4] = False
    np.put_along_axis(filled, PLACES, False, axis=1)
    assert_uniform(ROWS.inputs[filled], 40)


def test_without_random_tokens_all_other_places_hold_zero():
    batch = draw_rows(MQAR(vocabulary=40, pairs=2, random_fill=False), 20)
    rest = batch.inputs[:, 4:]
    np.testing.assert_array_equal((rest != 0), batch.weights[:, 4:] > 0)


def test_the_originals_size_fits():
    batch = draw_rows(MQAR(pairs=16), 64, size=4)
    assert batch.inputs.shape == (4, 64)
    # 64 positions are just enough for 16 pairs and their questions
    assert np.all(batch.weights.sum(axis=1) == 16)
    assert all(len(set(row)) == 16 for row in batch.inputs[:, 0:32:2])
    assert MQAR().vocab_size == 8192 and pytest.approx(1 / 4096) == MQAR().CHANCE


def test_the_example_of_the_docstring():
    task = MQAR(vocabulary=12, pairs=2)
    labels = task.oracle([2, 8, 4, 7, 4, 9, 0, 3, 2, 2, 11, 5])
    assert (labels[4], labels[8]) == (7, 8)
    assert labels[:4] == [0] * 4


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pairs": 0}, r"pairs=0 must be at least 1"),
        ({"vocabulary": 17, "pairs": 8}, r"vocabulary=17 must be at least 18 for pairs=8: .*different keys"),
        ({"power": 0.0}, r"power=0\.0 must be a finite number above 0"),
        ({"power": float("inf")}, r"power=inf must be a finite number above 0"),
    ],
)
def test_fields_that_mean_nothing_are_refused(fields, said):
    MQAR(vocabulary=18, pairs=8)
    with pytest.raises(UserError, match=rf"^{said}[^\n]*$"):
        MQAR(**fields)


def test_a_length_that_the_pairs_do_not_fit_is_refused():
    task = MQAR(pairs=16)
    with pytest.raises(UserError, match=r"^train\.length=\[62, 62\].*task\.pairs=16: 4 \* pairs = 64 [^\n]*$"):
        task.check_length("train.length", (62, 62))
