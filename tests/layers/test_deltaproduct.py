"""DeltaProduct and Gated DeltaProduct against Siems et al. 2025 in NumPy, and what their products can track."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import init_params, run_layer, sigmoid, silu, start_state, transition
from lrnn_jax.errors import UserError
from lrnn_jax.layers.deltanet import DeltaNet
from lrnn_jax.layers.deltaproduct import DeltaProduct
from lrnn_jax.layers.gated_deltanet import GatedDeltaNet

WIDTH, HEADS, LENGTH, BATCH = 6, 2, 9, 2


def unit(x):
    return x / np.sqrt((x**2).sum() + 1e-6)


def run_numpy(p, x, s, layer):
    """One row, from the state ``s`` [H K V] and no earlier inputs. Returns outputs, last state and transitions."""
    size, writes, taps = layer.head_dim or WIDTH // HEADS, layer.householders, layer.conv_width
    streams, first = {}, 0
    for name in "qkv":
        z = x @ p[name]["kernel"]
        if taps:
            own = p["conv"]["kernel"][:, first : first + z.shape[1]]
            first += z.shape[1]
            z = np.stack([sum(own[j] * z[t - j] for j in range(taps) if t >= j) for t in range(len(x))])
        z = silu(z) if name == "v" or layer.key_activation == "silu" else z
        streams[name] = z.reshape(len(x), -1, HEADS, size * (layer.expand_v if name == "v" else 1))
    beta = (sigmoid(x @ p["beta"]["kernel"]) * (2 if layer.negative_eigenvalues else 1)).reshape(len(x), writes, HEADS)
    outputs, transitions = [], []
    for t in range(len(x)):
        heads, gate = [], np.ones(HEADS)
        if layer.gated:
            dt = np.log1p(np.exp(x[t] @ p["decay"]["kernel"] + p["decay"]["dt_bias"]))
            gate = np.exp(-np.exp(p["decay"]["A_log"]) * dt)
        for h in range(HEADS):
            a = gate[h] * np.eye(size)
            s[h] = gate[h] * s[h]
            for j in range(writes):
                k, v = unit(streams["k"][t, j, h]), streams["v"][t, j, h]
                reflection = np.eye(size) - beta[t, j, h] * np.outer(k, k)
                a, s[h] = reflection @ a, reflection @ s[h] + beta[t, j, h] * np.outer(k, v)
            o = s[h].T @ unit(streams["q"][t, 0, h]) / np.sqrt(size)
            heads.append(o / np.sqrt((o**2).mean() + 1e-5) * p["norm"]["scale"])
            transitions.append(a)
        o = np.concatenate(heads)
        o = o * silu(x[t] @ p["gate"]["kernel"]) if layer.output_gate else o
        outputs.append(o @ p["out"]["kernel"])
    return np.array(outputs), s, np.array(transitions).reshape(len(x), HEADS, size, size)


CASES = [
    {"householders": 1, "conv_width": 0, "negative_eigenvalues": False},
    {"householders": 2, "conv_width": 0, "key_activation": "linear", "head_dim": 5},
    {"householders": 2, "conv_width": 4, "gated": True, "expand_v": 2},
    {"householders": 3, "conv_width": 4, "gated": True, "output_gate": True, "negative_eigenvalues": False},
    {"householders": 3, "conv_width": 1, "output_gate": True, "key_activation": "linear"},
]


def prepare(layer, seed=0):
    rng = np.random.default_rng(seed)
    x = np.float32(rng.normal(size=(BATCH, LENGTH, WIDTH)))
    params = init_params(layer)
    params = jax.tree.map(lambda p: np.float32(p + 0.2 * rng.normal(size=p.shape)), params)
    start = start_state(layer, BATCH)
    state = {**start, "S": np.float32(rng.normal(size=start["S"].shape))}
    return x, params, state


@pytest.mark.parametrize("fields", CASES)
def test_equals_a_numpy_loop(fields):
    layer = DeltaProduct(WIDTH, heads=HEADS, **fields)
    x, params, state = prepare(layer)
    y, last = run_layer(layer, params, x, state=state)
    a = transition(layer, params, x)
    for name, wanted in (("conv", layer.conv_width > 0), ("decay", layer.gated), ("gate", layer.output_gate)):
        assert (name in params) == wanted
    exact = jax.tree.map(np.float64, params)
    for row in range(BATCH):
        outputs, s, transitions = run_numpy(exact, np.float64(x[row]), np.array(state["S"][row], np.float64), layer)
        np.testing.assert_allclose(y[row], outputs, atol=2e-5)
        np.testing.assert_allclose(last["S"][row], s, atol=5e-6)
        np.testing.assert_allclose(a[row], transitions, atol=3e-6)


@pytest.mark.parametrize(
    ("other", "fields"),
    [
        (DeltaNet(WIDTH, heads=HEADS), {}),
        (GatedDeltaNet(WIDTH, heads=HEADS), {"expand_v": 2, "gated": True, "output_gate": True}),
    ],
    ids=["deltanet", "gated_deltanet"],
)
def test_one_householder_is_the_layer_that_it_generalises(other, fields):
    layer = DeltaProduct(WIDTH, heads=HEADS, householders=1, **fields)
    x, params, state = prepare(other)
    expected, last = run_layer(other, params, x, state=state)
    y, state = run_layer(layer, params, x, state=state)
    np.testing.assert_array_equal(y, expected)
    jax.tree.map(np.testing.assert_array_equal, state, last)


def test_methods_agree_with_gates_and_more_values_than_keys_in_all_gradients():
    layer = DeltaProduct(WIDTH, heads=HEADS, householders=3, expand_v=2, gated=True, output_gate=True)
    x, params, state = prepare(layer)
    reset = np.random.default_rng(1).random((BATCH, LENGTH)) < 0.2

    def loss(method, params, x, state):
        run = nn.apply(lambda m, x, state: m(x, state=state, reset=reset, scan=method), layer)
        y, last = run({"params": params}, x, state)
        return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.cos(last["S"]))

    grad = jax.jit(jax.grad(loss, argnums=(1, 2, 3)), static_argnums=0)
    for a, b in zip(*(jax.tree.leaves(grad(method, params, x, state)) for method in DeltaProduct.METHODS), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


PERMUTATIONS = list(itertools.permutations(range(3)))


def swap_keys(permutation):
    """Up to two keys whose reflections, the first on the right, move entry ``permutation[i]`` to place i."""
    now, keys = [0, 1, 2], []
    for place in range(3):
        other = now.index(permutation[place])
        if other != place:
            now[place], now[other] = now[other], now[place]
            keys.append(np.eye(3)[place] - np.eye(3)[other])
    return keys


def group_parameters():
    """Grazzi et al. 2025, App.: BOS writes (1, 2, 3) with beta = 1, the six letters of S_3 reflect twice, or not at all.

    Tokens are one-hot: letters 0 to 5, then BOS. Only the first write of BOS does something.
    """
    k, v, beta = np.zeros((8, 2, 3)), np.zeros((8, 2, 3)), np.full((8, 2), -90.0)
    k[:, :, 0] = 1
    for letter, permutation in enumerate(PERMUTATIONS):
        for j, key in enumerate(swap_keys(permutation)):
            k[letter, j], beta[letter, j] = key, 40
    k[6, 0], beta[6, 0], v[6, 0] = [1, 2, 3], 0, 1
    q = np.zeros((8, 3))
    q[:, 0] = 1
    kernels = {"q": q, "k": 1024 * k.reshape(8, 6), "v": v.reshape(8, 6), "beta": beta, "out": np.eye(3, 8)}
    params = {name: {"kernel": np.float32(kernel)} for name, kernel in kernels.items()}
    return {**params, "norm": {"scale": np.ones(3, np.float32)}}


@pytest.mark.parametrize("method", DeltaProduct.METHODS)
def test_tracks_the_symmetric_group_of_three_with_two_householders(method):
    layer = DeltaProduct(8, heads=1, head_dim=3, householders=2, conv_width=0, key_activation="linear")
    letters = np.random.default_rng(0).integers(0, 6, 4000)
    x = np.eye(8, dtype=np.float32)[np.concatenate([[6], letters])][None]
    run = jax.jit(nn.apply(lambda m, x, state: m(x, state=state, scan=method), layer))
    state, now = start_state(layer, 1), np.arange(1, 4)
    for first in range(0, 4001, 400):  # the same program for every piece but the last
        piece = x[:, first : first + 400]
        _, state = run({"params": group_parameters()}, piece, state)
        for token in np.argmax(np.asarray(piece[0]), axis=1):
            now = now[list(PERMUTATIONS[token])] if token < 6 else now
        entries = np.asarray(state["S"][0, 0, :, 0])
        np.testing.assert_array_equal(np.rint(entries * 6 / entries.sum()), now)


def test_two_householders_rotate_only_with_negative_eigenvalues():
    """Grazzi et al. 2025, Proposition 1 (3)."""
    for negative in (False, True):
        layer = DeltaProduct(WIDTH, heads=HEADS, conv_width=0, key_activation="linear", negative_eigenvalues=negative)
        x, params, _ = prepare(layer)
        a = transition(layer, params, 10 * x)
        values = np.linalg.eigvals(np.asarray(a, np.float64))
        # an eigenvalue that is double in exact arithmetic splits by the root of the rounding
        assert (np.abs(values.imag).max() > 0.5) == negative
        assert negative or (np.abs(values.imag).max() < 2e-3 and values.real.min() > -1e-3)
        assert np.linalg.norm(np.asarray(a), 2, axis=(-2, -1)).max() < 1 + 1e-5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 3}, "heads=3 must be at least 1 and divide width=8"),
        ({"heads": 0, "head_dim": 4}, "heads=0 must be at least 1"),
        ({"head_dim": -1}, "head_dim=-1 must be at least 0"),
        ({"expand_v": 0}, "expand_v=0 must be at least 1"),
        ({"householders": 0}, "householders=0 must be at least 1"),
        ({"conv_width": -1}, "conv_width=-1 must be at least 0"),
        ({"key_activation": "sillu"}, "'sillu' is not one of silu, linear; did you mean 'silu'"),
    ],
)
def test_check_refuses_what_does_not_fit(fields, message):
    good = {
        "initial_values": "default",
        "width": 8,
        "heads": 2,
        "head_dim": 0,
        "expand_v": 1,
        "householders": 2,
        "conv_width": 0,
        "key_activation": "silu",
    }
    DeltaProduct.check(good)
    DeltaProduct.check({**good, "heads": 8, "head_dim": 32})  # the papers' state tracking: the inner width is not the width
    with pytest.raises(UserError, match=message):
        DeltaProduct.check({**good, **fields})
