"""Mamba against Gu and Dao 2023 and Grazzi et al. 2025, Table 1, Eq. 2, in NumPy."""

import jax
import numpy as np
import pytest

from helpers import init_params, run_layer, silu, start_state, transition
from lrnn_jax.errors import UserError
from lrnn_jax.layers.mamba import Mamba

WIDTH, LENGTH, BATCH = 3, 9, 2


def run_numpy(p, x, h, *, states, rank, negative):
    """One row, from the state ``h`` [E N] and no earlier inputs. Returns outputs, last state and transitions."""
    inner = len(p["D"])
    u, z = np.split(x @ p["in_proj"]["kernel"], 2, axis=1)
    kernel, a = p["conv"]["kernel"], -np.exp(p["A_log"])
    outputs, transitions = [], []
    for t in range(len(x)):
        now = silu(sum(kernel[j] * u[t - j] for j in range(len(kernel)) if t >= j) + p["conv"]["bias"])
        projected = now @ p["x_proj"]["kernel"]
        b, c = projected[rank : rank + states], projected[rank + states :]
        dt = np.log1p(np.exp(projected[:rank] @ p["dt_proj"]["kernel"] + p["dt_proj"]["bias"]))
        abar, y = np.zeros((inner, states)), np.zeros(inner)
        for e in range(inner):
            for n in range(states):
                abar[e, n] = np.exp(dt[e] * a[e, n]) * (2 if negative else 1) - (1 if negative else 0)
                h[e, n] = abar[e, n] * h[e, n] + dt[e] * now[e] * b[n]
                y[e] += h[e, n] * c[n]
            y[e] = (y[e] + p["D"][e] * now[e]) * silu(z[t, e])
        outputs.append(y @ p["out_proj"]["kernel"])
        transitions.append(abar)
    return np.array(outputs), h, np.array(transitions)


@pytest.mark.parametrize(("taps", "rank", "expand"), [(4, 0, 2), (1, 2, 1)])
@pytest.mark.parametrize("negative", [False, True], ids=["positive", "negative"])
def test_equals_a_numpy_loop(negative, taps, rank, expand):
    rng = np.random.default_rng(0)
    layer = Mamba(WIDTH, state_size=4, expand=expand, conv_width=taps, dt_rank=rank, negative_eigenvalues=negative)
    x = np.float32(rng.normal(size=(BATCH, LENGTH, WIDTH)))
    params = init_params(layer)
    assert params["dt_proj"]["kernel"].shape == (rank or 1, expand * WIDTH)
    params = jax.tree.map(lambda p: np.float32(p + 0.5 * rng.normal(size=p.shape)), params)
    state = {**start_state(layer, BATCH), "h": np.float32(rng.normal(size=(BATCH, expand * WIDTH, 4)))}
    y, last = run_layer(layer, params, x, state=state)
    a = transition(layer, params, x)
    exact = jax.tree.map(np.float64, params)
    for row in range(BATCH):
        h = np.array(state["h"][row], np.float64)
        outputs, h, transitions = run_numpy(exact, np.float64(x[row]), h, states=4, rank=rank or 1, negative=negative)
        np.testing.assert_allclose(y[row], outputs, atol=5e-6 * np.abs(outputs).max())
        np.testing.assert_allclose(last["h"][row], h, atol=3e-6 * np.abs(h).max())
        np.testing.assert_allclose(a[row], transitions, atol=2e-6)


def test_the_rank_of_the_step_size_is_a_sixteenth_of_the_width_rounded_up():
    for width, rank in [(8, 1), (16, 1), (17, 2), (40, 3)]:
        variables = jax.eval_shape(Mamba(width, state_size=2).init, jax.random.key(0), np.zeros((1, 1, width), np.float32))
        assert variables["params"]["dt_proj"]["kernel"].shape == (rank, 2 * width)


