"""Fuzzy in-context recall: motifs, the probe, padding, what is asked, and what it refuses."""

import itertools

import numpy as np
import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.fuzzy_in_context_recall import FuzzyInContextRecall
from tests.helpers import assert_frequent, assert_uniform, draw_rows

TASK = FuzzyInContextRecall()
LENGTH, PAD = 64, 15
TEST = draw_rows(TASK, LENGTH)
TRAIN = draw_rows(TASK, LENGTH, split="train")


def read(batch):
    """Each row's padding and pairs (key, value, place of the key), the last token among them."""
    found = []
    for row, last in zip(batch.inputs.tolist(), batch.targets[:, -1].tolist(), strict=True):
        tokens = [*row, last]
        padding = tokens.count(PAD)
        assert tokens[:padding] == [PAD] * padding
        pairs, i = [], padding
        runs = [tuple(run) for _, run in itertools.groupby(tokens[padding:], lambda token: token < 7)]
        for key, value in zip(runs[::2], runs[1::2], strict=True):
            pairs.append((key, value, i))
            i += len(key) + len(value)
        found.append((padding, pairs))
    return found


READ = {"train": read(TRAIN), "test": read(TEST)}


@pytest.mark.parametrize("split", ["train", "test"])
def test_motifs_are_of_different_tokens_and_a_key_keeps_its_value(split):
    for _, pairs in READ[split]:
        for key, value, _ in pairs:
            assert all(token < 7 for token in key) and all(7 <= token < 15 for token in value)
            assert len(set(key)) == len(key) <= 3 and len(set(value)) == len(value) <= 3
        assert len({(key, value) for key, value, _ in pairs}) == len({key for key, _, _ in pairs})


@pytest.mark.parametrize("split", ["train", "test"])
def test_pairs_are_added_until_few_places_are_left(split):
    for padding, pairs in READ[split]:
        key, value, _ = pairs[-1]
        limit = LENGTH - len(key) - len(value) - 6
        before = [place - padding for _, _, place in pairs[:-1]]
        assert before[-1] < limit
        assert pairs[-1][2] - padding >= limit
        assert padding + sum(len(key) + len(value) for key, value, _ in pairs) == LENGTH + 1


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_last_pair_came_before(split):
    assert all(pairs[-1][:2] in [pair[:2] for pair in pairs[:-1]] for _, pairs in READ[split])


def test_sizes_are_uniform_and_the_tests_keys_the_largest():
    first = {split: [pairs[0] for _, pairs in READ[split]] for split in READ}
    for split, pairs in first.items():
        values = [len(value) for _, value, _ in pairs]
        assert_uniform(np.array(values) - 1, 3)
        assert {len(key) for _, both in READ[split] for key, _, _ in both} == ({1, 2, 3} if split == "train" else {3})
    sizes = [(len(key) - 1) * 3 + len(value) - 1 for key, value, _ in first["train"]]
    assert_uniform(np.array(sizes), 9)
    # all permutations of a size are equally frequent
    numbers = {motif: i for i, motif in enumerate(itertools.permutations(range(7), 3))}
    assert_uniform(np.array([numbers[key] for key, _, _ in first["test"]]), 210)
    pairs_of_values = {motif: i for i, motif in enumerate(itertools.permutations(range(7, 15), 2))}
    assert_uniform(np.array([pairs_of_values[value] for _, value, _ in first["test"] if len(value) == 2]), 56)


def test_the_probe_comes_at_the_first_pair_behind_a_place_drawn_uniformly():
    """Where all pairs have two tokens: 22 of them, which begin at 0, 2, ..., 42; the place is below 44."""
    task = FuzzyInContextRecall(vocabulary=65, key_motif=1, value_motif=1)
    rows = draw_rows(task, 48, size=8192).inputs
    # pairs while fewer than 48 - 2 - 2 tokens are there, and the probe: 46 of 49, of which the last is not an input
    assert np.all((rows == 64).sum(axis=1) == 3)
    keys, probe = rows[:, 3:-1:2], rows[:, -1:]
    hits = keys == probe
    assert hits.shape == (8192, 22)
    slots = np.argmax(hits, axis=1)[hits.sum(axis=1) == 1]
    # place 0 means slot 0, places 2n - 1 and 2n slot n; 43 is as good as 42, behind which the last pair begins
    chosen = np.array([1, *[2] * 20, 3]) / 44
    # one of 32 keys comes by itself before the slot that was chosen, and then nothing is put there
    shares = chosen + (1 - np.cumsum(chosen)) / 32
    assert_frequent(np.bincount(slots, minlength=22), shares / shares.sum())


def test_the_test_asks_for_the_values_of_keys_that_came_before():
    for (_, pairs), row, weights in zip(READ["test"], TEST.targets, TEST.weights, strict=True):
        seen, expected = {}, {}
        for key, value, place in pairs:
            if key in seen:
                # the token after position i - 1 is at i
                expected |= {place + len(key) - 1 + j: token for j, token in enumerate(seen[key])}
            seen[key] = value
        assert {i: int(row[i]) for i in np.flatnonzero(weights)} == expected
        assert not row[weights == 0].any()


def test_training_asks_for_the_next_token_everywhere_padding_included():
    np.testing.assert_array_equal(TRAIN.targets[:, :-1], TRAIN.inputs[:, 1:])
    np.testing.assert_array_equal(TRAIN.weights, 1.0)


def test_the_example_of_the_docstring():
    example = [15] * 4 + [2, 0, 5, 9, 14, 1, 4, 0, 8, 2, 0, 5, 9]
    assert TASK.oracle(example) == [0] * 15 + [9, 14]
    names = TASK.token_names()
    assert [names[token] for token in (6, 7, 14, 15)] == ["k6", "v0", "v7", "pad"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"key_motif": 8}, r"key_motif=8: vocabulary=16 leaves 7 tokens"),
        ({"value_motif": 9}, r"value_motif=9: vocabulary=16 leaves 8 tokens"),
        ({"vocabulary": 1}, r"key_motif=3: vocabulary=1 leaves 0 tokens"),
        ({"key_motif": 0}, r"key_motif=0 must be at least 1"),
    ],
)
def test_motifs_that_the_vocabulary_does_not_allow_are_refused(fields, said):
    with pytest.raises(UserError, match=rf"^{said}[^\n]*$"):
        FuzzyInContextRecall(**fields)


def test_a_length_without_room_for_two_pairs_is_refused():
    TASK.check_length("train.length", (13, 13))
    with pytest.raises(UserError, match=r"^train\.length=\[12, 12\].*13\.\.16384"):
        TASK.check_length("train.length", (12, 12))
