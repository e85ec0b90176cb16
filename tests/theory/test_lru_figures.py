"""Studies behind the small figures of Orvieto et al. 2023, beside closed forms and NumPy loops."""

import numpy as np
import pytest

from lrnn_jax.theory.kernel_fitting import convolve, draw_waves, make_kernel, run_rnn
from lrnn_jax.theory.lru_figures import fit_power, study_eigenvalues, study_gains, study_impulse


def test_the_loss_in_exp_does_not_depend_on_the_phase_and_re_im_turns_by_quarters():
    def losses(name, phase):
        target = 0.9 * np.exp(1j * phase)
        return fit_power(name, target * np.exp(0.02j), target, power=4, steps=30, lr=1e-3)

    np.testing.assert_allclose(losses("Exp", 0.0), losses("Exp", 0.7), rtol=1e-6)
    # k = 4: a quarter turn of lambda leaves lambda^4 and exchanges the axes
    np.testing.assert_allclose(losses("Re+Im", 0.0), losses("Re+Im", np.pi / 2), rtol=1e-6)
    assert not np.allclose(losses("Re+Im", 0.0), losses("Re+Im", np.pi / 4), rtol=1e-2)
    assert losses("Exp", 0.0)[0] == pytest.approx(0.5 * 0.9**8 * abs(np.exp(0.08j) - 1) ** 2)


def test_a_step_of_adam_by_hand():
    # the first step has the size of the learning rate in each coordinate, against the gradient's sign
    target, lr = 0.5 + 0.5j, 0.01
    start = target + 0.1 - 0.1j
    losses = fit_power("Re+Im", start, target, power=1, steps=1, lr=lr)
    np.testing.assert_allclose(losses, [0.5 * abs(z) ** 2 for z in (start - target, start - target - lr + lr * 1j)], rtol=1e-6)


def test_a_glorot_matrix_has_the_eigenvalues_of_the_disk():
    rows = study_eigenvalues(size=400, r_min=0.9, r_max=0.99)
    radii = {
        name: np.array([abs(complex(r["re"], r["im"])) for r in rows if r["from"] == name])
        for name in {r["from"] for r in rows}
    }
    for name in ("Glorot matrix", "disk"):
        for radius in (0.5, 0.8):
            assert np.mean(radii[name] < radius) == pytest.approx(radius**2, abs=0.07)
    ring = radii["ring [0.9, 0.99]"]
    assert len(ring) == 400 and ring.min() >= 0.9 and ring.max() <= 0.99


def test_the_impulse_response_and_its_sum():
    rows = study_impulse(steps=20, nu=0.05, phases=(0.5,), states=1, points=21)
    lam = np.exp(-0.05 + 1j * rows[0]["theta"])
    assert 0 <= rows[0]["theta"] <= np.pi / 2
    total = 0
    for k, row in enumerate(rows):
        total += lam**k
        assert (row["lag"], row["response"], row["sum"]) == (k, pytest.approx((lam**k).real), pytest.approx(abs(total)))


def test_gains_stand_beside_proposition_3():
    rows = study_gains(size=300, steps=100, runs=60, rings=[(0.2, 0.8)])
    for name in ("constant", "random"):
        own = [row for row in rows if row["input"] == name]
        assert np.mean([row["gain"] for row in own]) == pytest.approx(np.log(0.96 / 0.36) / 0.6, rel=0.2)
        assert own[0]["closed form"] == pytest.approx(np.log(0.96 / 0.36) / 0.6)


def test_a_convolution_is_a_linear_recurrence():
    rng = np.random.default_rng(0)
    u = draw_waves(rng, 3, 12, 2.0)
    # h_k = 0.5 * 0.8^k: one state
    h = 0.5 * 0.8 ** np.arange(12)
    p = {"A": np.array([[0.8]]), "B": np.ones((1, 1)), "C": np.array([[0.5]]), "D": np.zeros((1, 1))}
    found = run_rnn({name: np.asarray(x, np.float32) for name, x in p.items()}, u, linear=True)
    np.testing.assert_allclose(found, convolve(u, h), atol=1e-6)
    assert make_kernel(3)[1] == pytest.approx(0.1 * np.exp(-0.015) * np.cos(0.04) ** 2)
