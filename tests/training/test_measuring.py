"""Evaluation sets: streamed, the last batch filled up with weight 0, macro averages, numbers in place of classes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrnn_jax.cli.text import format_metrics
from lrnn_jax.config.fields import base_config, layer_config, task_config
from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch, EvaluationSet, Example, SyntheticTask
from lrnn_jax.training import program as program_module
from lrnn_jax.training.measuring import average, member_means
from lrnn_jax.training.program import make_program


@dataclasses.dataclass(frozen=True)
class Ones(SyntheticTask):
    """Are there more ones than zeros? Each example has a key of its own."""

    EVAL_LENGTHS = ((4, 8),)
    METRICS = {"loss": "lower", "share": "higher"}
    CHANCE = 0.5

    @property
    def vocab_size(self):
        return 3

    @property
    def outputs(self):
        return 2

    def batch(self, key, size, length, split="train"):
        bits = jax.random.bernoulli(key, 0.5, (size, length[1])).astype(jnp.int32)
        ones = jnp.sum(bits, axis=1)
        return Batch(bits + 1, (2 * ones > length[1]).astype(jnp.int32), jnp.ones(size), jnp.full(size, length[1], jnp.int32))

    def metrics(self, outputs, batch):
        # one entry per class, and one that no example has
        classes = jnp.arange(3)[None] == batch.targets[:, None]
        weight = classes.astype(jnp.float32) * batch.weights[:, None]
        return {"share": (jnp.sum(weight * batch.inputs[:, :1].astype(jnp.float32), axis=0), jnp.sum(weight, axis=0))}


@pytest.fixture
def config(outside):
    outside("ones", Ones)
    c = base_config()
    c.task = task_config("ones")
    c.model.layer = layer_config("diagonal")
    c.model.width, c.model.depth, c.train.length = 4, 1, [4, 8]
    c.eval.lengths, c.eval.headline = [[4, 4], [8, 8]], [4, 8]
    return c


def measure(config, **fields):
    for name, value in fields.items():
        config.eval[name] = value
    program = make_program(config)
    state = program.init()
    return program.evaluate(state.params, state.batch_stats, "test")[0].metrics


def test_the_test_set_does_not_depend_on_the_batch_size_or_on_how_it_is_cut(config, monkeypatch):
    whole = measure(config, examples=37, batch_size=37)
    assert measure(config, examples=37, batch_size=8) == pytest.approx(whole, rel=1e-6)  # four batches and five examples
    monkeypatch.setattr(program_module, "BATCHES_PER_CALL", 2)
    assert measure(config, examples=37, batch_size=8) == pytest.approx(whole, rel=1e-6)  # three calls, the last with one batch
    assert measure(config, examples=36, batch_size=8) != pytest.approx(whole, rel=1e-6)


def test_a_vector_is_averaged_over_the_classes_that_there_are():
    task = Ones()
    sums = {
        "loss": (np.float32(6.0), np.float32(3.0)),
        "share": (np.array([1.0, 3.0, 0.0], np.float32), np.array([1.0, 2.0, 0.0], np.float32)),
        "curve": (np.array([1.0, 0.0], np.float32), np.array([2.0, 0.0], np.float32)),
    }
    assert member_means(task, sums, 1) == [{"loss": 2.0, "share": 1.25, "curve": [0.5, None]}]
    sets = {EvaluationSet("short", (4, 4)): sums, EvaluationSet("long", (5, 7)): {"loss": (np.float32(4.0), np.float32(1.0))}}
    (measured,) = average(task, sets, 1, (4, 7))
    # the longer set spans three lengths
    assert measured.metrics == {"loss/short": 2.0, "share/short": 1.25, "loss/long": 4.0, "loss": 3.5, "share": 1.25}
    assert measured.curves == {"curve/short": [0.5, None]}


@dataclasses.dataclass(frozen=True)
class Numbers(Ones):
    METRICS = {"loss": "lower", "error": "lower"}

    def example_spec(self, length):
        return Example(jax.ShapeDtypeStruct((length,), jnp.int32), jax.ShapeDtypeStruct((2,), jnp.float32))

    def metrics(self, outputs, batch):
        return {"error": (jnp.sum(jnp.abs(outputs - batch.targets)), jnp.sum(batch.weights))}


def test_the_loss_of_numbers_is_their_mean_squared_error():
    outputs, targets = np.array([[1.0, 2.0], [0.0, 0.0]], np.float32), np.array([[1.0, 0.0], [3.0, 1.0]], np.float32)
    batch = Batch(np.zeros((2, 4), np.int32), targets, np.array([1.0, 2.0], np.float32), np.full(2, 4, np.int32))
    total, weight = Numbers().loss(jnp.asarray(outputs), batch)
    assert (float(total), float(weight)) == (4.0 / 2 + 2 * 10.0 / 2, 3.0)


def test_keep_leaves_the_first_examples_their_weights():
    weights = np.arange(1.0, 7.0, dtype=np.float32).reshape(3, 2)
    batch = Batch(np.zeros((3, 2), np.int32), np.zeros((3, 2), np.int32), weights, np.full(3, 2, np.int32))
    for first, expected in [(2, [[1, 2], [3, 4], [0, 0]]), (0, np.zeros((3, 2))), (5, weights)]:
        np.testing.assert_array_equal(batch.keep(first).weights, expected)


@dataclasses.dataclass(frozen=True)
class Difficulties(Ones):
    def evaluation_sets(self, lengths):
        return (EvaluationSet("easy", (8, 8)), EvaluationSet("hard", (8, 8)), EvaluationSet("8-8", (8, 8)))

    def evaluation_batch(self, key, index, size, evaluation_set, split):
        batch = super().evaluation_batch(key, index, size, evaluation_set, split)
        return batch if evaluation_set.name != "easy" else batch._replace(inputs=jnp.ones_like(batch.inputs))


def test_sets_of_one_length_are_told_apart_by_name(config, outside):
    outside("difficulties", Difficulties)
    config.task = task_config("difficulties")
    config.eval.lengths = [[8, 8]]
    metrics = measure(config, examples=64, batch_size=64)
    assert metrics["share/easy"] == 1.0  # the first token is 1 throughout
    assert len({metrics[f"share/{name}"] for name in ("easy", "hard", "8-8")}) == 3
    lines = [line.split()[0] for line in format_metrics(metrics).splitlines()]
    assert lines == ["lengths", "headline", "8-8", "easy", "hard"]


@dataclasses.dataclass(frozen=True)
class Undirected(Ones):
    METRICS = {"loss": "lower"}


def test_a_metric_without_a_direction_chooses_no_parameters(config, outside):
    outside("undirected", Undirected)
    config.task = task_config("undirected")
    config.eval.best_metric = "share"
    with pytest.raises(UserError, match=r"eval\.best_metric='share' is not one of loss"):
        make_program(config)


def test_numbers_have_no_accuracy():
    batch = Batch(np.zeros((1, 4), np.int32), np.zeros((1, 2), np.float32), np.ones(1, np.float32), np.full(1, 4, np.int32))
    assert SyntheticTask.metrics(Numbers(), jnp.zeros((1, 2)), batch) == {}
