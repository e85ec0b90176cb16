"""The vanilla RNN against Orvieto et al. 2023, Eq. 1, in NumPy."""

import jax
import numpy as np
import pytest

from helpers import init_params, run_layer, transition
from lrnn_jax.errors import UserError
from lrnn_jax.layers.rnn import RNN

WIDTH, SIZE, LENGTH, BATCH = 3, 5, 9, 2
F = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0), "linear": lambda x: x}
SLOPE = {"tanh": lambda x: 1 / np.cosh(x) ** 2, "relu": lambda x: 1.0 * (x > 0), "linear": np.ones_like}


@pytest.mark.parametrize("activation", F)
def test_equals_a_numpy_loop(activation):
    rng = np.random.default_rng(0)
    layer = RNN(WIDTH, state_size=SIZE, **RNN.VARIANTS[activation])
    x, start = np.float32(rng.normal(size=(BATCH, LENGTH, WIDTH))), np.float32(rng.normal(size=(BATCH, SIZE)))
    params = jax.tree.map(lambda p: np.float32(p + 0.2 * rng.normal(size=p.shape)), init_params(layer))
    y, last = run_layer(layer, params, x, state=start)
    jacobians = transition(layer, params, x)
    p = jax.tree.map(np.float64, params)
    for row, carried in [(row, carried) for row in range(BATCH) for carried in (True, False)]:
        h = np.float64(start[row]) * carried
        for t in range(LENGTH):
            inner = p["A"] @ h + p["B"] @ x[row, t]
            h = F[activation](inner)
            if carried:
                np.testing.assert_allclose(y[row, t], p["C"] @ h + p["D"] * x[row, t], rtol=1e-5, atol=1e-5)
            else:
                np.testing.assert_allclose(jacobians[row, t], SLOPE[activation](inner)[:, None] * p["A"], atol=1e-5)
        if carried:
            np.testing.assert_allclose(last[row], h, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_gradients_with_resets_are_those_of_the_loop(activation):
    """The generic tests see tanh. Central differences in float64, along one direction of all arguments."""
    rng = np.random.default_rng(1)
    layer = RNN(WIDTH, state_size=SIZE, activation=activation)
    x, start = np.float32(rng.normal(size=(BATCH, LENGTH, WIDTH))), np.float32(rng.normal(size=(BATCH, SIZE)))
    reset, weights = rng.random((BATCH, LENGTH)) < 0.2, rng.normal(size=(BATCH, LENGTH, WIDTH))
    given = init_params(layer), x, start
    along = jax.tree.map(lambda z: rng.normal(size=z.shape), given)

    def lose(p, x, start):
        total, h = 0.0, start
        for t in range(LENGTH):
            h = F[activation]((h * ~reset[:, t, None]) @ p["A"].T + x[:, t] @ p["B"].T)
            total += np.sum(weights[:, t] * (h @ p["C"].T + p["D"] * x[:, t]))
        return total

    def run(p, x, start):
        y, _ = layer.apply({"params": p}, x, state=start, reset=reset)
        return (y * np.float32(weights)).sum()

    gradients = jax.jit(jax.grad(run, argnums=(0, 1, 2)))(*given)
    found = sum(np.sum(np.float64(g) * d) for g, d in zip(*map(jax.tree.leaves, (gradients, along)), strict=True))
    ahead, behind = (jax.tree.map(lambda z, d, s=s: np.float64(z) + s * d, given, along) for s in (1e-6, -1e-6))
    np.testing.assert_allclose(found, (lose(*ahead) - lose(*behind)) / 2e-6, rtol=1e-4)


def test_starts_with_eigenvalues_that_fill_the_unit_disk():
    params = init_params(RNN(300, state_size=400))
    radius = np.abs(np.linalg.eigvals(params["A"]))
    assert radius.max() < 1.1
    np.testing.assert_allclose(np.quantile(radius, [0.25, 0.5, 0.75]), [0.5, 0.5**0.5, 0.75**0.5], atol=0.04)
    for name, deviation in {"B": 300**-0.5, "C": 400**-0.5, "D": 1}.items():
        np.testing.assert_allclose(params[name].std(), deviation, rtol=0.12)
    smaller = init_params(RNN(300, state_size=400, radius=0.5))
    np.testing.assert_allclose(smaller["A"], 0.5 * params["A"], rtol=1e-6)


@pytest.mark.parametrize(("field", "value"), [("state_size", 0), ("activation", "tan"), ("radius", 0.0)])
def test_check_refuses_what_does_not_fit(field, value):
    with pytest.raises(UserError, match=f"{field}={value!r}"):
        RNN(WIDTH, **{field: value})
