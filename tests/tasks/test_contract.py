"""What every registered synthetic task promises (`lrnn_jax.tasks.base.Task`)."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.registry import TASKS, load_task
from lrnn_jax.tasks.base import FileTask
from lrnn_jax.tasks.fixed_length import FixedLengthTask
from lrnn_jax.tasks.regression import RegressionTask

LENGTH = (5, 9)
# Fields that make a task small: 4096 examples have logits of every class.
SMALL_TASKS = {"memorization": {"vocabulary": 32}, "mqar": {"vocabulary": 40}, "selective_copying": {"copies": 4}}


# Tasks whose answers are classes; those with numbers are in test_regression.py.
CLASSES = [name for name in sorted(TASKS) if not issubclass(load_task(name), (FileTask, RegressionTask))]


@pytest.fixture(params=CLASSES, scope="module")
def task(request):
    return load_task(request.param)(**SMALL_TASKS.get(request.param, {}))


@pytest.fixture
def lengths_vary(task):
    if isinstance(task, FixedLengthTask):
        pytest.skip("its sequences have one length")


def allow(task, shortest, longest):
    """Lengths that the task can make: both ends the same even number where it has one length."""
    even = longest + longest % 2
    return (even, even) if isinstance(task, FixedLengthTask) else (shortest, longest)


def short(task):
    return allow(task, task.MIN_LENGTH, task.MIN_LENGTH + 12) if isinstance(task, FixedLengthTask) else LENGTH


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def make(task, seed, size, length):
    return task.batch(jax.random.key(seed), size, length, "test")


@functools.partial(jax.jit, static_argnums=0)
def score(task, logits, batch):
    return {"loss": task.loss(logits, batch), **task.metrics(logits, batch)}


def draw(task, seed, size=32, length=None):
    """A batch as NumPy arrays; few sizes and lengths, since each compiles a program."""
    return jax.tree.map(np.asarray, make(task, seed, size, length or short(task)))


def large(task, seed):
    return draw(task, seed, 4096, task.EVAL_LENGTHS[0])


def rate(sums):
    total, weight = sums
    return float(total / weight)


def bound(p, n):
    """Five standard deviations of a share p measured on n examples."""
    return 5.0 * math.sqrt(p * (1.0 - p) / n)


def assert_same(batch, other):
    jax.tree.map(np.testing.assert_array_equal, batch, other)


def random_logits(task, batch, seed=1):
    return np.random.default_rng(seed).normal(size=(*batch.targets.shape, task.outputs)).astype(np.float32)


def one_hot(task, labels):
    return np.eye(task.outputs, dtype=np.float32)[labels]


def oracle_labels(task, batch):
    """The oracle's labels, shaped as the targets; -1 where it says nothing (padding of dense tasks)."""
    labels = np.full(batch.targets.shape, -1)
    for i, length in enumerate(batch.lengths):
        here = (i, slice(length)) if task.per_position else i
        labels[here] = task.oracle(batch.inputs[i, :length].tolist())
    return labels


def test_same_key_same_batch_other_key_another(task):
    batch = draw(task, 0)
    assert_same(batch, draw(task, 0))
    other = draw(task, 1)
    for name in ("inputs", "targets") if isinstance(task, FixedLengthTask) else ("inputs", "targets", "lengths"):
        assert not np.array_equal(getattr(batch, name), getattr(other, name)), name


def test_examples_of_one_batch_differ(task):
    assert len({row.tobytes() for row in large(task, 0).inputs[:64]}) > 48


def test_jit_equals_eager(task):
    assert_same(draw(task, 3), task.batch(jax.random.key(3), 32, short(task), "test"))


def test_vmap_over_keys_equals_one_by_one(task):
    together = jax.jit(jax.vmap(lambda seed: task.batch(jax.random.key(seed), 32, short(task), "test")))(jnp.arange(3))
    for i in range(3):
        assert_same(jax.tree.map(lambda x, i=i: x[i], together), draw(task, i))


def test_shapes_and_dtypes(task):
    batch = draw(task, 0)
    steps = task.example_spec(short(task)[1]).steps
    assert batch.inputs.shape[:2] == (32, steps)
    assert batch.inputs.dtype == (np.int32 if task.vocab_size else np.float32)
    assert batch.targets.shape == batch.weights.shape == ((32, steps) if task.per_position else (32,))
    assert batch.targets.dtype == np.int32
    assert batch.weights.dtype == np.float32
    assert (batch.lengths.shape, batch.lengths.dtype) == ((32,), np.int32)


def test_tokens_and_targets_use_their_whole_range(task):
    batch = large(task, 0)
    classes = set(np.unique(batch.targets))
    # some tokens of a task whose outputs are its tokens are never an answer
    assert classes <= set(range(task.outputs)) if isinstance(task, FixedLengthTask) else classes == set(range(task.outputs))
    if task.vocab_size:
        # lengths that differ, so that there is padding
        assert (draw(task, 0).inputs.min(), batch.inputs.max()) == (0, task.vocab_size - 1)
        assert len(set(task.token_names())) == len(task.token_names()) == task.vocab_size