def test_initial_decays_and_step_sizes_are_mambas():
    params = init_params(Mamba(1000, state_size=5, dt_rank=4))
    np.testing.assert_allclose(params["A_log"], np.tile(np.log(np.arange(1, 6)), (2000, 1)), rtol=1e-6)
    np.testing.assert_array_equal(params["D"], np.ones(2000))
    steps = np.sort(np.log10(np.log1p(np.exp(np.float64(params["dt_proj"]["bias"])))))
    assert -3 - 1e-4 < steps[0] < -2.98
    assert -1.02 < steps[-1] < -1 + 1e-4
    uniform = -3 + 2 * np.arange(2000) / 2000
    assert np.abs(steps - uniform).max() < 2 * 1.95 / np.sqrt(2000)  # log-uniform: Kolmogorov and Smirnov's test
    kernel = np.asarray(params["dt_proj"]["kernel"])
    assert 0.99 * 4**-0.5 < np.abs(kernel).max() <= 4**-0.5


def parity_parameters():
    """Grazzi et al. 2025, App.: A = -1; BOS writes; "1" takes dt = 40, so abar = -1; "0" takes dt near 0, so abar = 1.

    Tokens are one-hot: 0, 1, BOS.
    """
    inner = 4
    out = np.zeros((inner, 4), np.float32)
    out[2, 0] = 1
    gate = np.full((4, inner), 10, np.float32)
    taps = np.zeros((4, inner), np.float32)
    taps[0] = 1
    return {
        "in_proj": {"kernel": np.concatenate([10 * np.eye(4, inner, dtype=np.float32), gate], axis=1)},
        "conv": {"kernel": taps, "bias": np.zeros(inner, np.float32)},
        "x_proj": {"kernel": np.float32([[-5, 0, 1], [5, 0, 1], [0, 1, 1], [0, 0, 0]])},  # delta, B, C
        "dt_proj": {"kernel": np.ones((1, inner), np.float32), "bias": np.zeros(inner, np.float32)},
        "A_log": np.zeros((inner, 1), np.float32),
        "D": np.zeros(inner, np.float32),
        "out_proj": {"kernel": out},
    }


@pytest.mark.parametrize("method", Mamba.METHODS)
def test_tracks_parity_exactly(method):
    bits = np.random.default_rng(0).integers(0, 2, 2500)
    x = np.eye(4, dtype=np.float32)[np.concatenate([[2], bits])][None]
    layer = Mamba(4, state_size=1, expand=1)
    y, state = run_layer(layer, parity_parameters(), x, scan=method)
    start = np.float32(y[0, 0, 0])
    assert start > 1
    signs = np.where(np.cumsum(bits) % 2, -1, 1)
    np.testing.assert_array_equal(y[0, 1:, 0], start * signs)
    assert abs(float(state["h"][0, 2, 0])) > 1


def test_forgets_parity_with_the_same_weights_and_eigenvalues_above_0():
    x = np.eye(4, dtype=np.float32)[[2, 0, 1, 1, 1, 1]][None]
    y, _ = run_layer(Mamba(4, state_size=1, expand=1, negative_eigenvalues=False), parity_parameters(), x)
    assert y[0, 1, 0] == y[0, 0, 0] > 1  # "0" keeps the state
    np.testing.assert_allclose(y[0, 2:, 0], 0, atol=1e-10)  # "1" erases it


@pytest.mark.parametrize("fields", [{"state_size": 0}, {"expand": 0}, {"conv_width": 0}, {"dt_rank": -1}])
def test_check_refuses_what_does_not_fit(fields):
    good = {
        "initial_values": "default",
        "width": 8,
        "state_size": 1,
        "expand": 1,
        "conv_width": 1,
        "dt_rank": 0,
        "negative_eigenvalues": True,
    }
    Mamba.check(good)
    ((name, value),) = fields.items()
    with pytest.raises(UserError, match=f"{name}={value} must be at least"):
        Mamba.check({**good, **fields})
