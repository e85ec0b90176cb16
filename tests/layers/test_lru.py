"""The LRU against Orvieto et al. 2023, Section 3 and the listing of Appendix A, in NumPy."""

import functools

import jax
import numpy as np
import pytest

from helpers import init_params, run_layer, transition
from lrnn_jax.errors import UserError
from lrnn_jax.layers.lru import LRU
from lrnn_jax.models.backbone import Backbone


@functools.cache
def initial(size=8000, width=1, seed=0, **fields):
    layer = LRU(width=width, state_size=size, **fields)
    return jax.tree.map(np.float64, init_params(layer, seed))


def assert_uniform(values, low, high):
    """Kolmogorov and Smirnov's test at a level of one in a thousand; the samples are the same at every run."""
    values = np.sort((values - low) / (high - low))
    assert values[0] > -1e-4
    assert values[-1] < 1 + 1e-4
    steps = np.arange(len(values) + 1) / len(values)
    assert max(np.abs(values - steps[:-1]).max(), np.abs(values - steps[1:]).max()) < 1.95 / np.sqrt(len(values))


RINGS = [(0.0, 1.0), (0.5, 0.9), (0.9, 0.999), (0.999, 0.9999)]


@pytest.mark.parametrize(("r_min", "r_max"), RINGS)
def test_initial_eigenvalues_are_uniform_on_the_ring(r_min, r_max):
    """Lemma 2: uniform in area, so |lambda|^2 is uniform between the squared radii."""
    squared = np.exp(-2 * np.exp(initial(r_min=r_min, r_max=r_max)["nu_log"]))
    assert_uniform(squared, r_min**2, r_max**2)


@pytest.mark.parametrize("max_phase", [2 * np.pi, np.pi / 10])
def test_initial_phases_are_uniform_up_to_the_largest(max_phase):
    params = initial(max_phase=max_phase)
    assert_uniform(np.exp(params["theta_log"]), 0, max_phase)
    assert abs(np.corrcoef(np.exp(params["theta_log"]), np.exp(params["nu_log"]))[0, 1]) < 0.05


@pytest.mark.parametrize(("r_min", "r_max"), RINGS)
def test_initial_gamma_normalises_the_state(r_min, r_max):
    params = initial(r_min=r_min, r_max=r_max)
    gamma = np.sqrt(-np.expm1(-2 * np.exp(params["nu_log"])))  # sqrt(1 - |lambda|^2)
    np.testing.assert_allclose(np.exp(params["gamma_log"]), gamma, rtol=3e-6)


def test_initial_matrices_have_the_listings_variances():
    params = initial(size=300, width=200)
    for name, deviation in {"B_re": 400**-0.5, "B_im": 400**-0.5, "C_re": 300**-0.5, "C_im": 300**-0.5}.items():
        assert params[name].shape == ((300, 200) if name[0] == "B" else (200, 300))
        np.testing.assert_allclose(params[name].std(), deviation, rtol=0.02)
        assert abs(params[name].mean()) < 0.02 * deviation
    for first, second in [("B_re", "B_im"), ("C_re", "C_im"), ("B_re", "C_re")]:
        assert abs(np.corrcoef(params[first].ravel(), params[second].ravel())[0, 1]) < 0.02
    np.testing.assert_allclose(initial(size=2, width=8000)["D"].std(), 1, rtol=0.03)


def test_every_parameter_is_finite_on_the_whole_disk():
    assert all(np.isfinite(p).all() for p in initial(size=200_000, seed=1).values())


def eigenvalues(p, parametrisation):
    """The ladder's formulas."""
    if parametrisation == "real_imag":
        return p["lambda"][0] + 1j * p["lambda"][1]
    nu = p["nu"] if parametrisation == "exp" else np.exp(p["nu_log"])
    theta = np.exp(p["theta_log"]) if parametrisation == "stable_exp_phase" else p["theta"]
    return np.exp(-nu + 1j * theta)


