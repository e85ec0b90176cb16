"""S4 against Gu et al. 2022: the dense real HiPPO-LegS system, discretised and run in NumPy and float64."""

import functools

import jax
import numpy as np
import pytest

from helpers import assert_near, init_params, run_layer, to_numpy, transition
from lrnn_jax.errors import UserError
from lrnn_jax.layers.s4 import S4
from lrnn_jax.parts.hippo import make_hippo_legs, make_hippo_n

WIDTH, SIZE = 2, 16


def loop(a, b, c, dt, x):
    """The bilinear rule of the paper's Eq. 3, dense; outputs ``c h`` and the last state of one channel, x being [T]."""
    identity = np.eye(len(a))
    abar = np.linalg.solve(identity - dt / 2 * a, identity + dt / 2 * a)
    bbar = np.linalg.solve(identity - dt / 2 * a, dt * b)
    h, y = np.zeros(len(a), a.dtype), []
    for u in x:
        h = abar @ h + bbar * u
        y.append(c @ h)
    return np.array(y), h


def full(p, name, d):
    """A channel's states and their conjugates."""
    half = p[f"{name}_re"][d] + 1j * p[f"{name}_im"][d]
    return np.concatenate([half, half.conj()])


@functools.cache
def make_case(steps):
    rng = np.random.default_rng(steps)
    layer = S4(width=WIDTH, state_size=SIZE)
    return layer, init_params(layer), np.float32(rng.normal(size=(2, steps, WIDTH)))


@pytest.mark.parametrize("steps", [1, 50, 257])
@pytest.mark.parametrize("scan", ["sequential", "convolution"])
def test_initial_layer_is_hippo_legs(steps, scan):
    """In the real basis of its definition, of which the layer's parameters know nothing."""
    layer, params, x = make_case(steps)
    y, _ = run_layer(layer, params, x, scan=scan)
    p = jax.tree.map(np.float64, params)
    a, _, b = make_hippo_legs(SIZE)
    vectors = make_hippo_n(SIZE)[1][:, SIZE // 2 :]
    for d in range(WIDTH):
        c = 2 * ((p["C_re"][d] + 1j * p["C_im"][d]) @ vectors.conj().T).real
        for row in range(2):
            expected, _ = loop(a, b, c, np.exp(p["log_dt"][d]), np.float64(x[row, :, d]))
            expected = expected + p["D"][d] * x[row, :, d]
            np.testing.assert_allclose(y[row, :, d], expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("scan", ["sequential", "convolution"])
def test_any_layer_is_its_dense_system(scan):
    layer, params, x = make_case(50)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: np.float32(p + 0.3 * rng.normal(size=p.shape)), params)
    y, state = run_layer(layer, params, x, scan=scan)
    p = jax.tree.map(np.float64, params)
    abar = np.float64(transition(layer, params, x))
    for d in range(WIDTH):
        half = -np.exp(p["A_re_log"][d]) + 1j * p["A_im"][d]
        a = np.diag(np.concatenate([half, half.conj()])) - np.outer(full(p, "P", d), full(p, "P", d).conj())
        dt = np.exp(p["log_dt"][d])
        exact = np.linalg.solve(np.eye(SIZE) - dt / 2 * a, np.eye(SIZE) + dt / 2 * a)
        # states and conjugates from real and imaginary parts
        turn = np.block([[np.eye(SIZE // 2), 1j * np.eye(SIZE // 2)], [np.eye(SIZE // 2), -1j * np.eye(SIZE // 2)]])
        np.testing.assert_allclose(abar[d], np.linalg.solve(turn, exact @ turn).real, atol=3e-6)
        for row in range(2):
            expected, h = loop(a, full(p, "B", d), full(p, "C", d), dt, np.float64(x[row, :, d]))
            expected = expected.real + p["D"][d] * x[row, :, d]
            np.testing.assert_allclose(y[row, :, d], expected, atol=1e-5 * np.abs(expected).max())
            found = state[0][row, d] + 1j * state[1][row, d]
            np.testing.assert_allclose(found, h[: SIZE // 2], atol=1e-5 * np.abs(h).max())


@pytest.mark.parametrize("both", [False, True], ids=["causal", "bidirectional"])
def test_gradients_of_the_convolution_are_those_of_the_recurrence(both):
    layer = S4(width=WIDTH, state_size=SIZE, bidirectional=both)
    rng = np.random.default_rng(3)
    x, weights = np.float32(rng.normal(size=(2, 2, 50, WIDTH)))

    def loss(variables, x, scan):
        y, state = layer.apply(variables, x, scan=scan)
        return (y * weights).sum() + sum((h**2).sum() for h in jax.tree.leaves(state))

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)
    variables = {"params": init_params(layer)}
    expected = to_numpy(gradient(variables, x, "sequential"))
    assert_near(to_numpy(gradient(variables, x, "convolution")), expected, 1e-4)


def test_auto_takes_the_convolution_unless_there_are_states_or_resets():
    layer, params, x = make_case(50)
    call = lambda scan, **more: str(jax.make_jaxpr(lambda x: layer.apply({"params": params}, x, scan=scan, **more))(x))  # noqa: E731
    assert call("auto") == call("convolution") != call("sequential")
    reset, state = np.zeros((2, 50), bool), (np.zeros((2, WIDTH, SIZE // 2), np.float32),) * 2
    assert call("auto", reset=reset) == call("sequential", reset=reset)
    assert call("auto", state=state) == call("sequential", state=state)


@pytest.mark.parametrize(("fields", "message"), [({"state_size": 5}, "must be even"), ({"dt_max": 1e-4}, "dt_max=0.0001")])
def test_check_refuses_what_does_not_fit(fields, message):
    with pytest.raises(UserError, match=message):
        S4(width=8, **fields)
