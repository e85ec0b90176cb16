"""HiPPO-LegS against numbers made by hand, and what its decomposition must give back."""

import numpy as np
import pytest

from lrnn_jax.parts.hippo import make_hippo_legs, make_hippo_n


def test_legs_of_three():
    a, p, b = make_hippo_legs(3)
    np.testing.assert_allclose(a, [[-1, 0, 0], [-(3**0.5), -2, 0], [-(5**0.5), -(15**0.5), -3]])
    np.testing.assert_allclose(p**2, [0.5, 1.5, 2.5])
    np.testing.assert_allclose(b**2, [1, 3, 5])


@pytest.mark.parametrize("size", [1, 2, 3, 8, 64])
def test_eigenvalues_and_vectors_are_those_of_the_normal_part(size):
    a, p, _ = make_hippo_legs(size)
    eigenvalues, vectors = make_hippo_n(size)
    np.testing.assert_allclose(vectors @ np.diag(eigenvalues) @ vectors.conj().T, a + np.outer(p, p), atol=1e-9 * size**2)
    np.testing.assert_allclose(vectors.conj().T @ vectors, np.eye(size), atol=1e-12)
    np.testing.assert_allclose(eigenvalues.real, -0.5)
    np.testing.assert_allclose(eigenvalues, eigenvalues[::-1].conj(), atol=1e-9 * size**2)
    assert (np.diff(eigenvalues.imag) > 0).all()
