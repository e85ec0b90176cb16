"""Memorization: the map, what is asked, and what it refuses."""

import numpy as np
import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.memorization import Memorization, make_map
from tests.helpers import assert_uniform, draw_rows

TASK = Memorization(vocabulary=32)
ROWS = draw_rows(TASK, 8)


@pytest.mark.parametrize(("vocabulary", "keys"), [(256, 127), (32, 15), (33, 16), (5, 2)])
def test_every_key_has_a_value_of_its_own(vocabulary, keys):
    found = make_map(vocabulary, 12345)
    assert found.size == keys == len(set(found))
    assert keys <= found.min() and found.max() < vocabulary - 1


def test_the_map_is_the_seeds_and_no_order():
    found = make_map(256, 12345)
    assert not np.array_equal(found, np.sort(found))
    assert not np.array_equal(found, make_map(256, 12346))
    assert abs(np.corrcoef(np.arange(127), found)[0, 1]) < 0.4


def test_values_are_asked_at_every_second_position():
    np.testing.assert_array_equal(ROWS.inputs[:, 1::2], 31)
    np.testing.assert_array_equal(ROWS.weights, np.tile([0.0, 1.0], (2048, 4)))
    values = make_map(32, 12345)
    for row, targets in zip(ROWS.inputs[:64], ROWS.targets[:64], strict=True):
        assert targets.tolist() == [0 if i % 2 == 0 else int(values[row[i - 1]]) for i in range(8)]


def test_a_key_has_one_value_whatever_the_runs_seed():
    pairs = set()
    for seed in range(2):
        rows = draw_rows(TASK, 8, seed=seed)
        pairs |= set(zip(rows.inputs[:, ::2].ravel().tolist(), rows.targets[:, 1::2].ravel().tolist(), strict=True))
    assert len(pairs) == 15


def test_keys_are_uniform():
    keys = ROWS.inputs[:, ::2]
    assert_uniform(keys, 15)
    assert_uniform(keys[:, 0] * 15 + keys[:, 1], 225)


def test_names_and_chance():
    names = TASK.token_names()
    assert [names[token] for token in (0, 14, 15, 30, 31)] == ["k0", "k14", "v0", "v15", "value?"]
    assert pytest.approx(1 / 15) == TASK.CHANCE


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"vocabulary": 4}, r"vocabulary=4 must be at least 5"),
        ({"map_seed": -1}, r"map_seed=-1 must be at least 0"),
    ],
)
def test_fields_that_mean_nothing_are_refused(fields, said):
    with pytest.raises(UserError, match=rf"^{said}[^\n]*$"):
        Memorization(**fields)
