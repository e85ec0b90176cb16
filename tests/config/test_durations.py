"""Durations: one number, one unit, rounded up to whole steps."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrnn_jax.config.durations import UNITS, count_steps
from lrnn_jax.errors import UserError

whole = st.integers(min_value=1, max_value=10_000)


def steps(duration, **known):
    return count_steps("train.duration", duration, **{"batch_size": 4, "tokens_per_example": 10, **known})


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        ("0 steps", 0),
        ("1 steps", 1),
        ("3000 steps", 3000),
        ("3_000 steps", 3000),
        ("3e3 steps", 3000),
        ("  7steps ", 7),
        ("2.5 steps", 3),
        ("8 examples", 2),
        ("9 examples", 3),
        ("80 tokens", 2),
        ("81 tokens", 3),
        ("1e6 tokens", 25_000),
    ],
)
def test_worked_examples(duration, expected):
    assert steps(duration) == expected


@pytest.mark.parametrize(
    ("duration", "expected"), [("10%", 3), ("10 %", 3), ("0%", 0), ("100%", 30), ("1%", 1), ("33.4%", 11), ("200%", 60)]
)
def test_percentages_of_the_training(duration, expected):
    assert steps(duration, total_steps=30) == expected


@pytest.mark.parametrize(("duration", "expected"), [("1 epochs", 25), ("2 epochs", 50), ("0.5 epochs", 13)])
def test_epochs_of_a_data_set(duration, expected):
    assert steps(duration, examples_per_epoch=100) == expected


@given(n=st.integers(0, 10**9))
def test_steps_are_themselves(n):
    assert steps(f"{n} steps") == n


@given(n=st.integers(0, 10**7), batch_size=whole)
def test_examples_are_rounded_up_exactly(n, batch_size):
    assert steps(f"{n} examples", batch_size=batch_size) == math.ceil(Fraction(n, batch_size))


@given(n=st.integers(0, 10**7), batch_size=whole, tokens=whole)
def test_tokens_are_rounded_up_exactly(n, batch_size, tokens):
    expected = math.ceil(Fraction(n, batch_size * tokens))
    assert steps(f"{n} tokens", batch_size=batch_size, tokens_per_example=tokens) == expected


@given(n=st.integers(1, 100), batch_size=whole, examples=whole)
def test_epochs_are_rounded_up_exactly(n, batch_size, examples):
    expected = math.ceil(Fraction(n * examples, batch_size))
    assert steps(f"{n} epochs", batch_size=batch_size, examples_per_epoch=examples) == expected


def test_whole_numbers_of_steps_are_never_rounded_up():
    # the cases where floating point lands just above the whole number
    wrong = [(b, k) for b in range(1, 200) for k in range(1, 32) if steps(f"{k * b} examples", batch_size=b) != k]
    wrong += [(total, "100%") for total in range(1, 2000) if steps("100%", total_steps=total) != total]
    wrong += [(total, "10%") for total in range(10, 2000, 10) if steps("10%", total_steps=total) != total // 10]
    assert not wrong, f"{len(wrong)} wrong, such as {wrong[:3]}"


@given(percent=st.integers(0, 100), total=st.integers(1, 10**6))
def test_percentages_are_rounded_up_exactly(percent, total):
    assert steps(f"{percent}%", total_steps=total) == math.ceil(Fraction(percent * total, 100))


@given(tenths=st.integers(0, 1000), total=st.integers(1, 10**6))
def test_decimal_percentages_are_rounded_up_exactly(tenths, total):
    assert steps(f"{tenths / 10}%", total_steps=total) == math.ceil(Fraction(tenths * total, 1000))


@given(text=st.text(max_size=12))
def test_any_text_is_a_number_of_steps_or_a_user_error(text):
    try:
        assert steps(text, total_steps=10, examples_per_epoch=10) >= 0
    except UserError as error:
        assert "train.duration" in str(error)


def refusal(duration, **known):
    with pytest.raises(UserError) as caught:
        steps(duration, **known)
    message = str(caught.value)
    assert "\n" not in message
    assert f"train.duration={duration!r}" in message
    return message


@pytest.mark.parametrize(
    "duration", ["", "3000", "steps", "-3 steps", "three steps", "1 steps 2 tokens", "3 000 steps", "1.5.2 steps"]
)
def test_not_a_number_and_a_unit_is_refused(duration):
    message = refusal(duration)
    assert all(unit in message for unit in UNITS)


@pytest.mark.parametrize(
    ("duration", "nearest"), [("3 step", "steps"), ("3 Steps", "steps"), ("3 exmaples", "examples"), ("3 token", "tokens")]
)
def test_unknown_unit_names_the_nearest(duration, nearest):
    assert f"did you mean {nearest!r}" in refusal(duration)


def test_unit_near_nothing_lists_all():
    message = refusal("3 fortnights")
    assert "did you mean" not in message
    assert "steps, examples, tokens, epochs" in message


def test_epochs_without_a_data_set_are_refused():
    assert "no epochs" in refusal("2 epochs")


def test_percentage_of_nothing_is_refused():
    assert "percentage" in refusal("10%")


def test_a_number_beyond_all_bounds_is_refused():
    refusal("1e999 steps")
