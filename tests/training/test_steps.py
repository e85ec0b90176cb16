"""What is compiled: many steps equal single ones, a bad number freezes the state, evaluation equals NumPy."""

import dataclasses
import functools
import sys
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrnn_jax import registry
from lrnn_jax.config.fields import base_config, layer_config, task_config
from lrnn_jax.config.identity import split_seeds
from lrnn_jax.tasks.base import Batch, EvaluationSet
from lrnn_jax.tasks.parity import Parity
from lrnn_jax.training.program import make_program
from lrnn_jax.training.steps import STREAMS, Part, Place, init_variables, stream_key

SEED = 3


@functools.partial(jax.jit, static_argnums=0)
def train_many(step, hyper, state, count):
    return step.run(hyper, state, count)


@functools.cache
def make(**model):
    """A program's step and its hyper-parameters."""
    c = base_config()
    c.task = task_config("parity")
    c.model.layer = layer_config("diagonal", gain=1.0)
    c.model.width, c.model.depth = 4, 1
    for name, value in model.items():
        c.model[name] = value
    c.seed = SEED
    c.optim.lr, c.optim.schedule, c.optim.warmup, c.optim.weight_decay = 0.05, "constant", "1 steps", 0.1
    c.train.batch_size, c.train.length, c.train.duration = 8, [3, 8], "20 steps"
    return wrap(make_program(c))


def wrap(program):
    return Trained(program.step, program.hyper)


