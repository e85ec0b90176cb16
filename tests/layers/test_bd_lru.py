"""The BD-LRU against Dubinin et al. 2026 in NumPy, and what the paper proves of it."""

import itertools

import numpy as np
import pytest
from layers.dubinin import BOUNDED, check_bound, flatten, float64, share

from helpers import add_noise, assert_near, init_params, run_layer, transition
from lrnn_jax.errors import UserError
from lrnn_jax.layers.bd_lru import BDLRU
from lrnn_jax.layers.h_lru import HLRU
from lrnn_jax.parts.gates import GATES


def make_gates(layer, params, x):
    """[A_t | a_t^0] at one position."""
    p, size = float64(params), layer.block_size
    if layer.selective:
        logits = x @ p["a/kernel"] + p["a/bias"]
    else:
        logits = p["logits"] / (size + 1) if layer.gates == "none" else p["logits"]
    return share(logits.reshape(layer.blocks, size, size + 1), layer.gates)


def loop(layer, params, x, h):
    """Outputs and last state of one row, one position, block and feature after the other."""
    p, size, ys = float64(params), layer.block_size, []
    for now in np.float64(x):
        gates, v = make_gates(layer, params, now), (now @ p["v/kernel"]).reshape(h.shape)
        old, h = h, np.zeros(h.shape)
        for k, i in itertools.product(range(layer.blocks), range(size)):
            h[k, i] = sum(gates[k, i, j] * old[k, j] for j in range(size)) + gates[k, i, size] * v[k, i]
        ys.append(h.reshape(-1) @ p["out/kernel"])
    return np.stack(ys), h


@pytest.mark.parametrize(
    "fields",
    [{"gates": gates, "selective": selective} for gates in GATES for selective in (True, False)]
    + [{"block_size": 1}, {"block_size": 2}, {"block_size": 5}, {"block_size": 5, "gates": "linear"}],
    ids=str,
)
def test_equals_a_numpy_loop(fields):
    layer = BDLRU(width=4, **{"blocks": 2, "block_size": 3, **fields})
    rng = np.random.default_rng(0)
    params = add_noise(init_params(layer), 1, 0.5)
    x, h0 = np.float32(rng.normal(size=(2, 9, 4))), np.float32(rng.normal(size=(2, 2, layer.block_size)))
    expected = [loop(layer, params, x[row], np.float64(h0[row])) for row in range(2)]
    y, last = run_layer(layer, params, x, state=h0)
    assert_near((y, last), tuple(np.stack(part) for part in zip(*expected, strict=True)), 1e-5)
    a = np.stack([[make_gates(layer, params, np.float64(now))[..., :-1] for now in row] for row in x])
    assert_near(transition(layer, params, x), a, 1e-5)


def test_a_case_by_hand():
    """All logits 0, so every gate is 1/3."""
    layer = BDLRU(width=1, blocks=1, block_size=2)
    params = {"a": {"kernel": np.zeros((1, 6), np.float32), "bias": np.zeros(6, np.float32)}}
    params |= {"v": {"kernel": np.float32([[1, 2]])}, "out": {"kernel": np.float32([[1], [10]])}}
    y, h = run_layer(layer, params, np.float32([3, 0, 3]).reshape(1, 3, 1))
    # v = (3, 6), 0, (3, 6) and h = (1, 2), (1, 1), (2/3 + 1, 2/3 + 2)
    np.testing.assert_allclose(y[0, :, 0], [21, 11, 5 / 3 + 80 / 3], rtol=1e-6)
    np.testing.assert_allclose(h[0, 0], [5 / 3, 8 / 3], rtol=1e-6)


@pytest.mark.parametrize("gates", BOUNDED)
def test_blocks_of_one_are_a_leaky_average_and_the_h_lru_of_order_one(gates):
    block, order = BDLRU(width=4, blocks=5, block_size=1, gates=gates), HLRU(width=4, channels=5, order=1, gates=gates)
    params = add_noise(init_params(block), 1, 0.5)
    x = np.random.default_rng(2).normal(size=(2, 9, 4)).astype(np.float32)
    h0 = np.random.default_rng(3).normal(size=(2, 5, 1)).astype(np.float32)
    y, last = run_layer(block, params, x, state=h0)
    for found in (run_layer(order, params, x, state=h0), run_layer(order.clone(form="observer"), params, x, state=h0)):
        assert_near(found, (y, last), 1e-6)
    if gates == "softmax":
        p, h = float64(params), np.float64(h0[..., 0])
        for t in range(9):
            a0 = share((x[:, t] @ p["a/kernel"] + p["a/bias"]).reshape(2, 5, 2), gates)[..., 1]
            h = (1 - a0) * h + a0 * (x[:, t] @ p["v/kernel"])
        assert_near(last[..., 0], h, 1e-6)