@pytest.mark.parametrize("which", ["short", "evaluation"])
def test_labels_equal_the_oracle(task, which):
    lengths = allow(task, task.MIN_LENGTH, task.MIN_LENGTH + (0 if isinstance(task, FixedLengthTask) else 12))
    batch = draw(task, 5, 320, lengths) if which == "short" else large(task, 5)
    batch = jax.tree.map(lambda x: x[:320], batch)
    asked = batch.weights > 0
    assert np.sum(asked) >= 300
    np.testing.assert_array_equal(batch.targets[asked], oracle_labels(task, batch)[asked])


def test_lengths_are_uniform_over_the_whole_range(task, lengths_vary):
    shortest, longest = task.MIN_LENGTH + 1, task.MIN_LENGTH + 8
    lengths = draw(task, 6, 4096, (shortest, longest)).lengths
    # a length may count the answer's place, which holds padding, and one padding after it
    place = longest - lengths.max()
    assert place in (0, 1, 2)
    expected = np.arange(longest, shortest - task.LENGTH_STEP, -task.LENGTH_STEP)[::-1] - place
    values, counts = np.unique(lengths, return_counts=True)
    np.testing.assert_array_equal(values, expected)
    share = 1 / expected.size
    np.testing.assert_allclose(counts / 4096, share, atol=bound(share, 4096))


def test_one_length_asked_one_length_made(task):
    shortest = draw(task, 7, 32, allow(task, task.MIN_LENGTH, task.MIN_LENGTH))
    assert len(set(shortest.lengths)) == 1
    assert shortest.lengths[0] >= 1


def test_padding_is_zero_and_weighs_nothing(task, lengths_vary):
    batch = draw(task, 8)
    outside = np.arange(batch.inputs.shape[1])[None] >= batch.lengths[:, None]
    assert outside.any()
    assert not batch.inputs[outside].any()
    if task.per_position:
        assert not batch.weights[outside].any()


def test_chance_is_the_share_of_every_class(task):
    batch = large(task, 9)
    targets = batch.targets[batch.weights > 0]
    shares = np.bincount(targets, minlength=task.outputs) / targets.size
    assert shares.max() == pytest.approx(task.CHANCE, abs=bound(task.CHANCE, 4096))
    if task.outputs * task.CHANCE == pytest.approx(1.0):
        np.testing.assert_allclose(shares, task.CHANCE, atol=bound(task.CHANCE, 4096))


def test_the_oracle_reaches_the_ceiling(task):
    assert 0.0 < task.CHANCE < task.CEILING <= 1.0
    batch = draw(task, 10)
    sums = score(task, 50.0 * one_hot(task, oracle_labels(task, batch)), batch)
    assert rate(sums["accuracy"]) == pytest.approx(task.CEILING, abs=1e-6)


def test_eval_lengths_are_ordered_disjoint_and_allowed(task):
    edges = [edge for bucket in task.EVAL_LENGTHS for edge in bucket]
    assert all(low <= high for low, high in task.EVAL_LENGTHS)
    assert all(high < low for high, low in zip(edges[1::2], edges[2::2], strict=False))
    assert edges[0] >= task.MIN_LENGTH
    assert edges[-1] <= task.MAX_LENGTH
    for bucket in task.EVAL_LENGTHS:
        task.check_length("eval.lengths", bucket)


def test_check_length_accepts_the_ends(task):
    low, high = task.MIN_LENGTH + task.MIN_LENGTH % task.LENGTH_STEP, task.MAX_LENGTH
    for length in [(low, low), (high, high)] if isinstance(task, FixedLengthTask) else [(low, high), (low, low)]:
        task.check_length("train.length", length)


@pytest.mark.parametrize("wrong", ["too short", "too long", "reversed"])
def test_check_length_refuses_and_names_the_field(task, wrong):
    low, high = task.MIN_LENGTH, task.MAX_LENGTH
    length = {"too short": (low - 1, high), "too long": (low, high + 1), "reversed": (low + 1, low)}[wrong]
    with pytest.raises(UserError, match=r"eval\.lengths") as caught:
        task.check_length("eval.lengths", length)
    message = str(caught.value)
    assert "\n" not in message
    assert str(list(length)) in message
    assert f"{low}..{high}" in message


