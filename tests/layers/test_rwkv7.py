"""RWKV-7's time mixing against Peng et al. 2025, in NumPy and in the paper's convention: values by keys."""

import jax
import numpy as np
import pytest

from helpers import init_params, run_layer, sigmoid, transition
from lrnn_jax.errors import UserError
from lrnn_jax.layers.rwkv7 import RWKV7

WIDTH, HEADS, LENGTH, BATCH = 8, 2, 9, 2
SIZE = WIDTH // HEADS


def run_numpy(p, x, last, s):
    """One row, from the last input and the state [H V K]. Returns outputs, the state and the transitions [T H K K]."""
    outputs, transitions = [], []
    for t in range(len(x)):
        before = x[t - 1] if t else last
        mixed = {name: x[t] + (before - x[t]) * p[f"x_{name}"] for name in "rwkvag"}
        r, k, v = (mixed[name] @ p[f"{name}_proj"]["kernel"] for name in "rkv")
        d = np.tanh(mixed["w"] @ p["w_lora"]["down"]) @ p["w_lora"]["up"] + p["w_lora"]["bias"]
        w = np.exp(-np.exp(-0.5) * sigmoid(d))
        a = sigmoid(mixed["a"] @ p["a_lora"]["down"] @ p["a_lora"]["up"] + p["a_lora"]["bias"])
        g = sigmoid(mixed["g"] @ p["g_lora"]["down"]) @ p["g_lora"]["up"]
        removal, k = k * p["k_k"], k * (1 + (a - 1) * p["k_a"])
        heads = []
        for head in range(HEADS):
            part = slice(head * SIZE, (head + 1) * SIZE)
            kappa = removal[part] / np.linalg.norm(removal[part])
            transition = np.diag(w[part]) - np.outer(kappa, a[part] * kappa)
            s[head] = s[head] @ transition + np.outer(v[part], k[part])
            o = s[head] @ r[part]
            o = (o - o.mean()) / np.sqrt(o.var() + SIZE * 1e-5) * p["norm"]["scale"][head] + p["norm"]["bias"][head]
            heads.append(o + (r[part] * k[part] * p["r_k"][head]).sum() * v[part])
            transitions.append(transition.T)
        outputs.append((g * np.concatenate(heads)) @ p["o_proj"]["kernel"])
    return np.array(outputs), s, np.array(transitions).reshape(len(x), HEADS, SIZE, SIZE)


def initialise(layer, x, scale=0.5):
    rng = np.random.default_rng(0)
    params = init_params(layer)
    return jax.tree.map(lambda p: np.float32(p + scale * rng.normal(size=p.shape)), params)


def test_equals_a_numpy_loop():
    rng = np.random.default_rng(1)
    layer = RWKV7(WIDTH, heads=HEADS, decay_rank=2, rate_rank=3, gate_rank=5)
    x = np.float32(rng.normal(size=(BATCH, LENGTH, WIDTH)))
    params = initialise(layer, x)
    state = {"S": rng.normal(size=(BATCH, HEADS, SIZE, SIZE)), "x": rng.normal(size=(BATCH, WIDTH))}
    state = jax.tree.map(np.float32, state)
    y, last = run_layer(layer, params, x, state=state)
    a = transition(layer, params, x)
    exact = jax.tree.map(np.float64, params)
    for row in range(BATCH):
        s = np.float64(state["S"][row]).swapaxes(-1, -2)
        outputs, s, _ = run_numpy(exact, np.float64(x[row]), np.float64(state["x"][row]), s)
        np.testing.assert_allclose(y[row], outputs, atol=1e-5 * np.abs(outputs).max())
        np.testing.assert_allclose(last["S"][row], s.swapaxes(-1, -2), atol=1e-5 * np.abs(s).max())
        np.testing.assert_array_equal(last["x"][row], x[row, -1])
        _, _, transitions = run_numpy(exact, np.float64(x[row]), np.zeros(WIDTH), s)
        np.testing.assert_allclose(a[row], transitions, atol=3e-6)


