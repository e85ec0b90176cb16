"""The diagonal layer against Grazzi et al. 2025, Section 3 and Figure 1, in NumPy."""

import jax
import numpy as np
import pytest

from helpers import init_params, run_layer, transition
from lrnn_jax.layers.diagonal import Diagonal


def noisy(layer, x):
    """Initial parameters moved by noise: float32 for the layer, float64 for the loop."""
    rng = np.random.default_rng(1)
    params = init_params(layer)
    params = jax.tree.map(lambda p: np.float32(p + 0.2 * rng.normal(size=p.shape)), params)
    return params, jax.tree.map(np.float64, params)


@pytest.mark.parametrize(
    ("negative", "gain", "input_gate"), [(False, 10.0, False), (True, 1.0, False), (True, 10.0, True), (False, 1.0, True)]
)
def test_equals_a_numpy_loop(negative, gain, input_gate):
    rng = np.random.default_rng(0)
    layer = Diagonal(width=3, negative_eigenvalues=negative, gain=gain, input_gate=input_gate)
    x, h0 = np.float32(0.5 * rng.normal(size=(2, 9, 3))), np.float32(rng.normal(size=(2, 3)))
    params, exact = noisy(layer, x)
    y, state = run_layer(layer, params, x, state=h0)
    a = transition(layer, params, x)
    for row in range(2):
        h = h0[row].astype(np.float64)
        for t in range(9):
            logit = gain * (exact["decay"]["kernel"].T @ x[row, t] + exact["decay"]["bias"])
            decay = np.tanh(logit) if negative else 1 / (1 + np.exp(-logit))
            b = exact["input"]["kernel"].T @ x[row, t] + exact["input"]["bias"]
            h = decay * h + (b * x[row, t] if input_gate else b)
            np.testing.assert_allclose(a[row, t], decay, atol=1e-5)
            np.testing.assert_allclose(y[row, t], h, atol=1e-5)
        np.testing.assert_allclose(state[row], h, atol=1e-5)


@pytest.mark.parametrize("method", Diagonal.METHODS)
def test_tracks_parity_exactly_with_eigenvalues_1_and_minus_1(method):
    """Grazzi et al. 2025, Section 4.1: h_t = a(x_t) h_{t-1} + b(x_t), h_0 = b(0) = 0, b(1) = a(0) = 1, a(1) = -1."""
    bits = np.random.default_rng(0).integers(0, 2, 3000)
    params = {
        "decay": {"kernel": np.float32([[-4]]), "bias": np.float32([2])},
        "input": {"kernel": np.float32([[1]]), "bias": np.float32([0])},
    }
    layer = Diagonal(width=1)
    y, _ = run_layer(layer, params, np.float32(bits)[None, :, None], scan=method)
    np.testing.assert_array_equal(y[0, :, 0], np.cumsum(bits) % 2)