@pytest.mark.parametrize("gates", BOUNDED)
def test_states_are_bounded_by_inputs_and_first_state(gates):
    """Proposition 1: magnitudes of a row's gates add up to at most 1. The bound is reached, so more would be seen."""
    assert 0.5 < check_bound(BDLRU(width=6, blocks=2, block_size=3, gates=gates)) <= 1 + 1e-5


def test_without_normalisation_states_are_not_bounded():
    layer = BDLRU(width=1, blocks=1, block_size=1, gates="none")
    params = {"a": {"kernel": np.zeros((1, 2), np.float32), "bias": np.float32([2, 1])}}
    params |= {"v": {"kernel": np.float32([[1]])}, "out": {"kernel": np.float32([[1]])}}
    y, _ = run_layer(layer, params, np.ones((1, 4, 1), np.float32))
    np.testing.assert_array_equal(y[0, :, 0], [1, 3, 7, 15])


@pytest.mark.parametrize("gates", BOUNDED)
def test_eigenvalues_are_within_one_minus_the_smallest_input_gate(gates):
    layer = BDLRU(width=6, blocks=2, block_size=3, gates=gates)
    params = add_noise(init_params(layer), 1, 1.0)
    x = np.random.default_rng(0).normal(size=(2, 50, 6)).astype(np.float32)
    radius = np.abs(np.linalg.eigvals(np.float64(transition(layer, params, x)))).max(-1)
    a0 = np.stack([[make_gates(layer, params, np.float64(now))[..., -1] for now in row] for row in x])
    assert (radius <= 1 - np.abs(a0).min(-1) + 1e-6).all()
    assert radius.max() > 0.5


def test_blocks_of_two_with_softmax_have_real_eigenvalues_some_of_them_negative():
    layer = BDLRU(width=6, blocks=4, block_size=2)
    params = add_noise(init_params(layer), 1, 1.0)
    a = transition(layer, params, np.random.default_rng(0).normal(size=(2, 50, 6)).astype(np.float32))
    values = np.linalg.eigvals(np.float64(a))
    assert np.abs(values.imag).max() == 0
    assert values.real.min() < -0.2


@pytest.mark.parametrize("size", [3, 5])
def test_saturated_gates_permute_a_block_exactly(size):
    """Permutations are limits of the softmax: all six of S_3, and six of S_5, in a random order."""
    rng = np.random.default_rng(0)
    permutations = np.array(list(itertools.permutations(range(size))))
    permutations = permutations if size == 3 else permutations[rng.choice(120, 6, replace=False)]
    layer = BDLRU(width=6, blocks=1, block_size=size)
    kernel = np.zeros((6, size, size + 1), np.float32)
    for which, permutation in enumerate(permutations):
        kernel[which, range(size), permutation] = 300
    params = {"a": {"kernel": kernel.reshape(6, -1), "bias": np.zeros(size * (size + 1), np.float32)}}
    params |= {"v": {"kernel": np.ones((6, size), np.float32)}, "out": {"kernel": np.eye(size, 6, dtype=np.float32)}}
    word = rng.integers(0, 6, 100)
    state = np.arange(1, size + 1, dtype=np.float32)
    y, last = run_layer(layer, params, np.eye(6, dtype=np.float32)[None, word], state=state[None, None])
    for t, which in enumerate(word):
        state = state[permutations[which]]
        np.testing.assert_array_equal(y[0, t, :size], state)
    np.testing.assert_array_equal(last[0, 0], state)


def test_initial_values_are_the_released_ones():
    """Matrices of standard deviation 0.02 and no bias: gates near 1 / (M + 1); logits of fixed gates uniform in [0, 1)."""
    params = init_params(BDLRU(width=64, blocks=32, block_size=4))
    for name in ("v", "a", "out"):
        np.testing.assert_allclose(params[name]["kernel"].std(), 0.02, rtol=0.03)
    np.testing.assert_array_equal(params["a"]["bias"], 0)
    assert sorted(path for path, _ in flatten(params)) == ["a/bias", "a/kernel", "out/kernel", "v/kernel"]
    logits = init_params(BDLRU(width=4, blocks=64, block_size=4, selective=False))["logits"]
    assert logits.shape == (64, 4, 5)
    assert 0 <= logits.min() < 0.01 and 0.99 < logits.max() < 1
    np.testing.assert_allclose(logits.mean(), 0.5, atol=0.03)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"blocks": 0}, "blocks=0 must be at least 1"),
        ({"block_size": 0}, "block_size=0 must be at least 1"),
        ({"gates": "softmaxx"}, "gates='softmaxx' is not one of softmax, sigmoid, .*; did you mean 'softmax'"),
    ],
)
def test_check_refuses_what_does_not_fit(fields, message):
    with pytest.raises(UserError, match=message):
        BDLRU(width=8, **fields)


def test_variants_are_the_normalisations_and_fixed_gates():
    assert list(BDLRU.VARIANTS) == [*GATES, "fixed"]
    assert BDLRU.VARIANTS["softmax"] == {"gates": BDLRU.gates}
