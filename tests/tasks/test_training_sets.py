"""A fixed training set of a synthetic task: every epoch has each example once, in an order of its own."""

import jax
import numpy as np
import pytest

from lrnn_jax.tasks.base import _multiply_divide, permute
from lrnn_jax.tasks.parity import Parity

KEY = jax.random.key(5)


def read(task, steps, size, key=KEY):
    """The rows of several training batches, as bytes."""
    make = jax.jit(lambda step: task.train_batch(key, step, size, (20, 24)).inputs)
    return [row.tobytes() for step in steps for row in np.asarray(make(step))]


@pytest.mark.parametrize("size", [8, 10])  # 10 does not divide 24: batches cross the ends of epochs
def test_an_epoch_holds_every_example_once_and_the_next_in_another_order(size):
    task = Parity(train_examples=24)
    rows = read(task, range(-(-72 // size)), size)
    epochs = [rows[n * 24 : (n + 1) * 24] for n in range(3)]
    assert len(set(epochs[0])) == 24
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_set_is_the_same_for_every_batch_size_and_another_for_every_key():
    task = Parity(train_examples=24)
    assert set(read(task, range(3), 8)) == set(read(task, range(6), 4))
    assert not set(read(task, range(3), 8)) & set(read(task, range(3), 8, jax.random.key(6)))


def test_without_a_set_examples_never_come_back():
    assert len(set(read(Parity(), range(9), 8))) == 72


def test_its_size_is_that_of_an_epoch():
    assert Parity(train_examples=24).epoch_examples((3, 8)) == 24
    assert Parity().epoch_examples((3, 8)) is None


@pytest.mark.parametrize("step", [0, 1, 999, 2**31 - 1])
@pytest.mark.parametrize(("size", "count"), [(128, 800), (7, 10), (1024, 12_800)])
def test_places_in_long_trainings_are_exact(step, size, count):
    quotient, remainder = jax.jit(_multiply_divide, static_argnums=(1, 2))(np.int32(step), size, count)
    exact = divmod(step * size, count)
    assert int(remainder) == exact[1]
    assert int(quotient) == (exact[0] + 2**31) % 2**32 - 2**31  # the number of an epoch may wrap; it only seeds an order


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 1000])
def test_every_key_has_a_permutation_of_its_own_in_which_every_number_goes_everywhere(count):
    """Of 400 keys, each place is taken by a number equally often: within five standard deviations, and three for few keys."""

    def order(key):
        return jax.vmap(lambda number: permute(key, number, count))(np.arange(count))

    orders = np.asarray(jax.jit(jax.vmap(order))(jax.random.split(KEY, 400)))
    assert np.array_equal(np.sort(orders, axis=1), np.tile(np.arange(count), (400, 1)))
    deviation = np.sqrt(400 / count * (1 - 1 / count))
    for number in (0, count // 2, count - 1):
        seen = np.bincount(orders[:, number], minlength=count)
        assert np.abs(seen - 400 / count).max() <= 5 * deviation + 3
