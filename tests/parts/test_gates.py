"""The gates of Dubinin et al. 2026 against their definition in NumPy."""

import functools

import jax
import numpy as np
import pytest
from layers.dubinin import BOUNDED, share

from helpers import assert_near
from lrnn_jax.parts.gates import FEW, GATES, normalise_gates


@functools.cache
def compile_gates(gates):
    """Gates and, for their cotangents, the gradient."""

    def run(z, da, da0):
        values, pull_back = jax.vjp(functools.partial(normalise_gates, gates=gates), z)
        return values, pull_back((da, da0))[0]

    return jax.jit(run)


def run(z, gates, weights):
    (a, a0), dz = compile_gates(gates)(np.float32(z), np.float32(weights[..., :-1]), np.float32(weights[..., -1]))
    return np.concatenate([a, np.asarray(a0)[..., None]], axis=-1), np.asarray(dz)


@pytest.mark.parametrize("count", [2, FEW, FEW + 2])
@pytest.mark.parametrize("gates", GATES)
def test_values_and_gradients_equal_the_definition(gates, count):
    """Gradients by central differences in float64."""
    rng = np.random.default_rng(count)
    z, weights = rng.normal(size=(2, 5, 3, count))
    z += 0.05 * np.sign(z)  # not at a kink
    values, dz = run(z, gates, weights)
    assert_near(values, share(z, gates), 1e-6)
    expected, step = np.zeros_like(z), 1e-6
    for k in range(count):
        move = step * np.eye(count)[k]
        change = share(z + move, gates) - share(z - move, gates)
        expected[..., k] = np.sum(weights * change, axis=-1) / (2 * step)
    assert_near(dz, expected, 1e-5)


@pytest.mark.parametrize(
    ("gates", "z", "expected"),
    [
        ("softmax", [0, 0, np.log(2)], [0.25, 0.25, 0.5]),
        ("sigmoid", [0, np.log(3)], [0.4, 0.6]),  # 1/2 and 3/4
        ("relu", [1, -3], [1 / 1.002, 0]),
        ("tanh", [0.5, -0.5], [0.5, -0.5]),
        ("linear", [1, -3], [0.25, -0.75]),
        ("silu", [0, 2], [0, 1]),
        ("none", [1, -3], [1, -3]),
    ],
)
def test_cases_by_hand(gates, z, expected):
    found, _ = run(np.float64(z)[None], gates, np.ones((1, len(z))))
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


@pytest.mark.parametrize("count", [3, FEW + 1])
@pytest.mark.parametrize("gates", BOUNDED)
def test_magnitudes_add_up_to_one_at_most_and_all_is_finite(gates, count):
    """Tiny and huge logits, zeros and logits whose exp or sigmoid underflows included."""
    rng = np.random.default_rng(0)
    z = np.concatenate([scale * rng.normal(size=(50, count)) for scale in (1e-20, 1e-3, 1, 100, 1e4)])
    z = np.concatenate([z, np.zeros((1, count)), np.full((1, count), -200.0), np.full((1, count), 200.0)])
    values, dz = run(z, gates, rng.normal(size=z.shape))
    assert np.isfinite(values).all() and np.isfinite(dz).all()
    total = np.abs(values).sum(-1)
    assert total.max() <= 1 + 1e-6 and total.max() > 0.99
    if gates in ("softmax", "sigmoid"):
        np.testing.assert_allclose(total, 1, atol=1e-6)
        assert values.min() >= 0


@pytest.mark.parametrize("gates", ["relu", "tanh", "linear", "silu"])
@pytest.mark.parametrize("count", [3, FEW + 1])
def test_zeros_divided_by_zero_are_zero(gates, count):
    values, _ = run(np.zeros((1, count)), gates, np.ones((1, count)))
    np.testing.assert_array_equal(values, 0)
