"""DeltaNet against Grazzi et al. 2025, Table 1, Eq. 2 and Appendix, in NumPy."""

import itertools

import jax
import numpy as np
import pytest

from helpers import init_params, run_layer, sigmoid, silu, start_state, transition
from lrnn_jax.errors import UserError
from lrnn_jax.layers.deltanet import DeltaNet

WIDTH, HEADS, LENGTH, BATCH = 6, 2, 9, 2
SIZE = WIDTH // HEADS


def run_numpy(p, x, s, *, taps, activation, negative):
    """One row, from the state ``s`` [H K V] and no earlier inputs. Returns outputs, last state and transitions."""
    projected = np.concatenate([x @ p[name]["kernel"] for name in "qkv"], axis=1)
    if taps:
        kernel = p["conv"]["kernel"]
        projected = np.stack([sum(kernel[j] * projected[t - j] for j in range(taps) if t >= j) for t in range(len(x))])
    strength = sigmoid(x @ p["beta"]["kernel"]) * (2 if negative else 1)
    outputs, transitions = [], []
    for t in range(len(x)):
        q, k, v = projected[t].reshape(3, HEADS, SIZE)
        if activation == "silu":
            q, k = silu(q), silu(k)
        v = silu(v)
        q, k = (z / np.sqrt((z**2).sum(-1, keepdims=True) + 1e-6) for z in (q, k))
        heads = []
        for head in range(HEADS):
            a = np.eye(SIZE) - strength[t, head] * np.outer(k[head], k[head])
            s[head] = a @ s[head] + strength[t, head] * np.outer(k[head], v[head])
            o = s[head].T @ q[head] / np.sqrt(SIZE)
            heads.append(o / np.sqrt((o**2).mean() + 1e-5) * p["norm"]["scale"])
            transitions.append(a)
        outputs.append(np.concatenate(heads) @ p["out"]["kernel"])
    return np.array(outputs), s, np.array(transitions).reshape(len(x), HEADS, SIZE, SIZE)


@pytest.mark.parametrize(("taps", "activation", "negative"), list(itertools.product([0, 4], ["silu", "linear"], [False, True])))
def test_equals_a_numpy_loop(taps, activation, negative):
    rng = np.random.default_rng(0)
    layer = DeltaNet(WIDTH, heads=HEADS, conv_width=taps, key_activation=activation, negative_eigenvalues=negative)
    x = np.float32(rng.normal(size=(BATCH, LENGTH, WIDTH)))
    params = init_params(layer)
    params = jax.tree.map(lambda p: np.float32(p + 0.2 * rng.normal(size=p.shape)), params)
    state = {**start_state(layer, BATCH), "S": np.float32(rng.normal(size=(BATCH, HEADS, SIZE, SIZE)))}
    y, last = run_layer(layer, params, x, state=state)
    a = transition(layer, params, x)
    assert ("conv" in params) == bool(taps)
    exact = jax.tree.map(np.float64, params)
    for row in range(BATCH):
        s = np.array(state["S"][row], np.float64)
        outputs, s, transitions = run_numpy(exact, np.float64(x[row]), s, taps=taps, activation=activation, negative=negative)
        np.testing.assert_allclose(y[row], outputs, atol=2e-5)
        np.testing.assert_allclose(last["S"][row], s, atol=3e-6)
        np.testing.assert_allclose(a[row], transitions, atol=3e-6)


def parity_parameters():
    """Grazzi et al. 2025, App.: key e1 always; BOS writes (beta = 1), "1" reflects (beta = 2), "0" does nothing (beta = 0).

    Tokens are one-hot: 0, 1, BOS. Powers of two make the normalised key exactly e1.
    """
    key, value, first = np.zeros((3, 4, 4), np.float32)
    key[:, 0] = 1024
    value[2, 1] = 1
    first[1, 0] = 1
    strength = np.float32([[-90], [40], [0], [0]])
    identity = np.zeros((4, 12), np.float32)
    identity[0] = 1
    return {
        "q": {"kernel": key},
        "k": {"kernel": key},
        "v": {"kernel": value},
        "beta": {"kernel": strength},
        "conv": {"kernel": identity},
        "norm": {"scale": np.ones(4, np.float32)},
        "out": {"kernel": first},
    }


@pytest.mark.parametrize("activation", ["silu", "linear"])
@pytest.mark.parametrize("method", DeltaNet.METHODS)
def test_tracks_parity_exactly(method, activation):
    bits = np.random.default_rng(0).integers(0, 2, 2500)
    x = np.eye(4, dtype=np.float32)[np.concatenate([[2], bits])][None]
    layer = DeltaNet(4, heads=1, key_activation=activation)
    y, state = run_layer(layer, parity_parameters(), x, scan=method)
    start = float(y[0, 0, 0])
    assert start > 1
    signs = np.where(np.cumsum(bits) % 2, -1, 1)
    np.testing.assert_array_equal(y[0, 1:, 0], np.float32(start) * signs)
    np.testing.assert_array_equal(state["S"][0, 0, 0, 1], signs[-1] * np.float32(jax.nn.silu(1.0)))


def test_cannot_track_parity_with_the_same_weights_and_eigenvalues_above_0():
    """With beta in [0, 1] the token "1" erases instead of reflecting."""
    x = np.eye(4, dtype=np.float32)[[2, 0, 1, 1, 1]][None]
    _, state = run_layer(DeltaNet(4, heads=1, negative_eigenvalues=False), parity_parameters(), x)
    np.testing.assert_array_equal(state["S"], np.zeros((1, 1, 4, 4)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 3}, "heads=3 must be at least 1 and divide width=8"),
        ({"heads": 0}, "heads=0"),
        ({"heads": -2}, "heads=-2"),
        ({"conv_width": -1}, "conv_width=-1"),
        ({"key_activation": "sillu"}, "'sillu' is not one of silu, linear; did you mean 'silu'"),
        ({"key_activation": "relu"}, "'relu' is not one of silu, linear"),
    ],
)
def test_check_refuses_what_does_not_fit(fields, message):
    good = {
        "initial_values": "default",
        "width": 8,
        "heads": 2,
        "conv_width": 0,
        "key_activation": "linear",
        "negative_eigenvalues": True,
    }
    DeltaNet.check(good)
    with pytest.raises(UserError, match=message):
        DeltaNet.check({**good, **fields})
