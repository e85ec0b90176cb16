"""Closed forms of `lrnn_jax.theory.memory` beside runs of the project's scan, and beside numbers computed by hand."""

import jax
import numpy as np
import pytest

from lrnn_jax.scans import scan_diagonal_complex
from lrnn_jax.theory.memory import (
    SPECTRA,
    condition_number,
    draw_ring,
    draw_spectrum,
    gradient_norms,
    horizon,
    make_vandermonde,
    measure_gain,
    reconstruct,
    ring_gain,
    run_recurrence,
)

T, N = 24, 32
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def scan():
    """The last state of h_t = lambda h_{t-1} + u_t, by the scan that the LRU has."""

    @jax.jit
    def last(lam_re, lam_im, u):
        b = u[..., None] * np.ones((1, 1, N), np.float32)
        return scan_diagonal_complex((lam_re, lam_im), (b, 0 * b))[1]

    return last


def parts(lam):
    return lam.real.astype(np.float32), lam.imag.astype(np.float32)


def test_the_vandermonde_matrix_of_two_by_hand():
    np.testing.assert_allclose(make_vandermonde(np.array([2.0, 1j]), 3), [[4, 2, 1], [-1, 1j, 1]], atol=1e-15)


@pytest.mark.parametrize("name", SPECTRA)
def test_the_scan_applies_the_vandermonde_matrix(name, scan):
    lam = draw_spectrum(name, np.random.default_rng(1), N)
    u = RNG.normal(size=(3, T)).astype(np.float32)
    expected = u @ make_vandermonde(lam, T).T
    re, im = scan(*parts(lam), u)
    np.testing.assert_allclose(np.asarray(re) + 1j * np.asarray(im), expected, atol=2e-5)
    np.testing.assert_allclose(run_recurrence(lam, u, "float64"), expected, atol=1e-12)


@pytest.mark.parametrize("name", SPECTRA)
def test_spectra_are_those_of_real_matrices_within_their_radius(name):
    lam = draw_spectrum(name, np.random.default_rng(2), N, 0.9)
    assert lam.shape == (N,) and np.max(np.abs(lam)) <= 0.9 + 1e-12
    # traces of powers of a real matrix are real
    assert max(abs(np.sum(lam**k).imag) for k in range(1, 6)) < 1e-12
    if name.startswith("uniform"):
        assert not lam.imag.any() and (np.min(lam.real) < 0) == ("-1" in name)
    if name == "ring":
        assert np.min(np.abs(lam)) >= 0.99 * 0.9


def test_condition_numbers_that_are_known():
    # the discrete Fourier transform is unitary but for a factor; a radius r scales its columns by r^k
    for radius in (1.0, 0.8):
        assert condition_number(draw_spectrum("roots of unity", RNG, T, radius), T) == pytest.approx(radius ** (1 - T))
    # nodes 1 and -1 with T = 2: [[1, 1], [-1, 1]]
    assert condition_number(np.array([1.0 + 0j, -1.0]), 2) == pytest.approx(1.0)
    # nodes 0 and 1: [[0, 1], [1, 1]] has the golden ratio and its inverse as singular values
    assert condition_number(np.array([0.0 + 0j, 1.0]), 2) == pytest.approx(((1 + 5**0.5) / 2) ** 2)


def test_lemma_2_is_uniform_on_the_ring():
    lam = draw_ring(np.random.default_rng(3), 40_000, 0.6, 0.9)
    # a quarter of the area of 0.6 <= r <= 0.9 lies within r^2 <= 0.36 + 0.45 / 4
    assert np.mean(np.abs(lam) ** 2 <= 0.36 + 0.45 / 4) == pytest.approx(0.25, abs=0.012)
    assert np.mean(lam) == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize(("name", "dtype", "bound"), [("roots of unity", "float32", 1e-5), ("ring", "float64", 1e-6)])
def test_well_conditioned_states_give_their_input_back(name, dtype, bound):
    lam = draw_spectrum(name, np.random.default_rng(4), 2 * T)
    u = RNG.normal(size=(4, T))
    found = reconstruct(lam, run_recurrence(lam, u, dtype), T)
    assert found.dtype == dtype
    assert np.linalg.norm(found - u) < bound * np.linalg.norm(u)


def test_fewer_eigenvalues_than_positions_suffice_for_inputs_of_few_dimensions():
    basis = np.linalg.qr(RNG.normal(size=(T, 4)))[0]
    u = RNG.normal(size=(5, 4)) @ basis.T
    lam = draw_spectrum("uniform [-1, 1]", np.random.default_rng(5), 4)
    h = run_recurrence(lam, u, "float64")
    np.testing.assert_allclose(reconstruct(lam, h, T, basis), u, atol=1e-6)
    # without that knowledge 4 numbers cannot hold 24
    assert np.linalg.norm(reconstruct(lam, h, T) - u) > 0.5 * np.linalg.norm(u)


def test_proposition_3_on_a_long_run_and_in_its_limit():
    assert ring_gain(0.5, 0.5) == pytest.approx(4 / 3)
    assert ring_gain(0.5 - 1e-6, 0.5) == pytest.approx(4 / 3, rel=1e-4)
    assert ring_gain(0.0, 0.5) == pytest.approx(4 * np.log(4 / 3))
    rng = np.random.default_rng(6)
    lam, b = (
        draw_ring(rng, 400 * 200, 0.3, 0.9).reshape(400, 200),
        rng.normal(size=(400, 200)) + 1j * rng.normal(size=(400, 200)),
    )
    assert np.mean(measure_gain(lam, b, rng.normal(size=(400, 100)))) == pytest.approx(ring_gain(0.3, 0.9), rel=0.1)
    # an impulse at the end and one two steps before, by hand: |0.5^2 + 1|^2
    assert measure_gain(np.array([0.5 + 0j]), np.array([2j]), np.array([1.0, 0.0, 1.0])) == pytest.approx(1.25**2)
    with pytest.raises(ValueError, match=r"r_min: 0\.9"):
        ring_gain(0.9, 1.0)


def test_gradients_vanish_as_said(scan):
    lam = draw_spectrum("disk", np.random.default_rng(7), N, 0.95)
    u = RNG.normal(size=(2, T)).astype(np.float32)
    _, pull = jax.vjp(lambda u: scan(*parts(lam), u), u)
    # one cotangent per row of h: the norm over all states of both parts, by the average over signs of the cotangents
    signs = np.random.default_rng(8).choice([-1.0, 1.0], (400, 2, 2, N)).astype(np.float32)
    each = jax.jit(jax.vmap(lambda c: pull((c[0], c[1]))[0]))(signs)
    norms = np.sqrt(np.mean(np.asarray(each, np.float64) ** 2, axis=(0, 1)))[::-1]
    np.testing.assert_allclose(norms / norms[0], gradient_norms(lam, T), rtol=0.15)


def test_a_horizon_ends_before_the_first_value_above_the_bound():
    assert horizon(np.array([0.0, 0.1, 0.3, 0.1]), 0.2) == 2
    assert horizon(np.array([0.0, np.nan, 0.1]), 0.2) == 1
    assert horizon(np.zeros(5), 0.2) == 5
