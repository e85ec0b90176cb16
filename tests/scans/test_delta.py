"""The delta rule's constructions of Grazzi et al. 2025 and Siems et al. 2025, and the triangular systems of its chunks."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scans.families import unit

from lrnn_jax.scans import scan_delta_product
from lrnn_jax.scans.delta import METHODS, transition_matrices
from lrnn_jax.scans.delta_chunked import invert_unit_triangular


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


@functools.cache
def compile_scan(method):
    return jax.jit(functools.partial(scan_delta_product, method=method))


def read_states(method, k, v, beta, h0):
    """Every state, [T K]: each of its entries is a query's answer, asked in a row of its own."""
    entries = np.eye(k.shape[-1], dtype=np.float32)
    q = np.tile(entries[:, None, None], (1, k.shape[1], 1, 1))
    k, v, beta, h0 = (np.repeat(x, len(entries), axis=0) for x in (k, v, beta, h0))
    return np.asarray(compile_scan(method)(q, k, v, beta, h0=h0)[0])[:, :, 0, 0].T


S5_SWAPS = [p for p in itertools.permutations(range(5)) if sum(i != x for i, x in enumerate(p)) <= 2]


@pytest.mark.parametrize(
    ("size", "writes", "letters"),
    [
        (5, 1, S5_SWAPS),
        (5, 4, list(itertools.permutations(range(5)))),
    ],
    ids=["S5-swaps", "S5"],
)
@pytest.mark.parametrize("method", METHODS)
def test_tracks_a_permutation_group_with_as_many_reflections_as_the_paper_says(method, size, writes, letters):
    """Grazzi et al. 2025, Theorem 3: a swap is one reflection, S_n needs n - 1 of them, and the state stays decodable."""
    steps = 10_000
    k, beta, expected = walk(size, writes, steps, letters)
    v = np.zeros((1, steps, writes, 1, 1), np.float32)
    h0 = np.arange(1, size + 1, dtype=np.float32).reshape(1, 1, size, 1)
    states = read_states(method, k, v, beta, h0)
    np.testing.assert_array_equal(np.rint(states), expected)
    assert np.abs(states - expected).max() < 0.05


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
    x, y = read_states(method, k, v, beta, h0).T
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
    rng = np.random.default_rng(0)
    k, beta, log_gate = (
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 5, 2, 2, 4), (2, 5, 2, 2), (2, 5, 2))
    )
    plain, gated = transition_matrices(k, beta), transition_matrices(k, beta, log_gate)
    np.testing.assert_allclose(gated, np.exp(log_gate)[..., None, None] * plain, rtol=1e-6)
