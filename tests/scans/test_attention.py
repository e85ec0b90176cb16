"""Windowed attention against a plain [T T] softmax with rotary positions, in float64 NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrnn_jax.scans import attention, scan_attention

BATCH, HEADS, SIZE = 2, 2, 4


def make_case(steps, window, seed=0):
    rng = np.random.default_rng(seed)
    q, k, v = np.float32(rng.normal(size=(3, BATCH, steps, HEADS, SIZE)))
    cache = {name: np.float32(rng.normal(size=(BATCH, window - 1, HEADS, SIZE))) for name in "kv"}
    written = np.arange(window - 1)[None] >= np.array([[window // 2], [0]])  # the first row's cache is half full
    return (2 * q, k, v), {**cache, "valid": np.float32(written)}, rng.random((BATCH, steps)) < 0.06


def rotate(x, positions):
    """RoFormer's rotation of the pairs (j, j + K/2), as complex numbers."""
    angle = positions[:, None] * 10000.0 ** (-2 * np.arange(SIZE // 2) / SIZE)
    z = (x[..., : SIZE // 2] + 1j * x[..., SIZE // 2 :]) * np.exp(1j * angle)[:, None]
    return np.concatenate([z.real, z.imag], axis=-1)


def attend_numpy(q, k, v, window, cache, reset):
    """One row. Positions are absolute and documents are told apart by their number."""
    q, k, v = (np.float64(x) for x in (q, k, v))
    steps, past = len(q), 0
    document = np.cumsum(reset) if reset is not None else np.zeros(steps, int)
    owner = document
    if cache is not None:
        past = len(cache["valid"])
        k, v = np.concatenate([cache["k"], k]), np.concatenate([cache["v"], v])
        owner = np.concatenate([np.where(cache["valid"] > 0.5, 0, -1), document])
    here, there = np.arange(past, past + steps), np.arange(past + steps)
    q, k = rotate(q, here + 1000), rotate(k, there + 1000)
    distance = here[:, None] - there[None]
    visible = (distance >= 0) & (distance < window) & (document[:, None] == owner[None])
    scores = np.where(visible[None], np.einsum("qhk,shk->hqs", q, k) / np.sqrt(SIZE), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("hqs,shk->qhk", weights / weights.sum(-1, keepdims=True), v)


def expect(inputs, window, cache=None, reset=None):
    rows = range(BATCH)
    caches = [None if cache is None else {name: x[row] for name, x in cache.items()} for row in rows]
    resets = [None if reset is None else reset[row] for row in rows]
    return np.stack([attend_numpy(*(x[row] for x in inputs), window, caches[row], resets[row]) for row in rows])


@pytest.mark.parametrize(
    ("method", "window", "block", "continues"),
    [
        *(("chunked", window, block, True) for window in (1, 5, 40) for block in (256, 16)),
        *(("chunked", window, 16, False) for window in (5, 40)),
        *(("sequential", window, 256, window == 5) for window in (1, 5, 40)),
    ],
)
def test_equals_plain_attention(method, window, block, continues, monkeypatch):
    """70 queries in one block or in blocks of 16, which reach one to three blocks back; with a past and resets, or without."""
    monkeypatch.setattr(attention, "BLOCK", block)
    inputs, cache, reset = make_case(70, window)
    cache, reset = (cache, reset) if continues else (None, None)
    o, _ = jax.jit(functools.partial(scan_attention, window=window, method=method))(*inputs, h0=cache, reset=reset)
    np.testing.assert_allclose(o, expect(inputs, window, cache, reset), atol=3e-6)


@pytest.mark.parametrize("method", attention.METHODS)
def test_cache_holds_the_last_positions_of_the_last_document(method):
    window, steps = 5, 7
    (q, k, v), cache, _ = make_case(steps, window)
    reset = np.zeros((BATCH, steps), bool)
    reset[0, 5] = True
    run = jax.jit(functools.partial(scan_attention, window=window, method=method))
    _, last = run(q, k, v, h0=cache, reset=reset)
    np.testing.assert_array_equal(last["valid"], [[0, 0, 1, 1], [1, 1, 1, 1]])
    np.testing.assert_array_equal(last["k"], np.stack([np.concatenate([np.zeros_like(k[0, :2]), k[0, 5:]]), k[1, 3:]]))
    _, last = run(q[:, :2], k[:, :2], v[:, :2], h0=cache)
    np.testing.assert_array_equal(last["v"], np.concatenate([cache["v"][:, 2:], v[:, :2]], axis=1))
    np.testing.assert_array_equal(last["valid"], np.concatenate([cache["valid"][:, 2:], np.ones((BATCH, 2))], axis=1))


def test_long_sequences_never_have_all_scores_at_once():
    """16384^2 scores would be 1 GiB per head in float32."""
    x = jax.ShapeDtypeStruct((1, 16384, 2, 8), jnp.bfloat16)

    def loss(q, k, v):
        return jnp.sum(scan_attention(q, k, v, window=1024)[0])

    memory = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(x, x, x).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 128 * 2**20


def test_short_sequences_are_not_filled_up_to_the_window():
    x = jax.ShapeDtypeStruct((1, 40, 1, 2), jnp.float32)
    trace = jax.make_jaxpr(lambda q, k, v: scan_attention(q, k, v, window=1024)[0])(x, x, x)
    assert "40,40" in str(trace)
    scores = [v.aval.shape for equation in trace.eqns if equation.primitive.name == "dot_general" for v in equation.outvars]
    assert max(np.prod(shape) for shape in scores) == 40 * 40
