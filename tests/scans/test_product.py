"""Products of matrices: their order, and what becomes of very large, very small and singular ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrnn_jax.scans import product, scan_product


@pytest.mark.parametrize("method", product.METHODS)
def test_later_factors_stand_on_the_left_and_the_start_is_the_identity(method):
    a = np.float32([[[[0, 1], [1, 0]], [[2, 0], [0, 3]]]])
    (matrix, log_norm), _ = jax.jit(functools.partial(scan_product, method=method))(a)
    np.testing.assert_allclose(matrix[0] * np.exp(log_norm)[0, :, None, None], [[[0, 1], [1, 0]], [[0, 2], [3, 0]]], rtol=1e-6)


@functools.cache
def compile_log_norms(method):
    @jax.jit
    def run(a):
        (matrix, log_norm), pull_back = jax.vjp(lambda a: scan_product(a, method=method)[0], a)
        return matrix, log_norm, pull_back((jnp.zeros_like(matrix), jnp.ones_like(log_norm)))[0]

    return run


@pytest.mark.parametrize("method", product.METHODS)
@pytest.mark.parametrize("factor", [1e3, 1e-3])
def test_products_beyond_the_range_of_float32_stay_finite_with_their_gradients(method, factor):
    steps = 16
    a = np.broadcast_to(np.float32(factor * np.eye(2)), (1, steps, 2, 2))
    matrix, log_norm, gradient = compile_log_norms(method)(a)
    np.testing.assert_allclose(matrix[0, -1], np.eye(2) / np.sqrt(2), atol=1e-5)
    np.testing.assert_allclose(log_norm[0, -1], steps * np.log(factor) + 0.5 * np.log(2), rtol=1e-5)
    # d log ||c A|| / d A = I / (2 factor) at every later position
    np.testing.assert_allclose(gradient[0, 0], steps * np.eye(2) / (2 * factor), rtol=1e-4)


@pytest.mark.parametrize("method", product.METHODS)
def test_a_zero_product_stays_zero_until_a_reset(method):
    a = np.float32(np.broadcast_to(np.eye(2), (1, 4, 2, 2))).copy()
    a[0, 1] = 0
    reset = jnp.array([[False, False, False, True]])

    @jax.jit
    def run(a):
        matrix, pull_back = jax.vjp(lambda a: scan_product(a, reset=reset, method=method)[0][0], a)
        return matrix, pull_back(jnp.ones_like(matrix))[0]

    matrix, gradient = run(a)
    np.testing.assert_array_equal(matrix[0, 1:3], np.zeros((2, 2, 2)))
    np.testing.assert_allclose(matrix[0, 3], np.eye(2) / np.sqrt(2), rtol=1e-6)
    assert np.isfinite(gradient).all()
