"""The GRU against its textbook equations, in NumPy."""

import jax
import numpy as np

from helpers import init_params, run_layer, sigmoid, transition
from lrnn_jax.layers.gru import GRU

WIDTH, LENGTH, BATCH = 3, 9, 2


def test_equals_a_numpy_loop():
    rng = np.random.default_rng(0)
    layer = GRU(WIDTH)
    x, start = np.float32(rng.normal(size=(BATCH, LENGTH, WIDTH))), np.float32(rng.normal(size=(BATCH, WIDTH)))
    params = jax.tree.map(lambda p: np.float32(p + 0.5 * rng.normal(size=p.shape)), init_params(layer))
    y, last = run_layer(layer, params, x, state=start)
    gates = transition(layer, params, x)
    p = jax.tree.map(np.float64, params)
    u_r, u_z, u_n = np.split(p["recurrent_kernel"], 3, axis=1)
    for row, carried in [(row, carried) for row in range(BATCH) for carried in (True, False)]:
        h = np.float64(start[row]) * carried
        for t in range(LENGTH):
            r, z, n = np.split(x[row, t] @ p["input"]["kernel"] + p["input"]["bias"], 3)
            r, z = sigmoid(r + h @ u_r), sigmoid(z + h @ u_z)
            h = (1 - z) * np.tanh(n + r * (h @ u_n + p["recurrent_bias"])) + z * h
            if carried:
                np.testing.assert_allclose(y[row, t], h, atol=2e-6)
            else:
                np.testing.assert_allclose(gates[row, t], z, atol=2e-6)
        if carried:
            np.testing.assert_allclose(last[row], h, atol=2e-6)


def test_starts_without_biases_and_with_orthogonal_recurrent_blocks():
    params = init_params(GRU(WIDTH))
    assert not params["input"]["bias"].any() and not params["recurrent_bias"].any()
    blocks = np.split(params["recurrent_kernel"], 3, axis=1)
    for block in blocks:
        np.testing.assert_allclose(block.T @ block, np.eye(WIDTH), atol=1e-6)
    assert np.abs(blocks[0] - blocks[1]).max() > 0.1


def test_released_values_are_torchs():
    params = init_params(GRU(400, initial_values="released"))
    once, twice = 400**-0.5 / 3**0.5, 400**-0.5 * (2 / 3) ** 0.5
    bias = np.split(params["input"]["bias"], 3)
    for values, deviation in [
        (params["input"]["kernel"], once), (params["recurrent_kernel"], once), (params["recurrent_bias"], once),
        (bias[0], twice), (bias[1], twice), (bias[2], once),
    ]:  # fmt: skip
        np.testing.assert_allclose(values.std(), deviation, rtol=0.1)
        assert np.abs(values).max() <= (1 if deviation == once else 2) / 20
