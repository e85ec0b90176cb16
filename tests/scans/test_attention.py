"""Windowed attention against a plain [T T] softmax with rotary positions, in float64 NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrnn_jax.scans import attention, scan_attention

BATCH, HEADS, SIZE = 2, 2, 4
compile_quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


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


@pytest.mark.parametrize("window", [1, 5, 40])
@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("method", attention.METHODS)
def test_equals_plain_attention(method, carried, window, monkeypatch):
    """70 queries in one block and, with blocks of 16, in several that reach one to three blocks back."""
    inputs, cache, reset = make_case(70, window)
    cache = cache if carried else None
    for block in (256, 16) if method == "chunked" else (256,):
        monkeypatch.setattr(attention, "BLOCK", block)
        for flags in (None, reset):
            run = compile_quickly(functools.partial(scan_attention, window=window, method=method))
            o, _ = run(*inputs, h0=cache, reset=flags)
            np.testing.assert_allclose(o, expect(inputs, window, cache, flags), atol=3e-6)


@pytest.mark.parametrize("method", attention.METHODS)
def test_gradients_of_the_methods_agree_across_blocks(method, monkeypatch):
    """Central differences of the plain softmax, in float64, along random directions."""
    monkeypatch.setattr(attention, "BLOCK", 16)
    window = 20
    inputs, cache, reset = make_case(40, window)
    rng = np.random.default_rng(1)
    weights = rng.normal(size=inputs[0].shape)

    def loss(inputs, past):
        carried = {**past, "valid": jnp.asarray(cache["valid"])}
        o, _ = scan_attention(*inputs, window=window, h0=carried, reset=jnp.asarray(reset), method=method)
        return jnp.sum(o * jnp.asarray(weights, jnp.float32))

    past = {name: cache[name] for name in "kv"}
    gradients = compile_quickly(jax.grad(loss, argnums=(0, 1)))(inputs, past)
    for i, gradient in enumerate(jax.tree.leaves(gradients)):
        leaves, structure = jax.tree.flatten(jax.tree.map(np.float64, (inputs, past)))
        direction, values = rng.normal(size=gradient.shape), []
        for sign in (1, -1):
            moved = [x + sign * 1e-5 * direction if j == i else x for j, x in enumerate(leaves)]
            xs, moved_past = jax.tree.unflatten(structure, moved)
            values.append((expect(xs, window, {**cache, **moved_past}, reset) * weights).sum())
        slope = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose((np.float64(gradient) * direction).sum(), slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", attention.METHODS)
def test_cache_holds_the_last_positions_of_the_last_document(method):
    window, steps = 5, 7
    (q, k, v), cache, _ = make_case(steps, window)
    reset = np.zeros((BATCH, steps), bool)
    reset[0, 5] = True
    run = compile_quickly(functools.partial(scan_attention, window=window, method=method))
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


def test_auto_takes_blocks_on_a_cpu_too(monkeypatch):
    monkeypatch.setattr(attention, "run_recurrence", None)
    (q, k, v), _, _ = jax.tree.map(jnp.asarray, make_case(3, 2))
    assert scan_attention(q, k, v, window=2)[0].shape == q.shape
    with pytest.raises(TypeError):
        scan_attention(q, k, v, window=2, method="sequential")


def test_unknown_method_is_refused_by_name():
    (q, k, v), _, _ = jax.tree.map(jnp.asarray, make_case(3, 2))
    with pytest.raises(ValueError, match="'associative' is not one of auto, sequential, chunked"):
        scan_attention(q, k, v, window=2, method="associative")
