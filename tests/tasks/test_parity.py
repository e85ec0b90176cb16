"""Parity: the docstring's example and the paper's facts (Grazzi et al. 2025, Section 5.1 and App. E.1)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrnn_jax.tasks.parity import Parity, make_counting_batch

TASK = Parity()


make = jax.jit(TASK.batch, static_argnums=(1, 2))


def draw(seed, size, length):
    return jax.tree.map(np.asarray, make(jax.random.key(seed), size, length))


@pytest.fixture(scope="module")
def training_batch():
    return draw(0, 8192, (3, 40))


def test_worked_example_of_the_docstring():
    # the sixth bit is beyond the length: it is the answer's place
    batch = make_counting_batch(jnp.asarray([[0, 1, 1, 0, 1, 1]], jnp.int32), jnp.asarray([5], jnp.int32), modulus=2)
    np.testing.assert_array_equal(batch.inputs, [[1, 2, 2, 1, 2, 0]])
    np.testing.assert_array_equal(batch.targets, [1])
    np.testing.assert_array_equal(batch.weights, [1.0])
    np.testing.assert_array_equal(batch.lengths, [5])
    assert TASK.oracle([1, 2, 2, 1, 2]) == 1


@pytest.mark.parametrize(("tokens", "label"), [([1], 0), ([2], 1), ([1, 1], 0), ([2, 2], 0), ([2, 1, 1], 1), ([2] * 7, 1)])
def test_oracle_by_hand(tokens, label):
    assert TASK.oracle(tokens) == label


def test_vocabulary_is_padding_zero_and_one(training_batch):
    assert TASK.vocab_size == 3
    assert TASK.outputs == 2
    inside = np.arange(40)[None] < training_batch.lengths[:, None]
    assert set(np.unique(training_batch.inputs[inside])) == {1, 2}
    assert set(np.unique(training_batch.inputs[~inside])) == {0}


def test_a_length_counts_the_answers_place(training_batch):
    assert set(training_batch.lengths) == set(range(2, 40))
    assert training_batch.inputs.shape == (8192, 40)
    assert not training_batch.inputs[:, 39].any()
    fixed = draw(1, 4, (40, 40))
    np.testing.assert_array_equal(fixed.lengths, [39] * 4)
    np.testing.assert_array_equal(np.sum(fixed.inputs != 0, axis=1), [39] * 4)


def test_the_shortest_parity_has_one_bit():
    batch = draw(2, 16, (2, 2))
    np.testing.assert_array_equal(batch.lengths, 1)
    np.testing.assert_array_equal(batch.targets, batch.inputs[:, 0] - 1)


def test_bits_are_fair_at_every_position(training_batch):
    for t in range(39):
        bits = training_batch.inputs[training_batch.lengths > t, t] == 2
        assert abs(bits.mean() - 0.5) < 5 * 0.5 / math.sqrt(bits.size), t


def test_neighbouring_bits_are_independent(training_batch):
    pairs = training_batch.inputs[:, :2] == 2
    equal = np.mean(pairs[:, 0] == pairs[:, 1])
    assert abs(equal - 0.5) < 5 * 0.5 / math.sqrt(8192)


def test_classes_are_balanced_at_every_length(training_batch):
    for bits in range(2, 40):
        targets = training_batch.targets[training_batch.lengths == bits]
        assert targets.size > 100
        assert abs(targets.mean() - 0.5) < 5 * 0.5 / math.sqrt(targets.size), bits


def test_target_is_the_parity_of_the_ones(training_batch):
    np.testing.assert_array_equal(training_batch.targets, np.sum(training_batch.inputs == 2, axis=1) % 2)


def test_one_answer_per_sequence(training_batch):
    assert not TASK.per_position
    np.testing.assert_array_equal(training_batch.weights, np.ones(8192, np.float32))


def test_scaled_accuracy_is_the_papers():
    batch = draw(3, 4, (40, 40))
    # three of four right: (0.75 - 0.5) / 0.5
    guess = batch.targets.copy()
    guess[0] = 1 - guess[0]
    logits = jnp.asarray(np.eye(2, dtype=np.float32)[guess])
    total, weight = TASK.metrics(logits, jax.tree.map(jnp.asarray, batch))["scaled_accuracy"]
    assert float(total / weight) == pytest.approx(0.5)


def test_evaluation_covers_the_papers_lengths():
    assert TASK.CHANCE == 0.5
    within = [bucket for bucket in TASK.EVAL_LENGTHS if bucket[1] <= 256]
    assert [n for low, high in within for n in range(low, high + 1)] == list(range(40, 257))
