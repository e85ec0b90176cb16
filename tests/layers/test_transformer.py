"""The Transformer layer against a plain [T T] softmax with rotary positions, in NumPy."""

import jax
import numpy as np
import pytest

from helpers import init_params, run_layer, transition
from lrnn_jax.errors import UserError
from lrnn_jax.layers.transformer import Transformer

WIDTH, HEADS, LENGTH, BATCH = 8, 2, 11, 2
SIZE = WIDTH // HEADS


def rotate(x):
    """[T K]: pairs (j, j + K/2) turned by t 10000^(-2j/K)."""
    turned = np.zeros_like(x)
    for t, j in np.ndindex(len(x), SIZE // 2):
        angle = t * 10000.0 ** (-2 * j / SIZE)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turned[t, [j, j + SIZE // 2]] = turn @ x[t, [j, j + SIZE // 2]]
    return turned


def run_numpy(p, x, reset, window):
    """One row; a query sees the positions of its own document that are less than ``window`` away."""
    q, k, v = (x @ p[name]["kernel"] for name in "qkv")
    document = np.cumsum(reset)
    outputs = np.zeros_like(x)
    for head in range(HEADS):
        part = slice(head * SIZE, (head + 1) * SIZE)
        queries, keys = rotate(q[:, part]), rotate(k[:, part])
        for t in range(len(x)):
            seen = [s for s in range(t + 1) if t - s < window and document[s] == document[t]]
            weights = np.exp(keys[seen] @ queries[t] / np.sqrt(SIZE))
            outputs[t, part] = weights @ v[seen, part] / weights.sum()
    return outputs @ p["out"]["kernel"]


@pytest.mark.parametrize("window", [1, 4, 1024])
@pytest.mark.parametrize("method", Transformer.METHODS)
def test_equals_plain_attention(method, window):
    rng = np.random.default_rng(0)
    layer = Transformer(WIDTH, heads=HEADS, window=window)
    x = np.float32(rng.normal(size=(BATCH, LENGTH, WIDTH)))
    params = init_params(layer)
    params = jax.tree.map(lambda p: np.float32(p + 0.2 * rng.normal(size=p.shape)), params)
    reset = np.zeros((BATCH, LENGTH), bool)
    reset[0, [2, 7]] = True
    y, _ = run_layer(layer, params, x, reset=reset, scan=method)
    exact = jax.tree.map(np.float64, params)
    for row in range(BATCH):
        np.testing.assert_allclose(y[row], run_numpy(exact, np.float64(x[row]), reset[row], window), atol=1e-5)


def test_without_queries_averages_the_values_in_the_window():
    identity, zero = np.eye(4, dtype=np.float32), np.zeros((4, 4), np.float32)
    params = {"q": {"kernel": zero}, "k": {"kernel": identity}, "v": {"kernel": identity}, "out": {"kernel": identity}}
    x = np.zeros((1, 4, 4), np.float32)
    x[0, :, 0] = [6, 12, 18, 60]
    y, _ = run_layer(Transformer(4, heads=2, window=3), params, x)
    np.testing.assert_allclose(y[0, :, 0], [6, 9, 12, 30], rtol=1e-6)


def test_transition_is_that_of_a_shift_register():
    layer = Transformer(WIDTH)
    x = np.zeros((BATCH, 3, WIDTH), np.float32)
    np.testing.assert_array_equal(transition(layer, init_params(layer), x), np.zeros((BATCH, 3, 1)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 5}, "heads=5 must be at least 1 and divide width=12"),
        ({"heads": 4}, "heads=4 must leave an even number of features per head.*width=12 leaves 3"),
        ({"window": 0}, "window=0 must be at least 1"),
    ],
)
def test_check_refuses_what_does_not_fit(fields, message):
    good = {"width": 12, "heads": 2, "window": 1}
    Transformer.check(good)
    with pytest.raises(UserError, match=message):
        Transformer.check({**good, **fields})