def test_eigenvalues_are_real_and_between_the_least_decay_minus_1_and_1():
    layer = RWKV7(WIDTH, heads=HEADS)
    x = np.float32(np.random.default_rng(1).normal(size=(BATCH, 200, WIDTH)) * 10)
    params = initialise(layer, x, 1.0)
    a = transition(layer, params, x)
    values = np.linalg.eigvals(np.asarray(a, np.float64))
    assert np.abs(values.imag).max() < 1e-6
    assert values.real.max() <= 1 + 1e-6
    assert np.exp(-np.exp(-0.5)) - 1 - 1e-6 <= values.real.min() < -0.3


def test_a_reset_forgets_the_last_input_too():
    layer = RWKV7(WIDTH, heads=HEADS)
    x = np.float32(np.random.default_rng(1).normal(size=(1, 4, WIDTH)))
    params = initialise(layer, x)
    y, _ = run_layer(layer, params, x, reset=np.array([[False, False, True, False]]))
    alone, _ = run_layer(layer, params, x[:, 2:])
    carried, _ = run_layer(layer, params, x)
    np.testing.assert_allclose(y[:, 2:], alone, atol=1e-6)
    assert np.abs(carried[:, 2:] - alone).max() > 1e-2


def test_starts_as_released():
    params = init_params(RWKV7(64, heads=2))
    np.testing.assert_allclose(params["x_r"][:3], [1, 1 - (1 / 64) ** 0.2, 1 - (2 / 64) ** 0.2], rtol=1e-5)
    np.testing.assert_allclose(params["x_w"][32], 1 - 0.5**0.9, rtol=1e-5)
    np.testing.assert_allclose(params["k_k"][[0, 63]], [0.76, 0.66], rtol=1e-5)
    # -6 + 0.5 - 2.5 at the start of the first head, 0 + 0.5 + 2.5 at the end of the second
    np.testing.assert_allclose(params["w_lora"]["bias"][[0, 63]], [-8, 3], rtol=1e-5)
    np.testing.assert_allclose(params["a_lora"]["bias"][[0, 31, 32]], [-0.69, 0.1068, -0.4868], atol=1e-3)
    np.testing.assert_array_equal(params["k_a"], np.full(64, np.float32(1.02)))
    np.testing.assert_array_equal(params["r_k"], np.full((2, 32), np.float32(-0.04)))
    for name, bound in {"r_proj": 0.5 / 8, "k_proj": 0.05 / 8, "v_proj": 0.5 / 8, "o_proj": 1e-4}.items():
        assert 0.95 * bound < np.abs(params[name]["kernel"]).max() <= bound
    up = np.asarray(params["w_lora"]["up"])
    np.testing.assert_allclose(up @ up.T, 0.01 * np.eye(32), atol=1e-6)


@pytest.mark.parametrize(
    ("width", "ranks"), [(768, (64, 64, 128)), (1024, (64, 64, 160)), (2048, (128, 128, 224)), (8, (4, 4, 4)), (2, (1, 1, 1))]
)
def test_ranks_are_the_released_ones_or_half_the_width(width, ranks):
    variables = jax.eval_shape(RWKV7(width, heads=1).init, jax.random.key(0), np.zeros((1, 1, width), np.float32))
    assert tuple(variables["params"][f"{name}_lora"]["down"].shape[1] for name in "wag") == ranks


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 3}, "heads=3 must be at least 1 and divide width=8"),
        ({"heads": 8}, "heads=8 must leave each head two of 8 features or more, for its norm"),
        ({"decay_rank": -1}, "decay_rank=-1 must be at least 0"),
        ({"rate_rank": -1}, "rate_rank=-1"),
        ({"gate_rank": -2}, "gate_rank=-2"),
    ],
)
def test_check_refuses_what_does_not_fit(fields, message):
    good = {"initial_values": "default", "width": 8, "heads": 2, "decay_rank": 0, "rate_rank": 1, "gate_rank": 9}
    RWKV7.check(good)
    with pytest.raises(UserError, match=message):
        RWKV7.check({**good, **fields})
