"""Gated and repeated delta rules against Grazzi et al. 2025 and Siems et al. 2025 in NumPy, and their constructions."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lrnn_jax.scans import scan_delta_product, scan_delta_rule
from lrnn_jax.scans.delta import METHODS, transition_matrices
from lrnn_jax.scans.delta_chunked import invert_unit_triangular

BATCH, HEADS, KEYS, VALUES = 2, 2, 4, 3
TOLERANCE = 5e-6  # relative to the largest entry of the array that is compared
compile_quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def draw_gates(rng, kind, steps):
    shape = (BATCH, steps, HEADS)
    if kind == "weak":
        return -rng.uniform(0, 1e-3, shape)
    if kind == "strong":
        return np.log(0.01) - rng.uniform(0, 1, shape)
    return np.where(rng.random(shape) < 0.1, -5000.0, -rng.uniform(0, 0.02, shape))  # "mixed"


def random_case(writes, steps, gate):
    """Returns (q, k, v, beta, log_gate, h0) and reset."""
    rng = np.random.default_rng([writes, steps])
    k = unit(rng.normal(size=(BATCH, steps, writes, HEADS, KEYS)))
    v = rng.normal(size=(BATCH, steps, writes, HEADS, VALUES))
    q, h0 = rng.normal(size=(BATCH, steps, HEADS, KEYS)), rng.normal(size=(BATCH, HEADS, KEYS, VALUES))
    beta = rng.uniform(0, 2, (BATCH, steps, writes, HEADS))
    log_gate = None if gate is None else draw_gates(rng, gate, steps)
    arrays = jax.tree.map(np.float32, (q, k, v, beta, log_gate, h0))
    return arrays, rng.random((BATCH, steps)) < 0.04


def loop_numpy(q, k, v, beta, log_gate, h0, reset, reverse=False):
    """The recurrence as the papers write it, one position after the other, in float64."""
    q, k, v, beta, h0 = (np.float64(x) for x in (q, k, v, beta, h0))
    gate = np.ones(q.shape[:3]) if log_gate is None else np.exp(np.float64(log_gate))
    steps, o = q.shape[1], np.zeros((*q.shape[:3], v.shape[-1]))
    last = np.zeros_like(h0)
    for row, head in np.ndindex(q.shape[0], q.shape[2]):
        s = h0[row, head]
        for t in reversed(range(steps)) if reverse else range(steps):
            start = t + 1 if reverse else t  # in reverse the state comes from t + 1, and dies if t + 1 starts a sequence
            if start < steps and reset[row, start]:
                s = np.zeros_like(s)
            s = gate[row, t, head] * s
            for j in range(k.shape[2]):
                key, value, b = k[row, t, j, head], v[row, t, j, head], beta[row, t, j, head]
                s = (np.eye(len(key)) - b * np.outer(key, key)) @ s + b * np.outer(key, value)
            o[row, t, head] = s.T @ q[row, t, head]
        last[row, head] = s
    return o, last


@compile_quickly
def pull_back_exactly(arrays, reset, cotangents):
    def step(s, x):
        q, k, v, beta, gate = x
        s = gate[..., None, None] * s
        for j in range(k.shape[1]):
            error = beta[:, j, :, None] * (v[:, j] - jnp.einsum("bhkv,bhk->bhv", s, k[:, j]))
            s = s + k[:, j, :, :, None] * error[:, :, None]
        return s, jnp.einsum("bhkv,bhk->bhv", s, q)

    def run(q, k, v, beta, log_gate, h0):
        gate = jnp.ones(q.shape[:3], q.dtype) if log_gate is None else jnp.exp(log_gate)
        gate = gate * (1.0 - reset[..., None])
        last, o = lax.scan(step, h0, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (q, k, v, beta, gate)))
        return jnp.moveaxis(o, 0, 1), last

    return jax.vjp(run, *arrays)[1](cotangents)


def exact_gradients(arrays, reset, cotangents):
    """Float64 gradients of the same recurrence by automatic differentiation of a plain loop."""
    with jax.enable_x64(True):
        arrays, reset, cotangents = jax.tree.map(np.float64, (arrays, reset, cotangents))
        return jax.tree.map(np.asarray, pull_back_exactly(arrays, reset, cotangents))


@functools.cache
def compile_scan(method, reverse=False):
    @compile_quickly
    def run(arrays, reset, cotangents):
        def scan(q, k, v, beta, log_gate, h0):
            return scan_delta_product(q, k, v, beta, log_gate=log_gate, h0=h0, reset=reset, method=method, reverse=reverse)

        outputs, pull_back = jax.vjp(scan, *arrays)
        return outputs, pull_back(cotangents)

    return run


def assert_near(actual, expected, tolerance=TOLERANCE):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(np.float64(x), y, rtol=0, atol=tolerance * np.abs(y).max())


# 150 is no multiple of 32, 16 or 8 positions, which are the chunks for one, two and three writes
@pytest.mark.parametrize(
    ("writes", "steps", "gate"),
    [
        *itertools.product([1, 2, 3], [150], [None, "weak", "strong"]),
        *itertools.product([1, 2], [1, 5], [None, "strong"]),
        (1, 150, "mixed"),
        (2, 150, "mixed"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_values_and_all_gradients_equal_the_papers_recurrence(method, writes, steps, gate):
    arrays, reset = random_case(writes, steps, gate)
    expected = loop_numpy(*arrays, reset)
    rng = np.random.default_rng(1)
    cotangents = jax.tree.map(lambda y: np.float32(rng.normal(size=y.shape)), expected)
    outputs, gradients = compile_scan(method)(arrays, reset, cotangents)
    assert_near(outputs, expected)
    assert_near(gradients, exact_gradients(arrays, reset, cotangents))


@pytest.mark.parametrize("gate", [None, "strong"])
@pytest.mark.parametrize("method", METHODS)
def test_in_reverse_positions_turn_around_and_the_writes_of_one_do_not(method, gate):
    arrays, reset = random_case(3, 40, gate)
    run = functools.partial(scan_delta_product, method=method, reverse=True)
    *xs, log_gate, h0 = arrays
    outputs = compile_quickly(run)(*xs, log_gate=log_gate, h0=h0, reset=reset)
    assert_near(outputs, loop_numpy(*arrays, reset, reverse=True))


@pytest.mark.parametrize("method", METHODS)
def test_one_write_is_the_gated_delta_rule(method):
    (q, k, v, beta, log_gate, h0), reset = random_case(1, 40, "weak")
    run = compile_quickly(functools.partial(scan_delta_rule, method=method))
    outputs = run(q, k[:, :, 0], v[:, :, 0], beta[:, :, 0], log_gate=log_gate, h0=h0, reset=reset)
    assert_near(outputs, loop_numpy(q, k, v, beta, log_gate, h0, reset))


@pytest.mark.parametrize("method", METHODS)
def test_a_gate_of_zero_forgets_everything(method):
    (q, k, v, beta, log_gate, h0), reset = random_case(2, 40, "weak")
    closed = reset.copy()
    closed[:, [0, 17, 39]] = True
    log_gate = np.where(closed[..., None], -np.inf, log_gate).astype(np.float32)
    rng = np.random.default_rng(1)
    cotangents = (np.float32(rng.normal(size=v[:, :, 0].shape)), np.float32(rng.normal(size=h0.shape)))
    outputs, gradients = compile_scan(method)((q, k, v, beta, log_gate, h0), reset, cotangents)
    assert_near(outputs, loop_numpy(q, k, v, beta, log_gate, h0, reset))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
    np.testing.assert_array_equal(gradients[4][closed], 0)
    np.testing.assert_array_equal(gradients[5], 0)


@pytest.mark.parametrize("size", [1, 2, 3, 16, 34, 48, 64])
def test_the_inverse_is_exact_where_its_power_series_overflows_float32(size):
    """One key, beta = 2: the inverse alternates between 2 and -2, while the powers of the matrix reach 3^63."""
    m = np.float32(np.tri(size, k=-1) * 2)
    expected = np.eye(size) + np.tri(size, k=-1) * 2 * (-1.0) ** np.subtract.outer(np.arange(size), np.arange(size))
    np.testing.assert_array_equal(jax.jit(invert_unit_triangular)(m), expected)


def test_gradient_of_the_inverse():
    rng = np.random.default_rng(0)
    m, weights = np.tril(rng.normal(size=(2, 34, 34)) / 6, -1), rng.normal(size=(34, 34))
    with jax.enable_x64(True):
        actual = jax.jit(jax.grad(lambda m: jnp.sum(invert_unit_triangular(m) * weights[None])))(m)
        expected = jax.jit(jax.grad(lambda m: jnp.sum(jnp.linalg.inv(m + np.eye(34)[None]) * weights[None])))(m)
    np.testing.assert_allclose(np.tril(actual, -1), np.tril(expected, -1), rtol=0, atol=1e-10 * np.abs(expected).max())


def reflections_of(permutation):
    """Keys with which the product of (I - 2 k k^T), the first on the right, moves entry ``permutation[i]`` to place i."""
    size, keys = len(permutation), []
    now = list(range(size))
    for place in range(size):
        other = now.index(permutation[place])
        if other != place:
            now[place], now[other] = now[other], now[place]
            keys.append((np.eye(size)[place] - np.eye(size)[other]) / np.sqrt(2))
    return keys


def walk(size, writes, steps, letters):
    """Keys, strengths and the products of a random walk: the state (1..n) is permuted by one letter after the other."""
    rng = np.random.default_rng(size)
    chosen = [letters[i] for i in rng.integers(0, len(letters), steps)]
    k, beta = np.tile(np.eye(size, dtype=np.float32)[0], (1, steps, writes, 1, 1)), np.zeros((1, steps, writes, 1), np.float32)
    states, now = [], np.arange(1, size + 1)
    for t, letter in enumerate(chosen):
        keys = reflections_of(letter)
        assert len(keys) <= writes
        for j, key in enumerate(keys):
            k[0, t, j, 0], beta[0, t, j, 0] = key, 2.0
        now = now[list(letter)]
        states.append(now)
    return k, beta, np.array(states)


S5_SWAPS = [p for p in itertools.permutations(range(5)) if sum(i != x for i, x in enumerate(p)) <= 2]


@pytest.mark.parametrize(
    ("size", "writes", "letters"),
    [
        (5, 1, S5_SWAPS),
        (3, 2, list(itertools.permutations(range(3)))),
        (5, 4, list(itertools.permutations(range(5)))),
    ],
    ids=["S5-swaps", "S3", "S5"],
)
@pytest.mark.parametrize("method", METHODS)
def test_tracks_a_permutation_group_with_as_many_reflections_as_the_paper_says(method, size, writes, letters):
    """Grazzi et al. 2025, Theorem 3: a swap is one reflection, S_n needs n - 1 of them, and the state stays decodable."""
    steps = 10_000
    k, beta, expected = walk(size, writes, steps, letters)
    v = np.zeros((1, steps, writes, 1, 1), np.float32)
    h0 = np.arange(1, size + 1, dtype=np.float32).reshape(1, 1, size, 1)
    run = jax.jit(functools.partial(scan_delta_product, method=method))
    states = np.stack(
        [run(np.tile(row, (1, steps, 1, 1)), k, v, beta, h0=h0)[0][0, :, 0, 0] for row in np.eye(size, dtype="f4")]
    )
    np.testing.assert_array_equal(np.rint(states.T), expected)
    assert np.abs(states.T - expected).max() < 0.05


@pytest.mark.parametrize("modulus", [3, 7, 39])
@pytest.mark.parametrize("method", METHODS)
def test_adds_modulo_m_with_two_reflections(method, modulus):
    """Grazzi et al. 2025, App. C.1: R(theta) = (I - 2 v1 v1^T)(I - 2 v2 v2^T), v1 = (-sin, cos)(theta / 2), v2 = (0, 1)."""
    steps = 10_000
    letters = np.random.default_rng(modulus).integers(0, modulus, steps)
    half = np.pi * letters / modulus
    first = np.tile([0.0, 1.0], (steps, 1))
    k = np.float32(np.stack([first, np.stack([-np.sin(half), np.cos(half)], -1)], 1)).reshape(1, steps, 2, 1, 2)
    v, beta = np.zeros((1, steps, 2, 1, 1), np.float32), np.full((1, steps, 2, 1), 2, np.float32)
    h0 = np.float32([1, 0]).reshape(1, 1, 2, 1)
    run = jax.jit(functools.partial(scan_delta_product, method=method))
    x, y = (run(np.tile(np.float32(row), (1, steps, 1, 1)), k, v, beta, h0=h0)[0][0, :, 0, 0] for row in np.eye(2))
    angles = 2 * np.pi * np.arange(modulus) / modulus
    scores = np.outer(x, np.cos(angles)) + np.outer(y, np.sin(angles))
    np.testing.assert_array_equal(scores.argmax(axis=1), np.cumsum(letters) % modulus)


def random_products(writes, high, seed, count=500):
    """Float64 products of ``writes`` generalised Householder matrices of 5 x 5 with beta in [0, high], ends included."""
    rng = np.random.default_rng(seed)
    k = unit(rng.normal(size=(1, count, writes, 1, 5)))
    beta = np.clip(rng.uniform(-0.1, high + 0.1, (1, count, writes, 1)), 0, high)
    with jax.enable_x64(True):
        products = np.asarray(transition_matrices(jnp.asarray(k), jnp.asarray(beta)))[0, :, 0]
    keys, strengths = k[0, :, :, 0], beta[0, :, :, 0]
    for product, key, strength in zip(products[:5], keys, strengths, strict=False):
        factors = [np.eye(5) - b * np.outer(x, x) for x, b in zip(key, strength, strict=True)]
        np.testing.assert_allclose(product, functools.reduce(lambda a, f: f @ a, factors), atol=1e-14)
    return products


@pytest.mark.parametrize("seed", range(3))
def test_products_never_expand_and_two_without_reflections_have_real_eigenvalues_in_0_to_1(seed):
    """Grazzi et al. 2025, Proposition 1 (1) and (3)."""
    for writes, high in itertools.product([1, 2, 3], [1, 2]):
        products = random_products(writes, high, seed)
        assert np.linalg.norm(products, 2, axis=(1, 2)).max() <= 1 + 1e-12
        values = np.linalg.eigvals(products)
        inside = np.abs(values) < 1 - 1e-9
        if (writes, high) in [(1, 1), (2, 1)]:
            assert np.abs(values.imag).max() < 1e-6
            assert values.real.min() > -1e-6 and values.real.max() < 1 + 1e-6
        if writes == 1 and high == 2:
            assert np.abs(values.imag).max() < 1e-6 and values.real.min() < -0.9
        if writes > 1 and high == 2:
            assert np.abs(values.imag).max() > 0.9  # nearly a rotation by a right angle
        assert (inside | (np.abs(values - 1) < 1e-6) | (high == 2)).all()


def test_a_gate_scales_the_transition():
    (_, k, _, beta, log_gate, _), _ = jax.tree.map(jnp.asarray, random_case(2, 5, "strong"))
    plain, gated = transition_matrices(k, beta), transition_matrices(k, beta, log_gate)
    np.testing.assert_allclose(gated, np.exp(log_gate)[..., None, None] * plain, rtol=1e-6)
