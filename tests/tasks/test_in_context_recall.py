"""In-context recall: keys and values, what training and test ask, the last pair, and what it refuses."""

import numpy as np
import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.in_context_recall import InContextRecall
from tests.helpers import assert_frequent, assert_uniform, draw_rows

TASK = InContextRecall()
TEST = draw_rows(TASK, 20, size=4096)
TRAIN = draw_rows(TASK, 20, size=4096, split="train")


def test_a_length_counts_the_token_that_the_model_does_not_see():
    assert TASK.example_spec(128).steps == 127
    assert TEST.inputs.shape == TEST.targets.shape == (4096, 19)


def test_test_and_training_show_the_same_inputs():
    np.testing.assert_array_equal(TEST.inputs, TRAIN.inputs)
    assert InContextRecall.SPLITS_DIFFER
    validation = draw_rows(TASK, 20, size=4096, split="validation")
    np.testing.assert_array_equal(validation.weights, TEST.weights)


def test_training_asks_for_the_next_token_everywhere():
    np.testing.assert_array_equal(TRAIN.targets[:, :-1], TRAIN.inputs[:, 1:])
    np.testing.assert_array_equal(TRAIN.weights, 1.0)
    np.testing.assert_array_equal(TRAIN.targets[:, -1], TEST.targets[:, -1])


def test_the_test_asks_for_the_values_of_keys_that_came_before():
    for row, targets, weights in zip(TEST.inputs[:256].tolist(), TEST.targets, TEST.weights, strict=False):
        values = {}
        expected = {}
        for i in range(0, 18, 2):
            key, value = row[i : i + 2]
            assert key < 8 <= value
            if key in values:
                assert values[key] == value
                expected[i] = value
            values[key] = value
        expected[18] = values[row[18]]
        assert {i: int(targets[i]) for i in np.flatnonzero(weights)} == expected
        assert not targets[weights == 0].any()


def test_keys_and_values_are_uniform_and_independent():
    keys, values = TEST.inputs[:, :-1:2], TEST.inputs[:, 1::2] - 8
    assert_uniform(keys, 8)
    assert_uniform(keys[:, 0] * 8 + keys[:, 1], 64)
    assert_uniform(keys[:, 0] * 8 + values[:, 0], 64)
    differ = keys[:, 0] != keys[:, 1]
    assert_uniform((values[:, 0] * 8 + values[:, 1])[differ], 64)


def test_the_last_key_is_uniform_among_the_different_ones():
    """Not among the pairs: a key that came twice is asked as often as one that came once."""
    rows = draw_rows(TASK, 8, size=8192).inputs
    keys, last = rows[:, :-1:2], rows[:, -1]
    assert keys.shape == (8192, 3)
    twice = (keys[:, 0] == keys[:, 1]) & (keys[:, 0] != keys[:, 2])
    hits = last[twice] == keys[twice, 2]
    assert_frequent(np.bincount(hits.astype(int)), [0.5, 0.5])
    assert np.all((last[:, None] == keys).any(axis=1))


def test_an_odd_vocabulary_has_one_value_more():
    batch = draw_rows(InContextRecall(vocabulary=5), 20)
    assert_uniform(batch.inputs[:, ::2], 2)
    assert set(np.unique(batch.inputs[:, 1::2])) == {2, 3, 4}
    assert pytest.approx(1 / 3) == InContextRecall(vocabulary=5).CHANCE


def test_the_example_of_the_docstring():
    assert TASK.oracle([3, 9, 0, 15, 3, 9, 3, 9, 0]) == [0, 0, 0, 0, 9, 0, 9, 0, 15]
    names = TASK.token_names()
    assert [names[token] for token in (3, 9, 0, 15)] == ["k3", "v1", "k0", "v7"]


def test_a_vocabulary_without_a_choice_is_refused():
    with pytest.raises(UserError, match=r"^vocabulary=3 must be at least 4: [^\n]*$"):
        InContextRecall(vocabulary=3)
