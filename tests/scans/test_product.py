"""Products of matrices against plain float64 products (values) and their autodiff (gradients)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lrnn_jax.scans import product, scan_product

BATCH, SIZE = 2, 3
TOLERANCE = 3e-6
compile_quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def make_case(steps):
    rng = np.random.default_rng(steps)
    a = np.float32(np.eye(SIZE) + 0.3 * rng.normal(size=(BATCH, steps, SIZE, SIZE)))
    h0 = np.float32(rng.normal(size=(BATCH, SIZE, SIZE))), np.float32(rng.normal(size=BATCH))
    return a, h0, rng.random((BATCH, steps)) < 0.1


def survives(reset, reverse):
    cut = np.concatenate([reset[:, 1:], np.zeros((BATCH, 1), bool)], axis=1) if reverse else reset
    return ~cut


def run_plainly(a, h0, keep, reverse):
    """Unnormalised products in float64; norms are taken at the end."""

    def turn(x):
        return x[:, ::-1] if reverse else x

    def advance(h, now):
        factor, kept = now
        h = jnp.einsum("bij,bjk->bik", factor, jnp.where(kept[:, None, None], h, jnp.eye(SIZE, dtype=h.dtype)[None]))
        return h, h

    h = h0[0] * jnp.exp(h0[1])[:, None, None]
    _, hs = lax.scan(advance, h, jax.tree.map(lambda x: jnp.moveaxis(turn(x), 1, 0), (a, keep)))
    norm = jnp.sqrt(jnp.sum(hs * hs, axis=(-2, -1)))
    hs = hs / norm[..., None, None], jnp.log(norm)
    last = jax.tree.map(lambda x: x[-1], hs)
    return jax.tree.map(lambda x: turn(jnp.moveaxis(x, 0, 1)), hs), last


def assert_near(actual, expected):
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(np.float64(x), y, rtol=0, atol=TOLERANCE * max(1, np.abs(y).max()))


@pytest.mark.parametrize(("steps", "reverse"), [(1, False), (2, True), (30, False), (30, True)])
@pytest.mark.parametrize("method", product.METHODS)
def test_values_and_all_gradients_equal_plain_products(method, steps, reverse):
    a, h0, reset = make_case(steps)
    keep = survives(reset, reverse)
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (a, h0))
        expected, pull_back = jax.vjp(jax.jit(lambda a, h0: run_plainly(a, h0, keep, reverse)), *exact)
        rng = np.random.default_rng(1)
        cotangents = jax.tree.map(lambda y: np.float32(rng.normal(size=y.shape)), expected)
        expected_gradients = pull_back(jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), cotangents))
        expected, expected_gradients = jax.tree.map(np.asarray, (expected, expected_gradients))

    @compile_quickly
    def run(a, h0, reset, cotangents):
        scan = functools.partial(scan_product, method=method, reverse=reverse)
        outputs, pull_back = jax.vjp(lambda a, h0: scan(a, h0=h0, reset=reset), a, h0)
        return outputs, pull_back(cotangents)

    outputs, gradients = run(a, h0, reset, cotangents)
    assert_near(outputs, expected)
    assert_near(gradients, expected_gradients)


@pytest.mark.parametrize("method", product.METHODS)
def test_later_factors_stand_on_the_left_and_the_start_is_the_identity(method):
    a = np.float32([[[[0, 1], [1, 0]], [[2, 0], [0, 3]]]])
    (matrix, log_norm), _ = compile_quickly(functools.partial(scan_product, method=method))(a)
    np.testing.assert_allclose(matrix[0] * np.exp(log_norm)[0, :, None, None], [[[0, 1], [1, 0]], [[0, 2], [3, 0]]], rtol=1e-6)


@pytest.mark.parametrize("method", product.METHODS)
@pytest.mark.parametrize("factor", [3.0, 0.25])
def test_products_beyond_the_range_of_float32_stay_finite_with_their_gradients(method, factor):
    steps = 100
    a = np.broadcast_to(np.float32(factor * np.eye(2)), (1, steps, 2, 2))

    @compile_quickly
    def run(a):
        (matrix, log_norm), pull_back = jax.vjp(lambda a: scan_product(a, method=method)[0], a)
        return matrix, log_norm, pull_back((jnp.zeros_like(matrix), jnp.ones_like(log_norm)))[0]

    matrix, log_norm, gradient = run(a)
    np.testing.assert_allclose(matrix[0, -1], np.eye(2) / np.sqrt(2), atol=1e-5)
    np.testing.assert_allclose(log_norm[0, -1], steps * np.log(factor) + 0.5 * np.log(2), rtol=1e-5)
    # d log ||c A|| / d A = I / (2 factor) at every later position
    np.testing.assert_allclose(gradient[0, 0], steps * np.eye(2) / (2 * factor), rtol=1e-4)


@pytest.mark.parametrize("method", product.METHODS)
def test_a_zero_product_stays_zero_until_a_reset(method):
    a = np.float32(np.broadcast_to(np.eye(2), (1, 4, 2, 2))).copy()
    a[0, 1] = 0
    reset = jnp.array([[False, False, False, True]])

    @compile_quickly
    def run(a):
        matrix, pull_back = jax.vjp(lambda a: scan_product(a, reset=reset, method=method)[0][0], a)
        return matrix, pull_back(jnp.ones_like(matrix))[0]

    matrix, gradient = run(a)
    np.testing.assert_array_equal(matrix[0, 1:3], np.zeros((2, 2, 2)))
    np.testing.assert_allclose(matrix[0, 3], np.eye(2) / np.sqrt(2), rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_unknown_method_is_refused_by_name():
    with pytest.raises(ValueError, match="'chunked' is not one of auto, sequential, associative"):
        scan_product(jnp.ones((1, 2, 2, 2)), method="chunked")
