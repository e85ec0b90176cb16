"""S4D against Gu et al. 2022 in NumPy, complex and in float64."""

import jax
import numpy as np
import pytest

from helpers import init_params, run_layer, transition
from lrnn_jax.errors import UserError
from lrnn_jax.layers.s4d import S4D


def discretise(p, rule):
    """The paper's Section 3.1, with B = 1."""
    a, dt = -np.exp(p["A_re_log"]) + 1j * p["A_im"], np.exp(p["log_dt"])[:, None]
    if rule == "zoh":
        return np.exp(dt * a), (np.exp(dt * a) - 1) / a
    return (1 + dt * a / 2) / (1 - dt * a / 2), dt / (1 - dt * a / 2)


def loop(p, c, rule, x, h):
    """All outputs but for D, and the last state."""
    a, b = discretise(p, rule)
    y = np.zeros(x.shape)
    for t in range(x.shape[1]):
        h = a * h + b * x[:, t, :, None]
        y[:, t] = 2 * (c * h).sum(axis=-1).real
    return y, h


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
@pytest.mark.parametrize("scan", ["sequential", "chunked"])
def test_equals_a_numpy_loop(rule, scan):
    rng = np.random.default_rng(0)
    layer = S4D(width=3, state_size=8, discretisation=rule)
    x, h0 = np.float32(rng.normal(size=(2, 9, 3))), np.float32(rng.normal(size=(2, 2, 3, 4)))
    params = jax.tree.map(lambda p: np.float32(p + 0.3 * rng.normal(size=p.shape)), init_params(layer))
    y, state = run_layer(layer, params, x, state=tuple(h0), scan=scan)
    p = jax.tree.map(np.float64, params)
    expected, h = loop(p, p["C_re"] + 1j * p["C_im"], rule, x, h0[0] + 1j * h0[1].astype(np.float64))
    np.testing.assert_allclose(y, expected + p["D"] * x, atol=1e-5)
    np.testing.assert_allclose(state[0] + 1j * state[1], h, atol=1e-5)
    np.testing.assert_allclose(transition(layer, params, x), discretise(p, rule)[0], atol=1e-6)


def test_both_directions_are_a_loop_from_each_end():
    rng = np.random.default_rng(1)
    layer = S4D(width=3, state_size=8, bidirectional=True)
    x, params = np.float32(rng.normal(size=(2, 7, 3))), init_params(layer)
    y, state = run_layer(layer, params, x)
    p = jax.tree.map(np.float64, params)
    c = p["C_re"] + 1j * p["C_im"]
    forward, _ = loop(p, c[0], "zoh", x, 0)
    backward, _ = loop(p, c[1], "zoh", x[:, ::-1], 0)
    np.testing.assert_allclose(y, forward + backward[:, ::-1] + p["D"] * x, atol=1e-5)
    assert state == ()


def test_initial_eigenvalues():
    """S4D-Lin: -1/2 + i pi n; S4D-Inv: -1/2 + i N / pi (N / (2n + 1) - 1); S4D-LegS by hand for N = 2.

    There HiPPO-N is -1/2 plus the skew-symmetric matrix of sqrt(3) / 2 off the diagonal.
    """
    found = {name: init_params(S4D(width=2, state_size=4, eigenvalues=name)) for name in ("lin", "inv")}
    assert all(np.allclose(p["A_re_log"], np.log(0.5)) for p in found.values())
    np.testing.assert_allclose(found["lin"]["A_im"], np.tile([0, np.pi], (2, 1)), rtol=1e-6)
    np.testing.assert_allclose(found["inv"]["A_im"], np.tile([12 / np.pi, 4 / 3 / np.pi], (2, 1)), rtol=1e-6)
    np.testing.assert_allclose(init_params(S4D(width=2, state_size=2))["A_im"], np.full((2, 1), np.sqrt(3) / 2), rtol=1e-6)


def test_initial_steps_are_log_uniform_and_c_has_variance_one():
    params = init_params(S4D(width=4000, state_size=4, dt_min=0.01, dt_max=1.0))
    place = np.sort((params["log_dt"] - np.log(0.01)) / np.log(100))
    assert np.abs(place - np.arange(0.5, 4000) / 4000).max() < 1.95 / np.sqrt(4000)
    np.testing.assert_allclose(
        [params["C_re"].std(), params["C_im"].std(), params["D"].std()], [0.5**0.5, 0.5**0.5, 1], rtol=0.04
    )
    assert abs(np.corrcoef(params["C_re"].ravel(), params["C_im"].ravel())[0, 1]) < 0.04


def test_small_steps_lose_no_digits():
    """By zero-order hold Bbar tends to dt, where ``exp(dt A) - 1`` has no digits left in float32."""
    layer = S4D(width=1, state_size=2)
    params = {**init_params(layer), "log_dt": np.float32([np.log(1e-6)]), "D": np.zeros(1, np.float32)}
    params |= {"C_re": np.float32([[0.5]]), "C_im": np.float32([[0.0]])}
    y, _ = run_layer(layer, params, np.ones((1, 1, 1), np.float32))
    np.testing.assert_allclose(y, 1e-6, rtol=3e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"state_size": 5}, "state_size=5 must be even"),
        ({"state_size": 0}, "state_size=0"),
        ({"dt_min": 0.2}, "dt_min=0.2 and dt_max=0.1"),
        ({"dt_min": 0.0}, "dt_min=0.0"),
        ({"eigenvalues": "legt"}, "'legt'"),
        ({"discretisation": "euler"}, "'euler'"),
    ],
)
def test_check_refuses_what_does_not_fit(fields, message):
    with pytest.raises(UserError, match=message):
        S4D(width=8, **fields)