@pytest.mark.parametrize("name", ["lru", "ring", "exp", "real_imag", "bidirectional"])
def test_equals_a_numpy_loop(name):
    rng = np.random.default_rng(0)
    fields = {"bidirectional": True} if name == "bidirectional" else LRU.VARIANTS[name]
    layer = LRU(width=3, state_size=4, **{**fields, "r_min": 0.4, "r_max": 0.95})
    x, h0 = np.float32(rng.normal(size=(2, 9, 3))), np.float32(rng.normal(size=(2, 2, 4)))
    params = init_params(layer)
    params = jax.tree.map(lambda p: np.float32(p + 0.2 * rng.normal(size=p.shape)), params)
    y, state = run_layer(layer, params, x, state=() if layer.bidirectional else tuple(h0))
    p = jax.tree.map(np.float64, params)
    lam = eigenvalues(p, layer.parametrisation)
    gamma = np.exp(p["gamma_log"]) if layer.gamma else np.ones(4)
    b, c = p["B_re"] + 1j * p["B_im"], p["C_re"] + 1j * p["C_im"]
    expected = p["D"] * x
    for row in range(2):
        h = 0 if layer.bidirectional else h0[0, row] + 1j * h0[1, row].astype(np.float64)
        for t in range(9):
            h = lam * h + gamma * (b @ x[row, t])
            expected[row, t] += ((c[0] if layer.bidirectional else c) @ h).real
        if layer.bidirectional:
            assert state == ()
            h = 0
            for t in reversed(range(9)):
                h = lam * h + gamma * (b @ x[row, t])
                expected[row, t] += (c[1] @ h).real
        else:
            np.testing.assert_allclose(state[0][row], h.real, atol=3e-6)
            np.testing.assert_allclose(state[1][row], h.imag, atol=3e-6)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(transition(layer, params, x), lam, atol=1e-6)


@pytest.mark.parametrize("parametrisation", ["stable_exp", "exp", "real_imag"])
def test_every_rung_starts_on_the_same_ring(parametrisation):
    p = initial(r_min=0.5, r_max=0.9, max_phase=1.5, parametrisation=parametrisation)
    lam = eigenvalues(p, parametrisation)
    assert_uniform(np.abs(lam) ** 2, 0.25, 0.81)
    assert_uniform(np.angle(lam), 0, 1.5)
    np.testing.assert_allclose(np.exp(p["gamma_log"]), np.sqrt(1 - np.abs(lam) ** 2), rtol=1e-5)


@pytest.mark.parametrize("parametrisation", ["exp", "real_imag"])
def test_a_rung_that_is_not_stable_may_expand_and_stays_finite_at_the_rim(parametrisation):
    assert LRU(width=1, parametrisation=parametrisation).may_expand
    assert not LRU(width=1, parametrisation="stable_exp").may_expand
    assert all(np.isfinite(p).all() for p in initial(size=200_000, seed=1, parametrisation=parametrisation).values())


def test_the_pass_from_the_right_starts_at_the_end_of_each_row():
    """What the backbone passes for padding adds nothing to a state; see `lrnn_jax.models.block`."""
    fields = (("bidirectional", True), ("state_size", 4))
    model = Backbone(LRU, fields, vocab_size=5, outputs=3, width=8, depth=2, mixer="glu", head="mean")
    tokens, lengths = np.random.default_rng(0).integers(0, 5, (2, 9)), np.int32([5, 9])
    variables = jax.jit(model.init)(jax.random.key(0), tokens)
    padded, _ = jax.jit(lambda v, x, n: model.apply(v, x, lengths=n))(variables, tokens, lengths)
    short, _ = jax.jit(model.apply)(variables, tokens[:1, :5])
    np.testing.assert_allclose(np.asarray(padded)[0], np.asarray(short)[0], atol=1e-5)
    with pytest.raises(ValueError, match=r"^states: LRU with bidirectional=True and the head 'mean' reads whole sequences"):
        jax.eval_shape(lambda v, x: model.apply(v, x, states=((), ())), variables, tokens)


def test_eigenvalues_stay_inside_the_unit_disk_for_any_parameters():
    layer = LRU(width=1, state_size=6)
    params = init_params(layer)
    params = {**params, "nu_log": np.float32([-15, -5, 0, 1, 3, 50]), "theta_log": np.float32([-50, -3, 0, 1, 2, 3])}
    radius = np.abs(transition(layer, params, np.zeros((1, 1, 1), np.float32)))
    np.testing.assert_allclose(radius, np.exp(-np.exp(np.float64(params["nu_log"]))), atol=1e-6)
    assert radius.max() < 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"r_min": 0.9, "r_max": 0.5}, "r_min=0.9 and r_max=0.5"),
        ({"r_min": 0.9, "r_max": 0.9}, "r_min"),
        ({"r_min": -0.1}, "r_min"),
        ({"r_max": 1.1}, "r_max"),
        ({"state_size": 0}, "state_size=0"),
        ({"parametrisation": "stable"}, "parametrisation='stable' is not one of stable_exp_phase, stable_exp, exp, real_imag"),
    ],
)
def test_check_refuses_what_does_not_fit(fields, message):
    good = {"width": 8, "state_size": 4, "r_min": 0.0, "r_max": 1.0, "max_phase": 6.28, "parametrisation": "exp"}
    LRU.check(good)
    with pytest.raises(UserError, match=message):
        LRU.check({**good, **fields})
