"""The LSTM against its textbook equations, in NumPy."""

import jax
import numpy as np

from helpers import init_params, run_layer, sigmoid, transition
from lrnn_jax.layers.lstm import LSTM

WIDTH, LENGTH, BATCH = 3, 9, 2


def test_equals_a_numpy_loop():
    rng = np.random.default_rng(0)
    layer = LSTM(WIDTH)
    x = np.float32(rng.normal(size=(BATCH, LENGTH, WIDTH)))
    params = init_params(layer)
    params = jax.tree.map(lambda p: np.float32(p + 0.5 * rng.normal(size=p.shape)), params)
    start = {name: np.float32(rng.normal(size=(BATCH, WIDTH))) for name in "ch"}
    y, last = run_layer(layer, params, x, state=start)
    forgets = transition(layer, params, x)
    p = jax.tree.map(np.float64, params)
    for row, carried in [(row, carried) for row in range(BATCH) for carried in (True, False)]:
        c, h = (np.float64(start[name][row]) * carried for name in "ch")
        for t in range(LENGTH):
            i, f, g, o = np.split(x[row, t] @ p["input"]["kernel"] + p["input"]["bias"] + h @ p["recurrent_kernel"], 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            if carried:
                np.testing.assert_allclose(y[row, t], h, atol=2e-6)
            else:
                np.testing.assert_allclose(forgets[row, t], sigmoid(f), atol=2e-6)
        if carried:
            np.testing.assert_allclose(last["c"][row], c, atol=2e-6)
            np.testing.assert_allclose(last["h"][row], h, atol=2e-6)


def test_starts_remembering_with_orthogonal_recurrent_blocks():
    params = init_params(LSTM(WIDTH))
    np.testing.assert_array_equal(params["input"]["bias"], np.repeat([0, 1, 0, 0], WIDTH))
    blocks = np.split(np.asarray(params["recurrent_kernel"]), 4, axis=1)
    for block in blocks:
        np.testing.assert_allclose(block.T @ block, np.eye(WIDTH), atol=1e-6)
    assert np.abs(blocks[0] - blocks[1]).max() > 0.1
