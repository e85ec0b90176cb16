"""What tasks with numbers as targets promise, and what each of them says is true of its data."""

import jax
import numpy as np
import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.driven_ode import SYSTEMS, DrivenODE
from lrnn_jax.tasks.reconstruction import Reconstruction

TASKS = {
    "noise": (Reconstruction(steps=12), 12),
    "smooth": (Reconstruction(steps=12, dimensions=3), 12),
    "protein_transduction": (DrivenODE(), 64),
    "lotka_volterra": (DrivenODE(system="lotka_volterra"), 64),
}


@pytest.fixture(scope="module", params=TASKS)
def drawn(request):
    """(task, length, a batch of 1024 as NumPy arrays, the same batch again, another)."""
    task, length = TASKS[request.param]
    make = jax.jit(lambda seed: task.batch(jax.random.key(seed), 1024, (length, length), "test"))
    return task, length, *(jax.tree.map(np.asarray, make(seed)) for seed in (0, 0, 1))


def test_examples_are_as_the_spec_says_and_belong_to_their_key(drawn):
    task, length, batch, same, other = drawn
    spec = task.example_spec(length)
    for name in ("inputs", "targets"):
        array, expected = getattr(batch, name), getattr(spec, name)
        assert array.shape[1:] == expected.shape and array.dtype == expected.dtype
        np.testing.assert_array_equal(array, getattr(same, name))
        assert not np.array_equal(array, getattr(other, name))
    assert task.vocab_size == 0 and batch.targets.shape[-1] == task.outputs
    assert batch.weights.shape == batch.targets.shape[:-1] and task.per_position == (batch.weights.ndim == 2)
    assert set(batch.lengths) == {length} and np.all(batch.weights == 1)


def test_targets_and_inputs_are_of_unit_variance(drawn):
    _, _, batch, _, _ = drawn
    axes = (0, 1) if batch.targets.ndim == 3 else (0,)
    if batch.targets.ndim == 3:
        # a deviation over positions, of which there are many in each sequence
        np.testing.assert_allclose(batch.targets.mean(axes), 0.0, atol=0.15)
        np.testing.assert_allclose(batch.targets.std(axes), 1.0, atol=0.1)
    assert batch.inputs.mean() == pytest.approx(0.0, abs=0.1)
    assert batch.inputs.std() == pytest.approx(1.0, abs=0.06)


def test_nrmse_is_one_for_zeros_and_weight_zero_counts_nothing(drawn):
    task, _, batch, _, _ = drawn
    score = jax.jit(lambda outputs, batch: (task.metrics(outputs, batch)["unexplained"], task.loss(outputs, batch)))
    for factor, expected in ((0.0, 1.0), (0.5, 0.25), (1.0, 0.0)):
        (error, size), _ = score(np.float32(factor) * batch.targets, batch)
        assert float(error / size) == pytest.approx(expected, abs=1e-6)
    assert task.derive({"unexplained": 0.25}) == {"nrmse": 0.5}
    muted = jax.tree.map(np.asarray, batch.keep(10))
    (_, size), (total, weight) = score(0 * batch.targets, muted)
    squares = np.square(batch.targets[:10], dtype=np.float64)
    assert float(size) == pytest.approx(np.sum(squares), rel=1e-5)
    assert float(total / weight) == pytest.approx(np.mean(squares), rel=1e-5)


def test_reconstruction_asks_for_its_input():
    for name in ("noise", "smooth"):
        task, length = TASKS[name]
        batch = task.batch(jax.random.key(3), 64, (length, length))
        np.testing.assert_array_equal(np.asarray(batch.inputs)[..., 0], np.asarray(batch.targets))
        rank = np.linalg.matrix_rank(np.asarray(batch.targets, np.float64), tol=1e-4)
        assert rank == (3 if name == "smooth" else 12)


@pytest.mark.parametrize("name", SYSTEMS)
def test_targets_follow_the_equation_by_a_finer_method(name):
    """Euler's method with 400 steps per position, written out from the equations, in float64."""
    task, system = TASKS[name][0], SYSTEMS[name]
    batch = jax.tree.map(np.asarray, task.batch(jax.random.key(4), 3, (64, 64)))
    u = system.low + (system.high - system.low) / (1 + np.exp(-1.5 * batch.inputs[..., 0].astype(np.float64)))
    y, h, found = np.tile(np.array(system.start), (3, 1)), system.time / 64 / 400, []
    for t in range(64):
        for _ in range(400):
            if name == "lotka_volterra":
                X, Y = np.exp(y).T
                dy = [1 + u[:, t] - Y, X - 1]
            else:
                S, _, R, RS, P = y.T
                bind, back = 0.6 * S * R, 0.017 * P / (0.3 + P)
                dy = [
                    -0.07 * S - bind + 0.05 * RS + u[:, t],
                    0.07 * S,
                    -bind + 0.05 * RS + back,
                    bind - 0.05 * RS - 0.3 * RS,
                    0.3 * RS - back,
                ]
            y = y + h * np.stack(dy, axis=-1)
        found.append(y)
    expected = (np.stack(found, axis=1) - system.mean) / system.deviation
    np.testing.assert_allclose(batch.targets, expected, atol=0.03)


def test_the_pathway_keeps_its_protein():
    """R + RS + P neither grows nor shrinks, whatever drives the system: 1 at the start."""
    batch, system = TASKS["protein_transduction"][0].batch(jax.random.key(5), 8, (64, 64)), SYSTEMS["protein_transduction"]
    y = np.asarray(batch.targets, np.float64) * system.deviation + system.mean
    np.testing.assert_allclose(y[..., 2:].sum(-1), 1.0, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DrivenODE(system="lotka"), "did you mean 'lotka_volterra'"),
        (lambda: DrivenODE(waves=0), r"waves=0"),
        (lambda: Reconstruction(steps=0), r"steps=0"),
        (lambda: Reconstruction(dimensions=33), r"dimensions=33"),
        (lambda: Reconstruction().check_length("train.length", (16, 16)), r"train\.length=\[16, 16\]"),
        (lambda: DrivenODE().check_length("train.length", (32, 64)), r"train\.length=\[32, 64\]"),
    ],
)
def test_what_makes_no_sense_is_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()
