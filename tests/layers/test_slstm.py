"""The sLSTM against Beck et al. 2024, Section 2.2: without the stabiliser, in float64 NumPy."""

import jax
import numpy as np
import pytest

from helpers import init_params, run_layer, sigmoid, to_numpy, transition
from lrnn_jax.errors import UserError
from lrnn_jax.layers.slstm import SLSTM

WIDTH, HEADS, LENGTH, BATCH = 6, 2, 9, 2
SIZE = WIDTH // HEADS


def run_numpy(p, x, *, taps, forget_gate):
    """One row from the zero state. Returns y, h, and log f and i before the exponential."""
    u = x
    if taps:
        kernel = p["conv"]["kernel"]
        u = [sum(kernel[j] * x[t - j] for j in range(taps) if t >= j) + p["conv"]["bias"] for t in range(len(x))]
        u = np.array(u) * sigmoid(np.array(u))
    c, n, h = np.zeros((3, HEADS, SIZE))
    ys, hs, log_forgets, log_writes = [], [], [], []
    for t in range(len(x)):
        gates = {}
        for g, (gate, source) in enumerate((("i", u), ("f", u), ("z", x), ("o", x))):
            heads = source[t].reshape(HEADS, SIZE)
            recurrent, bias = p["recurrent_kernel"][:, :, g], p["bias"][:, g]
            gates[gate] = np.stack([heads[j] @ p[f"{gate}_kernel"][j] + h[j] @ recurrent[j] for j in range(HEADS)]) + bias
        forget = np.exp(gates["f"]) if forget_gate == "exp" else sigmoid(gates["f"])
        c = forget * c + np.exp(gates["i"]) * np.tanh(gates["z"])
        n = forget * n + np.exp(gates["i"])
        h = sigmoid(gates["o"]) * c / n
        centred = h - h.mean(-1, keepdims=True)
        ys.append((centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p["norm"]["scale"]).reshape(-1))
        hs.append(h)
        log_forgets.append(np.log(forget))
        log_writes.append(gates["i"])
    return np.array(ys), np.array(hs), np.array(log_forgets), np.array(log_writes)


def initialise(layer, x, seed=0, scale=0.5):
    rng = np.random.default_rng(seed)
    params = init_params(layer)
    return jax.tree.map(lambda p: np.float32(p + scale * rng.normal(size=p.shape)), params)


@pytest.mark.parametrize(("taps", "forget_gate"), [(0, "sigmoid"), (4, "sigmoid"), (0, "exp")])
def test_equals_the_unstabilised_recurrence(taps, forget_gate):
    x = np.float32(np.random.default_rng(1).normal(size=(BATCH, LENGTH, WIDTH)))
    layer = SLSTM(WIDTH, heads=HEADS, conv_width=taps, forget_gate=forget_gate)
    params = initialise(layer, x)
    y, last = run_layer(layer, params, x)
    forgets = transition(layer, params, x)
    assert ("conv" in params) == bool(taps)
    exact = jax.tree.map(np.float64, params)
    for row in range(BATCH):
        ys, hs, log_forget, log_write = run_numpy(exact, np.float64(x[row]), taps=taps, forget_gate=forget_gate)
        np.testing.assert_allclose(y[row], ys, atol=3e-5)
        np.testing.assert_allclose(last["h"][row], hs[-1], atol=3e-6)
        m = log_write[0]  # the stabiliser; at the first step there is nothing to forget
        for t in range(1, LENGTH):
            m = np.maximum(log_forget[t] + m, log_write[t])
        np.testing.assert_allclose(last["m"][row], m, atol=1e-5)
        np.testing.assert_allclose(forgets[row].reshape(LENGTH, HEADS, SIZE), np.exp(log_forget), rtol=1e-5)


def make_parameters(size, **changes):
    """One head of ``size`` features with all gates' weights at zero, apart from ``changes``."""
    params = {f"{gate}_kernel": np.zeros((1, size, size), np.float32) for gate in "ifzo"}
    params |= {
        "recurrent_kernel": np.zeros((1, size, 4, size), np.float32),
        "bias": np.zeros((1, 4, size), np.float32),
        "norm": {"scale": np.ones((1, size), np.float32)},
    }
    return {**params, **changes}


