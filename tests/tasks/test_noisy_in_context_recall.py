"""In-context recall with noise: how much there is, that one pair is left, and what it refuses."""

import numpy as np
import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.noisy_in_context_recall import NoisyInContextRecall
from tests.helpers import assert_frequent, assert_uniform, draw_rows

TASK = NoisyInContextRecall()
ROWS = draw_rows(TASK, 20, size=4096)
PAIRS = ROWS.inputs[:, :-1].reshape(-1, 9, 2)


def test_noise_comes_in_pairs_and_never_last():
    noise = PAIRS >= 16
    np.testing.assert_array_equal(noise[..., 0], noise[..., 1])
    assert np.all(ROWS.inputs[:, -1] < 8)
    assert np.all(PAIRS[~noise[..., 0]][:, 0] < 8)
    values = PAIRS[~noise[..., 0]][:, 1]
    assert values.min() == 8 and values.max() == 15


@pytest.mark.parametrize("noise", [0.2, 0.8])
def test_its_share_is_p_of_all_pairs_but_one(noise):
    inputs = draw_rows(NoisyInContextRecall(noise=noise), 20, size=4096).inputs
    # any of the 9 pairs is the one that is never noise with probability 1/9
    counts = (inputs[:, 0] >= 16).astype(int)
    assert_frequent(np.bincount(counts), [1 - noise * 8 / 9, noise * 8 / 9])
    assert np.all((inputs[:, :-1:2] < 8).any(axis=1))
    # 0 to 8 of the other 8 are
    number = (inputs[:, :-1:2] >= 16).sum(axis=1)
    deviation = np.sqrt(8 * noise * (1 - noise) / 4096)
    assert abs(number.mean() - 8 * noise) < 5 * deviation


def test_noise_is_uniform():
    noise = PAIRS[PAIRS[..., 0] >= 16] - 16
    assert_uniform(noise[:, 0] * 16 + noise[:, 1], 256)


def test_targets_are_the_values_of_keys_that_came_before_noise_left_out():
    for row, targets, weights in zip(ROWS.inputs[:256].tolist(), ROWS.targets, ROWS.weights, strict=False):
        values, expected = {}, {}
        for i in range(0, 19, 2):
            if row[i] in values:
                expected[i] = values[row[i]]
            elif row[i] < 8:
                values[row[i]] = row[i + 1]
        assert 18 in expected
        assert {i: int(targets[i]) for i in np.flatnonzero(weights)} == expected


def test_a_key_keeps_its_value_across_noise():
    for row in PAIRS[:256]:
        pairs = {tuple(pair) for pair in row.tolist() if pair[0] < 8}
        assert len({key for key, _ in pairs}) == len(pairs)


def test_training_asks_for_noise_too():
    train = draw_rows(TASK, 20, size=4096, split="train")
    np.testing.assert_array_equal(train.inputs, ROWS.inputs)
    np.testing.assert_array_equal(train.targets[:, :-1], train.inputs[:, 1:])
    np.testing.assert_array_equal(train.weights, 1.0)


def test_the_example_of_the_docstring():
    assert TASK.oracle([3, 9, 30, 17, 3, 9, 19, 19, 3]) == [0, 0, 0, 0, 9, 0, 0, 0, 9]
    names = TASK.token_names()
    assert [names[token] for token in (7, 8, 16, 31)] == ["k7", "v0", "n0", "n15"]
    assert pytest.approx(1 / 8) == TASK.CHANCE


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"noise": 1.0}, r"noise=1\.0 must be in \[0, 1\)"),
        ({"noise": -0.1}, r"noise=-0\.1 must be in \[0, 1\)"),
        ({"noise_vocabulary": 0}, r"noise_vocabulary=0 must be at least 1"),
        ({"vocabulary": 19}, r"vocabulary=19 must be at least 20: .*noise_vocabulary=16"),
    ],
)
def test_fields_that_mean_nothing_are_refused(fields, said):
    with pytest.raises(UserError, match=rf"^{said}[^\n]*$"):
        NoisyInContextRecall(**fields)
