"""Compression: the docstring's example, its tokens, and what it refuses."""

import numpy as np
import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.compression import Compression
from tests.helpers import assert_uniform, draw_rows


def test_every_token_is_its_own_target_and_the_last_ends_the_sequence():
    batch = draw_rows(Compression(), 32)
    assert batch.inputs.shape == (2048, 32)
    np.testing.assert_array_equal(batch.targets, batch.inputs)
    np.testing.assert_array_equal(batch.weights, 1.0)
    np.testing.assert_array_equal(batch.inputs[:, -1], 15)


@pytest.mark.parametrize("vocabulary", [3, 16])
def test_tokens_are_uniform_and_never_the_last_one(vocabulary):
    inputs = draw_rows(Compression(vocabulary=vocabulary), 32).inputs[:, :-1]
    assert_uniform(inputs, vocabulary - 1)
    assert_uniform(inputs[:, 0] * (vocabulary - 1) + inputs[:, 1], (vocabulary - 1) ** 2)


def test_the_example_of_the_docstring():
    assert Compression().oracle([3, 0, 14, 3, 15]) == [3, 0, 14, 3, 15]
    assert Compression().token_names()[-2:] == ["14", "compress"]


def test_its_head_is_the_auto_encoder_and_chance_that_of_the_tokens():
    task = Compression(vocabulary=32)
    assert task.HEADS == ("autoencoder",) and task.per_position
    assert pytest.approx(1 / 31) == task.CHANCE


def test_a_vocabulary_without_a_choice_is_refused():
    with pytest.raises(UserError, match=r"^vocabulary=2 must be at least 3: [^\n]*$"):
        Compression(vocabulary=2)
