"""Selective copying: where blanks stand, what is asked, and what it refuses."""

import math

import numpy as np
import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.selective_copying import SelectiveCopying
from tests.helpers import assert_frequent, assert_uniform, draw_rows

BLANK, COPY = 14, 15
TASK = SelectiveCopying(copies=4)
ROWS = draw_rows(TASK, 20, size=4096)


def test_targets_are_the_content_in_order_at_the_end():
    for row, targets, weights in zip(ROWS.inputs[:64].tolist(), ROWS.targets[:64], ROWS.weights[:64], strict=True):
        end = row.index(COPY)
        content = [token for token in row[:end] if token != BLANK]
        assert len(content) == 4
        assert end == 20 - 4 - 1
        assert row[end + 1 :] == [BLANK] * 4
        assert targets.tolist() == [0] * 16 + content
        assert weights.tolist() == [0.0] * 16 + [1.0] * 4


def test_content_is_uniform():
    assert_uniform(ROWS.targets[:, -4:], BLANK)
    assert_uniform(ROWS.targets[:, -4] * BLANK + ROWS.targets[:, -3], BLANK**2)


def test_each_blank_stands_before_a_content_token_drawn_uniformly():
    """11 blanks before 4 tokens: before each as many as 11 draws of 4 hit it, so none after the last."""
    content = ROWS.inputs[:, :15] != BLANK
    assert content[:, -1].all()
    assert np.all(content.sum(axis=1) == 4)
    places = np.nonzero(content)[1].reshape(-1, 4)
    before = np.diff(places, axis=1, prepend=-1) - 1
    assert np.all(before.sum(axis=1) == 11)
    shares = [math.comb(11, n) * 0.25**n * 0.75 ** (11 - n) for n in range(12)]
    for column in before.T:
        counts = np.bincount(column, minlength=12)
        assert_frequent(np.append(counts[:7], counts[7:].sum()), [*shares[:7], sum(shares[7:])])


def test_without_room_for_blanks_there_are_none():
    batch = draw_rows(TASK, 9, size=64)
    assert np.all(batch.inputs[:, :4] < BLANK) and np.all(batch.inputs[:, 4] == COPY)


def test_the_example_of_the_docstring():
    task = SelectiveCopying(copies=3)
    example = [BLANK, 5, BLANK, BLANK, 0, 5, COPY, BLANK, BLANK, BLANK]
    assert task.oracle(example) == [0] * 7 + [5, 0, 5]
    names = task.token_names()
    assert " ".join(names[token] for token in example[:7]) == "blank 5 blank blank 0 5 copy"


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"vocabulary": 3}, r"vocabulary=3 must be at least 4"), ({"copies": 0}, r"copies=0 must be at least 1")],
)
def test_fields_that_mean_nothing_are_refused(fields, said):
    with pytest.raises(UserError, match=rf"^{said}[^\n]*$"):
        SelectiveCopying(**fields)


def test_a_length_that_the_copies_do_not_fit_is_refused():
    task = SelectiveCopying(copies=96)
    task.check_length("train.length", (256, 256))
    with pytest.raises(UserError, match=r"^train\.length=\[192, 192\].*task\.copies=96: 2 \* copies \+ 1 = 193 [^\n]*$"):
        task.check_length("train.length", (192, 192))