def test_loss_and_metrics_are_sums_that_add_up(task):
    batch = draw(task, 12)
    logits = random_logits(task, batch)

    def sums(part):
        return score(task, logits[part], jax.tree.map(lambda x: x[part], batch))

    whole, first, second = sums(slice(None)), sums(slice(0, 7)), sums(slice(7, None))
    assert set(whole) >= {"loss", "accuracy", "scaled_accuracy"}
    jax.tree.map(lambda w, a, b: np.testing.assert_allclose(w, a + b, rtol=1e-5, atol=1e-5), whole, first, second)
    for name, (total, weight) in whole.items():
        # a task's own metrics may count something else than targets, such as rows
        counted = np.sum(weight)
        assert counted == np.sum(batch.weights) or (name not in ("loss", "accuracy", "scaled_accuracy") and counted > 0)
        assert total.shape == weight.shape == ((task.outputs,) if name == "macro_accuracy" else ())
        assert total.dtype == weight.dtype == jnp.float32


def test_curves_have_their_own_names_and_one_value_per_position(task):
    batch = draw(task, 18)
    logits = random_logits(task, batch)
    curves = jax.jit(task.curves)(logits, batch)
    assert not set(curves) & set(score(task, logits, batch))
    for total, weight in curves.values():
        assert total.shape == weight.shape == (task.example_spec(short(task)[1]).steps,)
        assert np.all(total <= weight)


def test_loss_is_the_cross_entropy_in_nats(task):
    batch = draw(task, 13)
    logits = random_logits(task, batch)
    z = logits.astype(np.float64)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    right = np.take_along_axis(log_p, batch.targets[..., None], -1)[..., 0]
    total, _ = score(task, logits, batch)["loss"]
    assert float(total) == pytest.approx(-np.sum(right * batch.weights), rel=1e-5)


def test_weight_zero_counts_nothing(task):
    batch = draw(task, 14)
    logits = random_logits(task, batch)
    counted = np.reshape(np.arange(32) < 12, (32, *[1] * (batch.weights.ndim - 1)))
    muted = batch._replace(weights=np.where(counted, batch.weights, np.float32(0)))
    other = np.where(counted[..., None], logits, -logits)
    first, second = score(task, logits, muted), score(task, other, muted)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert first["loss"][1] == batch.weights[:12].sum()


def test_perfect_logits_score_one(task):
    batch = draw(task, 15)
    sums = score(task, 60.0 * one_hot(task, batch.targets), batch)
    assert rate(sums["accuracy"]) == pytest.approx(1.0, abs=1e-6)
    assert rate(sums["scaled_accuracy"]) == pytest.approx(1.0, abs=1e-6)
    assert rate(sums["loss"]) < 1e-4


def test_guessing_scores_about_zero(task):
    batch = large(task, 16)
    # a guess is among the classes that are an answer at all
    never = np.setdiff1d(np.arange(task.outputs), batch.targets[batch.weights > 0])
    logits = random_logits(task, batch) - 60.0 * one_hot(task, never).sum(0)
    scaled = rate(score(task, logits, batch)["scaled_accuracy"])
    assert abs(scaled) < bound(task.CHANCE, 4096) / (1.0 - task.CHANCE)


def test_always_wrong_scores_below_zero(task):
    batch = draw(task, 17)
    scaled = rate(score(task, -60.0 * one_hot(task, batch.targets), batch)["scaled_accuracy"])
    assert scaled == pytest.approx(-task.CHANCE / (1.0 - task.CHANCE), abs=1e-5)


def test_a_task_is_frozen_and_hashable(task):
    again = dataclasses.replace(task)
    assert (task, hash(task)) == (again, hash(again))
    assert task is not again
    field = next((f.name for f in dataclasses.fields(task)), "anything")
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(task, field, 1)


def test_a_task_with_other_fields_is_another_task(task):
    for field in dataclasses.fields(task):
        value = getattr(task, field.name)
        if isinstance(value, int) and not isinstance(value, bool):
            assert dataclasses.replace(task, **{field.name: value + 1}) != task


def test_the_docstring_names_its_source(task):
    assert "Source:" in type(task).__doc__


@pytest.mark.parametrize(
    ("name", "fields", "tokens", "text"),
    [
        ("parity", {}, [2, 1, 2, 0], "1 0 1 pad"),
        ("modular_counting", {"modulus": 3}, [1, 2], "0 1"),
        # the examples of the tasks' docstrings
        ("modular_arithmetic", {}, [7, 2, 8, 3, 7, 4], "2 - 3 * 2 ="),
        ("modular_arithmetic_brackets", {}, [9, 3, 7, 9, 7, 4, 10, 10, 11], "( 2 - ( - 3 ) ) ="),
        ("word_problem", {"group": "S3", "bos": True}, [7, 1, 2, 6], "bos 012 021 210"),
        ("word_problem", {"group": "Z60", "tokens_per_transition": 2}, [60, 61], "59 wait"),
    ],
)
def test_tokens_have_names_that_people_read(name, fields, tokens, text):
    names = load_task(name)(**fields).token_names()
    assert " ".join(names[token] for token in tokens) == text
