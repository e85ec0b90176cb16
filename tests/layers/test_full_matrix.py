"""The full-matrix baseline against Grazzi et al. 2025, App. E.2, in NumPy."""

import itertools

import jax
import numpy as np
import pytest

from helpers import init_params, run_layer, transition
from lrnn_jax.errors import UserError
from lrnn_jax.layers.full_matrix import FullMatrix

WIDTH, SIZE, LENGTH, BATCH = 5, 3, 30, 2


def run_numpy(p, x):
    """One row, with the product itself as the state."""
    h, outputs = np.eye(SIZE), []
    for t in range(len(x)):
        h = (x[t] @ p["matrix"]["kernel"] + p["matrix"]["bias"]).reshape(SIZE, SIZE) @ h
        flat = h.reshape(-1)
        outputs.append(flat / max(1, np.linalg.norm(flat)) @ p["out"]["kernel"] + p["out"]["bias"])
    return np.array(outputs), h


@pytest.mark.parametrize("shrink", [1.0, 0.7])
@pytest.mark.parametrize("method", FullMatrix.METHODS)
def test_equals_a_numpy_loop_outside_and_inside_the_ball(method, shrink):
    rng = np.random.default_rng(0)
    layer = FullMatrix(WIDTH, size=SIZE)
    x = np.float32(rng.normal(size=(BATCH, LENGTH, WIDTH)))
    params = init_params(layer)
    params = jax.tree.map(lambda p: np.float32(p + 0.1 * rng.normal(size=p.shape)), params)
    params["matrix"] = jax.tree.map(lambda p: np.float32(shrink) * p, params["matrix"])
    y, last = run_layer(layer, params, x, scan=method)
    exact = jax.tree.map(np.float64, params)
    for row in range(BATCH):
        outputs, h = run_numpy(exact, np.float64(x[row]))
        assert (np.linalg.norm(h) > 1) == (shrink == 1)
        np.testing.assert_allclose(y[row], outputs, atol=1e-5)
        np.testing.assert_allclose(last["H"][row] * np.exp(last["log_norm"][row]), h, rtol=0, atol=1e-5 * np.abs(h).max())


@pytest.mark.parametrize("method", FullMatrix.METHODS)
def test_tracks_every_permutation_of_four_exactly(method):
    """The transposed permutation matrix of x_t on the left makes H the product x_1 o ... o x_t, as the word problem has it."""
    group = list(itertools.permutations(range(4)))
    width = len(group)
    matrices = np.stack([np.eye(4)[list(p)] for p in group])  # row i is e_p(i): H_t[i] = H_{t-1}[p(i)]
    params = {
        "matrix": {"kernel": np.float32(matrices.reshape(width, 16)), "bias": np.zeros(16, np.float32)},
        "out": {"kernel": np.float32(matrices.reshape(width, 16).T), "bias": np.zeros(width, np.float32)},
    }
    words = np.random.default_rng(0).integers(0, width, 1000)
    y, _ = run_layer(FullMatrix(width, size=4), params, np.eye(width, dtype=np.float32)[words][None], scan=method)
    product, expected = tuple(range(4)), []
    for word in words:
        product = tuple(product[i] for i in group[word])  # (y o x)(i) = y(x(i))
        expected.append(group.index(product))
    np.testing.assert_array_equal(np.argmax(y[0], axis=-1), expected)
    np.testing.assert_allclose(np.max(y[0], axis=-1), 2.0, rtol=1e-4)  # 4 entries of 1/2: on the unit sphere


def test_starts_near_the_identity():
    layer = FullMatrix(64)
    x = np.float32(np.random.default_rng(0).normal(size=(1, 50, 64)))
    a = transition(layer, init_params(layer), x)
    assert a.shape == (1, 50, 32, 32)
    assert 0.009 < np.std(a - np.eye(32)) < 0.011
    assert np.abs(np.mean(a, axis=(0, 1)) - np.eye(32)).max() < 0.01


@pytest.mark.parametrize("size", [0, -3])
def test_check_refuses_what_does_not_fit(size):
    FullMatrix.check({"width": 8, "size": 1})
    with pytest.raises(UserError, match=f"size={size} must be at least 1"):
        FullMatrix.check({"width": 8, "size": size})