def test_tracks_parity_exactly():
    """Two features say whether bit + parity so far is at least 1 and at least 2: it is odd where they differ.

    f is 0 and n therefore 1, so h = tanh(z) = +-1; features 2 and 3 have closed output gates.
    """
    z_kernel = np.zeros((1, 4, 4), np.float32)
    z_kernel[0, 0, :2] = 40
    recurrent = np.zeros((1, 4, 4, 4), np.float32)
    recurrent[0, 0, 2, :2], recurrent[0, 1, 2, :2] = 20, -20  # parity = (h_0 - h_1) / 2
    bias = np.zeros((1, 4, 4), np.float32)
    bias[0, 1], bias[0, 2, :2], bias[0, 3] = -200, (-20, -60), (40, 40, -200, -200)
    bits = np.random.default_rng(0).integers(0, 2, 2000)
    x = np.zeros((1, len(bits), 4), np.float32)
    x[0, :, 0] = bits
    layer = SLSTM(4, heads=1, conv_width=0)
    y, state = run_layer(layer, make_parameters(4, z_kernel=z_kernel, recurrent_kernel=recurrent, bias=bias), x)
    odd = np.cumsum(bits) % 2 == 1
    difference = y[0, :, 0] - y[0, :, 1]
    np.testing.assert_array_equal(difference == 0, ~odd)
    assert difference[odd].min() > 1
    np.testing.assert_array_equal(state["n"], np.ones((1, 1, 4)))


@pytest.mark.parametrize("level", [-200.0, 200.0])
def test_gates_whose_exponentials_overflow_have_finite_outputs_and_gradients(level):
    """The input gate's level cancels in c / n; the released code has 0 * inf in the first step's gradient."""
    layer = SLSTM(4, heads=1, conv_width=0, forget_gate="sigmoid")
    x = np.float32(np.random.default_rng(0).normal(size=(1, 6, 4)))
    kernels = {f"{gate}_kernel": np.float32(np.random.default_rng(1).normal(size=(1, 4, 4))) for gate in "ifzo"}

    @jax.jit
    def run(bias, weights):
        y, pull_back = jax.vjp(lambda bias: layer.apply({"params": make_parameters(4, **kernels, bias=bias)}, x)[0], bias)
        return y, pull_back(weights)[0]

    shifted, plain = np.zeros((2, 1, 4, 4), np.float32)
    shifted[0, 0] = level
    weights = np.cos(np.arange(x.size, dtype=np.float32)).reshape(x.shape)
    y, gradient = to_numpy(run(shifted, weights))
    np.testing.assert_allclose(y, run(plain, weights)[0], atol=1e-3)  # i is rounded at the level's size
    assert np.isfinite(gradient).all()
    assert np.any(gradient != 0)


def test_starts_as_released():
    params = init_params(SLSTM(64, heads=2, conv_width=0))
    np.testing.assert_array_equal(params["recurrent_kernel"], np.zeros((2, 32, 4, 32)))
    np.testing.assert_array_equal(params["bias"][:, [0, 2, 3]], np.zeros((2, 3, 32)))
    np.testing.assert_allclose(params["bias"][:, 1, [0, 31]], [[5, -7]] * 2, atol=1e-5)
    np.testing.assert_allclose(params["bias"][0, 1, 1], 5 - 12 * (1 / 31) ** 0.3, rtol=1e-5)
    np.testing.assert_allclose(np.std(params["i_kernel"]), np.sqrt(2 / (5 * 64)), rtol=0.1)
    layer = SLSTM(64, heads=2, conv_width=0, bias_init="standard")
    bias = init_params(layer)["bias"]
    assert 0.9 / 8 < np.abs(bias).max() <= 1 / 8
    assert np.abs(bias.mean()) < 0.02


def test_heads_do_not_mix():
    layer = SLSTM(WIDTH, heads=HEADS)
    x = np.float32(np.random.default_rng(1).normal(size=(1, 4, WIDTH)))
    params = initialise(layer, x)
    jacobian = jax.jit(jax.jacobian(lambda x: layer.apply({"params": params}, x)[0]))(x)
    reach = np.abs(jacobian).max(axis=(0, 1, 3, 4))
    np.testing.assert_array_equal(reach > 0, np.kron(np.eye(HEADS), np.ones((SIZE, SIZE))) > 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 3}, "heads=3 must be at least 1 and divide width=8"),
        ({"heads": 0}, "heads=0"),
        ({"heads": 8}, "heads=8 must leave each head two of 8 features or more, for its norm"),
        ({"conv_width": -1}, "conv_width=-1"),
        ({"forget_gate": "sigmiod"}, "'sigmiod' is not one of sigmoid, exp; did you mean 'sigmoid'"),
        ({"bias_init": "zero"}, "'zero' is not one of powerlaw, powerlaw_by_block, standard"),
    ],
)
def test_check_refuses_what_does_not_fit(fields, message):
    good = {"width": 8, "heads": 2, "conv_width": 0, "forget_gate": "exp", "bias_init": "standard"}
    SLSTM.check(good)
    with pytest.raises(UserError, match=message):
        SLSTM.check({**good, **fields})
