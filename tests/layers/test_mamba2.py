"""Mamba-2 against Dao and Gu 2024 in NumPy; the range [-1, 1] is ours, as Grazzi et al. 2025, Eq. 2."""

import jax
import numpy as np
import pytest

from helpers import init_params, run_layer, silu, start_state, transition
from lrnn_jax.errors import UserError
from lrnn_jax.layers.mamba2 import Mamba2

WIDTH, HEADS, STATES, LENGTH, BATCH = 6, 4, 5, 9, 2


def run_numpy(p, u, h, *, groups, negative):
    """One row, from the state ``h`` [H N V] and no earlier inputs. Returns outputs, last state and decays."""
    inner = len(p["norm_scale"])
    projected = u @ p["in_proj"]["kernel"]
    z, xbc, dts = projected[:, :inner], projected[:, inner:-HEADS], projected[:, -HEADS:]
    kernel, rates = p["conv"]["kernel"], np.exp(p["A_log"])
    outputs, decays = [], []
    for t in range(len(u)):
        now = silu(sum(kernel[j] * xbc[t - j] for j in range(len(kernel)) if t >= j) + p["conv"]["bias"])
        x = now[:inner].reshape(HEADS, -1)
        b, c = now[inner:].reshape(2, groups, STATES)
        dt = np.log1p(np.exp(dts[t] + p["dt_bias"]))
        a, y = np.exp(-dt * rates), np.zeros_like(x)
        a = 2 * a - 1 if negative else a
        for head in range(HEADS):
            group = head // (HEADS // groups)
            h[head] = a[head] * h[head] + dt[head] * np.outer(b[group], x[head])
            y[head] = h[head].T @ c[group] + p["D"][head] * x[head]
        gated = (y.reshape(-1) * silu(z[t])).reshape(groups, -1)
        gated = gated / np.sqrt((gated**2).mean(axis=1, keepdims=True) + 1e-5)
        outputs.append((gated.reshape(-1) * p["norm_scale"]) @ p["out_proj"]["kernel"])
        decays.append(a)
    return np.array(outputs), h, np.array(decays)


@pytest.mark.parametrize("method", Mamba2.METHODS)
@pytest.mark.parametrize(
    ("taps", "groups", "expand", "negative"), [(4, 1, 2, False), (2, 2, 2, False), (1, 4, 4, True), (4, 1, 2, True)]
)
def test_equals_a_numpy_loop(taps, groups, expand, negative, method):
    rng = np.random.default_rng(0)
    sizes = {"heads": HEADS, "state_size": STATES, "expand": expand, "conv_width": taps, "groups": groups}
    layer = Mamba2(WIDTH, **sizes, negative_eigenvalues=negative)
    x = np.float32(rng.normal(size=(BATCH, LENGTH, WIDTH)))
    params = init_params(layer)
    params = jax.tree.map(lambda p: np.float32(p + 0.5 * rng.normal(size=p.shape)), params)
    params["dt_bias"] = params["dt_bias"] + np.float32(4)
    start = rng.normal(size=(BATCH, HEADS, STATES, expand * WIDTH // HEADS))
    state = {**start_state(layer, BATCH), "h": np.float32(start)}
    y, last = run_layer(layer, params, x, state=state, scan=method)
    a = transition(layer, params, x)
    assert (np.min(a) < -0.1) == negative
    exact = jax.tree.map(np.float64, params)
    for row in range(BATCH):
        h = np.array(state["h"][row], np.float64)
        outputs, h, decays = run_numpy(exact, np.float64(x[row]), h, groups=groups, negative=negative)
        np.testing.assert_allclose(y[row], outputs, atol=5e-6 * np.abs(outputs).max())
        np.testing.assert_allclose(last["h"][row], h, atol=3e-6 * np.abs(h).max())
        np.testing.assert_allclose(a[row], decays, atol=2e-6)


def test_initial_decays_and_step_sizes_are_mamba2s():
    layer = Mamba2(1000, heads=1000, state_size=1, expand=1)
    params = init_params(layer)
    np.testing.assert_array_equal(params["D"], np.ones(1000))
    np.testing.assert_array_equal(params["norm_scale"], np.ones(1000))
    rates = np.sort(np.exp(np.float64(params["A_log"])))
    steps = np.sort(np.log10(np.log1p(np.exp(np.float64(params["dt_bias"])))))
    for values, low, high in [(rates, 1, 16), (steps, -3, -1)]:
        uniform = low + (high - low) * np.arange(1000) / 1000
        # Kolmogorov and Smirnov's test
        assert np.abs(values - uniform).max() < (high - low) * 1.95 / np.sqrt(1000)
        assert low - 1e-4 < values[0]
        assert values[-1] < high + 1e-4
    kernel = np.asarray(params["in_proj"]["kernel"])
    assert 0.99 * 1000**-0.5 < np.abs(kernel).max() <= 1000**-0.5


def parity_parameters():
    """A = -1; BOS writes with dt near 1; "1" takes dt = 120, so 2 exp(-dt) - 1 = -1; "0" takes dt = 0, so it is 1.

    Tokens are one-hot: 0, 1, BOS. E = 4 channels in one head, N = 1; z, x, B, C, dt stand side by side.
    """
    project = np.zeros((4, 11), np.float32)
    project[:, :4] = 10  # z: every gate is open
    project[2, 4:8] = 10  # x: BOS alone writes
    project[2, 8] = 10  # B
    project[:, 9] = 10  # C
    project[:3, 10] = [-120, 120, 0]  # dt
    taps = np.zeros((1, 6), np.float32)
    taps[0] = 1
    return {
        "in_proj": {"kernel": project},
        "conv": {"kernel": taps, "bias": np.zeros(6, np.float32)},
        "dt_bias": np.zeros(1, np.float32),
        "A_log": np.zeros(1, np.float32),
        "D": np.zeros(1, np.float32),
        "norm_scale": np.ones(4, np.float32),
        "out_proj": {"kernel": np.eye(4, dtype=np.float32)},
    }


@pytest.mark.parametrize("method", Mamba2.METHODS)
@pytest.mark.parametrize("negative", [False, True], ids=["positive", "negative"])
def test_tracks_parity_with_eigenvalues_below_0_only(negative, method):
    bits = np.random.default_rng(0).integers(0, 2, 600)
    x = np.eye(4, dtype=np.float32)[np.concatenate([[2], bits])][None]
    layer = Mamba2(4, heads=1, state_size=1, expand=1, conv_width=1, negative_eigenvalues=negative)
    y, state = run_layer(layer, parity_parameters(), x, scan=method)
    signs = np.where(np.cumsum(bits) % 2, -1, 1)
    if negative:
        assert y[0, 0, 0] > 0.5
        np.testing.assert_array_equal(y[0, 1:], np.float32(signs[:, None]) * np.asarray(y[0, :1]))
    else:
        np.testing.assert_array_equal(state["h"], np.zeros((1, 1, 1, 4), np.float32))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *(({name: 0}, f"{name}=0 must be at least 1") for name in ("heads", "state_size", "expand", "conv_width", "groups")),
        ({"heads": 3}, "heads=3 must divide expand . width = 16"),
        ({"groups": 3}, "groups=3 must divide heads=4"),
    ],
)
def test_check_refuses_what_does_not_fit(fields, message):
    good = {"width": 8, "heads": 4, "state_size": 1, "expand": 2, "conv_width": 1, "groups": 1}
    Mamba2.check(good)
    with pytest.raises(UserError, match=message):
        Mamba2.check({**good, **fields})