def bound(trained):
    """The model with the layer's hyper-parameters in it."""
    return trained.step.model.clone(layer_fields=(*trained.step.model.layer_fields, ("gain", 1.0)))


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A step with the hyper-parameters that these tests give it."""

    step: Any
    hyper: Any

    def replace(self, **fields):
        return Trained(dataclasses.replace(self.step, **fields), self.hyper)


@pytest.fixture
def trained():
    return make()


@functools.cache
def start(trained):
    """The state before the first step, as NumPy arrays: no call can take it away."""
    return jax.tree.map(np.asarray, jax.jit(trained.step.init)(trained.hyper))


def batch_at(trained, step):
    return jax.jit(trained.step.batch_at)(trained.hyper, step)


def gradients(trained, state, batch):
    """Gradients and the mean loss of one batch."""

    @jax.jit
    def compute(state, batch):
        dropout = jax.random.fold_in(stream_key(SEED, "dropout"), state.step)
        return trained.step.value_and_grad(state.params, trained.hyper, state.batch_stats, dropout, batch)

    (loss, _), grads = compute(state, batch)
    return grads, loss


def run(trained, *counts, state=None):
    """State and metric sums in NumPy after calls of ``counts`` steps."""
    state = start(trained) if state is None else jax.tree.map(jnp.copy, state)
    total = None
    for count in counts:
        state, sums = train_many(trained.step, trained.hyper, state, count)
        total = sums if total is None else jax.tree.map(jnp.add, total, sums)
    return jax.tree.map(np.asarray, (state, total))


def assert_bitwise(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def assert_close(tree, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), tree, other)


# --- many steps in one call ----------------------------------------------------------------------------------------


def test_many_steps_equal_single_steps_bitwise(trained):
    single, sums = run(trained, *[1] * 8)
    for counts in [(4, 4), (1, 4, 1, 1, 1)]:
        together, together_sums = run(trained, *counts)
        assert_bitwise(together, single)
        assert_close(together_sums, sums)
    assert single.step == 8
    assert bool(single.alive)


def test_many_steps_equal_the_step_written_out(trained):
    step = jax.jit(lambda state: trained.step.step(trained.hyper, None, 0, (state, {})))
    state = start(trained)
    losses = []
    for _ in range(4):
        state, sums = step(state)
        losses.append(float(sums["loss"][0]))
    together, total = run(trained, 4)
    assert_close(together.params, state.params)
    assert float(total["loss"][0]) == pytest.approx(sum(losses), rel=1e-5)


def test_training_changes_every_parameter(trained):
    before, after = start(trained).params, run(trained, 4)[0].params
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert not np.array_equal(a, b)


def test_metric_sums_run_over_all_steps(trained):
    _, sums = run(trained, 4, 1)
    assert set(sums) == {"loss", "accuracy", "scaled_accuracy", "grad_norm"}
    assert sums["loss"][1] == sums["accuracy"][1] == 5 * 8
    assert sums["grad_norm"][1] == 5
    assert 0 < sums["accuracy"][0] < 5 * 8


def test_the_gradient_is_that_of_the_mean_loss(trained):
    state = start(trained)
    batch = batch_at(trained, 0)

    @jax.jit
    @jax.value_and_grad
    def mean_loss(params):
        logits, _ = bound(trained).apply({"params": params}, batch.inputs, lengths=batch.lengths)
        log_p = jax.nn.log_softmax(logits)
        return -jnp.mean(jnp.take_along_axis(log_p, batch.targets[:, None], axis=1))

    grads, loss = gradients(trained, state, batch)
    expected_loss, expected = mean_loss(state.params)
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-5)
    assert_close(grads, expected)
    _, sums = run(trained, 1)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(grads)))
    assert float(sums["grad_norm"][0]) == pytest.approx(norm, rel=1e-5)


def test_seeds_train_differently(trained):
    hyper = {**trained.hyper, "seed": jnp.asarray(4, jnp.uint32)}
    other, _ = train_many(trained.step, hyper, jax.tree.map(jnp.asarray, start(trained)), 4)
    assert not np.array_equal(run(trained, 4)[0].params["head"]["kernel"], other.params["head"]["kernel"])


# --- a number that is not finite ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Poisoned(Parity):
    """Parity whose loss, or whose gradient alone, is not a number in the training steps from ``first_bad`` on."""

    kind: str = "loss"
    first_bad: int = 6

    def batch(self, key, size, length, split="train"):
        batch = super().batch(key, size, length)
        fold = jax.vmap(lambda step: jax.random.key_data(jax.random.fold_in(stream_key(SEED, "train"), step)))
        bad = jnp.any(jnp.all(fold(jnp.arange(self.first_bad, 16)) == jax.random.key_data(key)[None], axis=1))
        # a row of weight 2 marks the batch
        return Batch(batch.inputs, batch.targets, jnp.where(bad, 2.0, 1.0) * batch.weights, batch.lengths)

    def loss(self, logits, batch):
        total, weight = super().loss(logits, batch)
        bad = batch.weights[0] == 2.0
        if self.kind == "loss":
            return jnp.where(bad, jnp.nan, total), weight
        # sqrt(0) is finite, its derivative is not
        return total + jnp.sqrt(jnp.where(bad, 0.0 * jnp.sum(logits), 1.0)) - jnp.where(bad, 0.0, 1.0), weight


def poison(trained, kind):
    return trained.replace(task=Poisoned(kind=kind))


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_number_that_is_not_finite_freezes_the_last_good_state(trained, kind):
    poisoned = poison(trained, kind)
    good, good_sums = run(poisoned, *[1] * 6)
    assert bool(good.alive)
    # the bad step is the third of its dispatch
    dead, dead_sums = run(poisoned, 4, 4, 4)
    assert not bool(dead.alive)
    assert dead.step == 6
    assert_bitwise(dead._replace(alive=good.alive), good)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((dead, dead_sums)))
    assert_close(dead_sums, good_sums)


def test_until_the_bad_step_nothing_differs(trained):
    assert_close(run(poison(trained, "gradient"), 4)[0].params, run(trained, 4)[0].params)
    assert_close(run(poison(trained, "loss"), 4)[0].params, run(trained, 4)[0].params)


def test_a_dead_state_stays_dead_where_the_numbers_are_good_again(trained):
    dead, _ = run(poison(trained, "loss"), 4, 4)
    later, sums = run(trained, 4, state=dead)
    assert_bitwise(later, dead)
    assert all(not leaf.any() for leaf in jax.tree.leaves(sums))


def test_the_parameters_with_bad_gradients_are_named(trained):
    state, _ = run(poison(trained, "gradient"), 4, 4)
    bad = poison(trained, "gradient")
    _, finite = jax.jit(bad.step.check_finite)(bad.hyper, state, batch_at(bad, state.step))
    assert not finite["head"]["kernel"]
    loss, finite = jax.jit(trained.step.check_finite)(trained.hyper, state, batch_at(trained, state.step))
    assert loss and all(jax.tree.leaves(finite))


# --- evaluation ----------------------------------------------------------------------------------------------------


def evaluate(trained, state, stream, length=(10, 12), batches=3, first=0, examples=24):
    part = Part(EvaluationSet(f"{length[0]}-{length[1]}", length), "test", batches, 8)
    place = Place(np.int32(STREAMS[stream]), np.int32(first), np.int32(examples))
    return jax.tree.map(np.asarray, measure(trained.step, part, trained.hyper, state.variables, place))


@functools.partial(jax.jit, static_argnums=(0, 1))
def measure(step, part, hyper, variables, place):
    return step.measure(part, hyper, variables, place)


def test_evaluation_sums_equal_numpy_on_the_same_batches(trained):
    state, _ = run(trained, 4)
    key = stream_key(3, "test")
    loss = right = 0.0

    @jax.jit
    def answer(key):
        batch = trained.step.task.batch(key, 8, (10, 12))
        return bound(trained).apply({"params": state.params}, batch.inputs, lengths=batch.lengths)[0], batch

    for i in range(3):
        logits, batch = answer(jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, 10), 12), i))
        z, targets = np.asarray(logits, np.float64), np.asarray(batch.targets)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        loss -= log_p[np.arange(8), targets].sum()
        right += (z.argmax(axis=1) == targets).sum()
    sums = evaluate(trained, state, "test")
    assert set(sums) == {"loss", "accuracy", "scaled_accuracy"}
    assert float(sums["loss"][0]) == pytest.approx(loss, rel=1e-5)
    assert float(sums["accuracy"][0]) == right
    assert float(sums["scaled_accuracy"][0]) == pytest.approx((right - 12) / 0.5)
    assert {float(weight) for _, weight in sums.values()} == {24.0}


def test_streams_and_seeds_have_keys_of_their_own():
    keys = {jax.random.key_data(stream_key(seed, stream)).tobytes() for seed in range(3) for stream in STREAMS}
    assert set(STREAMS) == {"train", "validation", "test", "init", "dropout"}
    assert len(keys) == 3 * len(STREAMS)


def test_train_validation_and_test_batches_differ(trained):
    draw = jax.jit(lambda key: trained.step.task.batch(key, 8, (3, 8)).inputs)
    seen = {np.asarray(draw(jax.random.fold_in(stream_key(3, stream), i))).tobytes() for stream in STREAMS for i in range(4)}
    assert len(seen) == 4 * len(STREAMS)


def test_the_training_batch_is_a_function_of_seed_and_step(trained):
    draw = jax.jit(trained.step.batch_at)
    batches = [np.asarray(draw({"seed": np.uint32(seed)}, step).inputs) for seed, step in [(3, 0), (3, 0), (3, 1), (4, 0)]]
    np.testing.assert_array_equal(batches[0], batches[1])
    assert len({batch.tobytes() for batch in batches}) == 3


# --- dropout and batch statistics ----------------------------------------------------------------------------------


def loss_at(trained, step, batch):
    return float(gradients(trained, start(trained)._replace(step=np.int32(step)), batch)[1])


def test_dropout_is_random_per_step_in_training_and_absent_in_evaluation(trained):
    dropping = make(dropout=0.5)
    batch = batch_at(trained, 0)
    assert loss_at(dropping, 0, batch) == loss_at(dropping, 0, batch)
    assert loss_at(dropping, 0, batch) != loss_at(dropping, 1, batch)
    assert loss_at(dropping, 0, batch) != loss_at(trained, 0, batch)
    assert loss_at(trained, 0, batch) == loss_at(trained, 1, batch)
    state = start(trained)
    assert_close(evaluate(dropping, state, "test"), evaluate(trained, state, "test"))


def test_batch_statistics_move_in_training_and_rest_in_evaluation():
    normed = make(norm="batchnorm", norm_position="pre")
    state = start(normed)
    before = jax.tree.map(np.asarray, state.batch_stats)
    batch = batch_at(normed, 0)
    x = np.asarray(state.params["embed"]["embedding"])[np.asarray(batch.inputs)]
    after, _ = run(normed, 1, state=state)
    stats = after.batch_stats["block_0"]["norm"]
    # momentum 0.95, as S5 and LRU
    np.testing.assert_allclose(stats["mean"], 0.05 * x.mean(axis=(0, 1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.95 + 0.05 * x.var(axis=(0, 1)), rtol=1e-4)
    assert jax.tree.structure(before) == jax.tree.structure(after.batch_stats)
    # evaluation uses what it is given
    shifted = after._replace(batch_stats=jax.tree.map(lambda x: x + np.float32(1), after.batch_stats))
    assert float(evaluate(normed, after, "test")["loss"][0]) != float(evaluate(normed, shifted, "test")["loss"][0])


def test_without_batchnorm_there_are_no_statistics(trained):
    assert start(trained).batch_stats == {}
    assert run(trained, 1)[0].batch_stats == {}


def test_initialisation_depends_on_the_seed_alone(trained):
    @jax.jit
    def init(seed):
        return init_variables(trained.step.model, trained.step.task, {**trained.hyper, "seed": seed})["params"]

    state = start(trained)
    assert_bitwise(init(np.uint32(SEED)), state.params)
    assert not np.array_equal(init(np.uint32(SEED + 1))["head"]["kernel"], state.params["head"]["kernel"])
    assert (int(state.step), bool(state.alive)) == (0, True)


@dataclasses.dataclass(frozen=True)
class ParityWithACurve(Parity):
    def curves(self, logits, batch):
        """Position t counts t for every row: the mean is t itself."""
        rows, steps = batch.inputs.shape
        ones = jnp.full((steps,), rows, jnp.float32)
        return {"position": (ones * jnp.arange(steps, dtype=jnp.float32), ones)}


@pytest.mark.parametrize("seeds", [1, 2])
def test_curves_are_means_by_position_for_every_member_and_bucket(seeds, monkeypatch):
    monkeypatch.setitem(sys.modules, "curved", types.SimpleNamespace(Task=ParityWithACurve))
    monkeypatch.setitem(registry.TASKS, "curved", "curved:Task")
    c = base_config()
    c.task = task_config("curved")
    c.model.layer = layer_config("diagonal")
    c.model.width, c.model.depth, c.train.length = 4, 1, [3, 8]
    c.eval.lengths, c.eval.headline, c.eval.examples = [[3, 4], [5, 8]], [3, 8], 64
    c.seeds = seeds
    program = make_program(*split_seeds(c))
    state = program.init()
    measured = program.evaluate(state.params, state.batch_stats, "test")
    assert len(measured) == seeds
    for member in measured:
        assert member.curves == {"position/3-4": [0, 1, 2, 3], "position/5-8": list(range(8))}
        assert not any("position" in name for name in member.metrics)


def test_microbatches_make_the_gradient_of_the_whole_batch():
    """Their parts weigh as many positions as they have: a mean of the parts' means would be another gradient."""
    c = base_config()
    c.task = task_config("word_problem", group="S3")
    c.model.layer, c.model.head = layer_config("diagonal", gain=1.0), "token"
    c.model.width, c.model.depth = 4, 1
    c.eval.lengths, c.eval.headline = [[2, 9]], [2, 9]
    c.train.batch_size, c.train.length, c.train.duration = 8, [2, 9], "20 steps"
    whole = wrap(make_program(c))
    c.train.microbatches = 4
    parts = wrap(make_program(c))
    batch = batch_at(whole, jnp.int32(0))
    weights = [float(whole.step.task.loss(jnp.zeros((2, *batch.targets.shape[1:], 6)), part)[1]) for part in split(batch, 4)]
    assert len(set(weights)) > 1
    state = start(whole)
    expected, found = gradients(whole, state, batch), gradients(parts, state, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7), expected, found)


def test_a_microbatch_without_weight_takes_no_part(trained):
    parts = trained.replace(microbatches=4)
    batch = batch_at(trained, jnp.int32(0))
    weights = np.ones(8, np.float32)
    weights[:2] = 0.0  # all of the first of four parts
    batch = batch._replace(weights=jnp.asarray(weights))
    state = start(trained)
    expected, found = gradients(trained, state, batch), gradients(parts, state, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7), expected, found)


def split(batch, count):
    return [jax.tree.map(lambda x, i=i: jnp.split(x, count)[i], batch) for i in range(count)]
