"""What the tasks of one length share: lengths, fixed sets, and accuracy by class."""

import jax
import numpy as np
import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.registry import TASKS, load_task
from lrnn_jax.tasks.base import Batch
from lrnn_jax.tasks.compression import Compression
from lrnn_jax.tasks.fixed_length import FixedLengthTask
from lrnn_jax.tasks.in_context_recall import InContextRecall
from tests.helpers import draw_rows, to_numpy

NAMES = [name for name in sorted(TASKS) if issubclass(load_task(name), FixedLengthTask)]


def test_there_are_seven():
    assert len(NAMES) == 7


@pytest.mark.parametrize("name", NAMES)
def test_ranges_of_lengths_are_refused_in_one_line(name):
    task = load_task(name)()
    (length, _), *_ = task.EVAL_LENGTHS
    task.check_length("train.length", (length, length))
    with pytest.raises(UserError, match=rf"^train\.length=\[{length}, {length + 2}\].*one length[^\n]*$"):
        task.check_length("train.length", (length, length + 2))


@pytest.mark.parametrize("name", ["in_context_recall", "noisy_in_context_recall", "memorization", "mqar"])
def test_odd_lengths_are_refused_where_there_are_pairs(name):
    with pytest.raises(UserError, match=r"^eval\.lengths=\[65, 65\].*pairs, so lengths must be even$"):
        load_task(name)().check_length("eval.lengths", (65, 65))


def test_a_fixed_set_comes_back_every_epoch_and_is_the_seeds():
    task = InContextRecall(train_examples=24)
    read = jax.jit(lambda key, step: task.train_batch(key, step, 8, (8, 8)))

    def epoch(seed, number):
        batches = [to_numpy(read(jax.random.key(seed), np.int32(3 * number + i))) for i in range(3)]
        return sorted(row.tobytes() for batch in batches for row in np.concatenate([batch.inputs, batch.targets], axis=1))

    first = epoch(0, 0)
    assert len(set(first)) == 24
    assert first == epoch(0, 1)
    assert not set(first) & set(epoch(1, 0))


def test_what_is_evaluated_does_not_depend_on_the_size_of_a_batch():
    task = InContextRecall()
    (evaluation_set,) = task.evaluation_sets([[8, 8]])
    key = jax.random.key(3)
    one = jax.jit(lambda i: task.evaluation_batch(key, i, 4, evaluation_set, "test").inputs)
    both = jax.jit(lambda i: task.evaluation_batch(key, i, 8, evaluation_set, "test").inputs)
    np.testing.assert_array_equal(np.concatenate([one(0), one(1)]), both(0))


def test_macro_accuracy_is_the_mean_over_the_classes_that_are_targets():
    """Class 0: 3 of 4; class 1: 0 of 1; class 3: 1 of 2, and one that is not asked. Class 2 is only answered, and left out."""
    task = Compression(vocabulary=5)
    targets = np.array([[0, 0, 0, 0], [1, 3, 3, 3]], np.int32)
    answers = np.array([[0, 0, 0, 2], [2, 3, 2, 3]], np.int32)
    weights = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], np.float32)
    batch = Batch(targets, targets, weights, np.full(2, 4, np.int32))
    total, weight = jax.jit(task.metrics)(np.eye(5, dtype=np.float32)[answers], batch)["macro_accuracy"]
    np.testing.assert_array_equal(total, [3, 0, 0, 1, 0])
    np.testing.assert_array_equal(weight, [4, 1, 0, 2, 0])


@pytest.mark.parametrize("name", ["compression", "memorization", "mqar", "selective_copying"])
def test_all_splits_are_alike_where_they_do_not_differ(name):
    task = load_task(name)()
    assert not task.SPLITS_DIFFER
    (length, _), *_ = task.EVAL_LENGTHS
    rows = {split: draw_rows(task, length, size=8, split=split) for split in ("train", "test")}
    jax.tree.map(np.testing.assert_array_equal, rows["train"], rows["test"])
