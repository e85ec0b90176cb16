"""S5 against Smith et al. 2023, Section 3, in NumPy."""

import functools

import jax
import numpy as np
import pytest

from helpers import init_params, run_layer, to_numpy, transition
from lrnn_jax.errors import UserError
from lrnn_jax.layers.s5 import S5
from lrnn_jax.parts.discretise import discretise
from lrnn_jax.parts.hippo import make_hippo_n

WIDTH, SIZE, LENGTH, BATCH = 3, 8, 9, 2


def join(p, name):
    return p[f"{name}_re"] + 1j * p[f"{name}_im"]


def run_numpy(p, x, *, discretisation="zoh", conj_sym=True, clip_eigs=False, bidirectional=False, h=0):
    """One row: outputs, the last state of the pass from the left, and Lambda_bar."""
    real = np.minimum(p["Lambda_re"], -1e-4) if clip_eigs else p["Lambda_re"]
    lam, step = real + 1j * p["Lambda_im"], np.exp(p["log_step"])
    if discretisation == "zoh":
        lam_bar = np.exp(lam * step)
        b_bar = ((lam_bar - 1) / lam)[:, None] * join(p, "B")
    else:
        lam_bar = (1 + step / 2 * lam) / (1 - step / 2 * lam)
        b_bar = (step / (1 - step / 2 * lam))[:, None] * join(p, "B")
    c, y, last = join(p, "C"), p["D"] * x, None
    for direction, matrix in enumerate(c if bidirectional else [c]):
        h = h if direction == 0 else 0
        for t in reversed(range(LENGTH)) if direction else range(LENGTH):
            h = lam_bar * h + b_bar @ x[t]
            y[t] += (2 if conj_sym else 1) * (matrix @ h).real
        last = h if direction == 0 else last
    return y, last, lam_bar


@pytest.mark.parametrize(
    "fields",
    [{}, {"discretisation": "bilinear", "clip_eigs": True}, {"conj_sym": False}, {"bidirectional": True}],
    ids=["default", "bilinear", "whole", "bidirectional"],
)
def test_equals_a_numpy_loop(fields):
    rng = np.random.default_rng(0)
    layer = S5(WIDTH, state_size=SIZE, blocks=2, **fields)
    x, params = np.float32(rng.normal(size=(BATCH, LENGTH, WIDTH))), init_params(layer)
    params = jax.tree.map(lambda p: np.float32(p + 0.3 * rng.normal(size=p.shape)), params)
    params["Lambda_re"] = np.float32(np.where(np.arange(len(params["Lambda_re"])) == 0, 0.05, params["Lambda_re"]))
    kept = len(params["Lambda_re"])
    h0 = np.float32(rng.normal(size=(2, BATCH, kept)))
    y, state = run_layer(layer, params, x, state=() if layer.bidirectional else tuple(h0))
    p = jax.tree.map(np.float64, params)
    for row in range(BATCH):
        start = 0 if layer.bidirectional else h0[0, row] + 1j * np.float64(h0[1, row])
        expected, last, lam_bar = run_numpy(p, np.float64(x[row]), h=start, **fields)
        np.testing.assert_allclose(y[row], expected, atol=2e-5)
        if not layer.bidirectional:
            np.testing.assert_allclose(state[0][row] + 1j * state[1][row], last, atol=5e-6)
    np.testing.assert_allclose(transition(layer, params, x), lam_bar, atol=1e-6)
    assert (np.abs(lam_bar).max() > 1) == (not layer.clip_eigs)


def test_half_of_every_conjugate_pair_stands_for_both():
    """The whole system, the other halves written out, has the same outputs."""
    half, whole = S5(WIDTH, state_size=SIZE, blocks=2), S5(WIDTH, state_size=SIZE, blocks=2, conj_sym=False)
    params = init_params(half)
    axes = {"Lambda": 0, "B": 0, "C": 1}
    both = {name: np.concatenate([params[name]] * 2) if name == "log_step" else params[name] for name in ("D", "log_step")}
    for name, axis in axes.items():
        both[f"{name}_re"] = np.concatenate([params[f"{name}_re"]] * 2, axis)
        both[f"{name}_im"] = np.concatenate([params[f"{name}_im"], -params[f"{name}_im"]], axis)
    x = np.float32(np.random.default_rng(0).normal(size=(BATCH, LENGTH, WIDTH)))
    np.testing.assert_allclose(run_layer(half, params, x)[0], run_layer(whole, both, x)[0], atol=1e-5)


def test_inputs_are_held_exactly_and_with_exact_gradients_whatever_the_step():
    """B_bar / B = (exp(z) - 1) / Lambda against float64, on both sides of the series' end and at 0."""
    step = np.float32(0.1)
    z = np.concatenate([np.geomspace(1e-6, 3, 40) * np.exp(1j * angle) for angle in (0, 1.6, 2.4, np.pi)] + [[0]])
    lam = np.complex64(z / step)

    one = np.ones(z.shape, np.float32)

    def scale(re, im):
        return discretise((re, im), step, "zoh")[1]

    found, slopes = to_numpy(jax.jit(lambda re, im: jax.jvp(scale, (re, im), (one, 0 * one)))(lam.real, lam.imag))
    z = np.complex128(lam) * np.float64(step)
    near = np.abs(z) < 1e-2
    safe = np.where(near, 1, z)
    expected = np.where(near, 1 + z / 2 + z**2 / 6 + z**3 / 24, (np.exp(safe) - 1) / safe) * step
    slope = np.where(near, 1 / 2 + z / 3 + z**2 / 8 + z**3 / 30, (np.exp(safe) * (safe - 1) + 1) / safe**2)
    np.testing.assert_allclose(found[0] + 1j * found[1], expected, rtol=1e-6)
    np.testing.assert_allclose(slopes[0] + 1j * slopes[1], slope * np.float64(step) ** 2, rtol=3e-6)


@functools.cache
def initial(width=1, **fields):
    return jax.tree.map(np.float64, init_params(S5(width, **fields)))


@pytest.mark.parametrize("conj_sym", [True, False])
def test_starts_as_blocks_of_hippo_n(conj_sym):
    p = initial(width=100, state_size=48, blocks=3, conj_sym=conj_sym)
    eigenvalues, vectors = make_hippo_n(16)
    kept = 8 if conj_sym else 16
    np.testing.assert_allclose(join(p, "Lambda"), np.tile(eigenvalues[:kept], 3), rtol=1e-6, atol=1e-6)
    assert (join(p, "Lambda").imag < 0).all() == conj_sym
    for block in join(p, "B").reshape(3, kept, 100):
        # V B is real, and what it was made from
        b = vectors[:, :kept] @ block
        b = 2 * b.real if conj_sym else b
        np.testing.assert_allclose(np.imag(b), 0, atol=1e-5)
        np.testing.assert_allclose(vectors[:, :kept].conj().T @ b, block, atol=1e-5)
        np.testing.assert_allclose(np.std(b), 48**-0.5, rtol=0.06)
        assert np.abs(b).max() < 2.3 * 48**-0.5


@pytest.mark.parametrize(
    ("c_init", "variance"), [("trunc_standard_normal", 1 / 64), ("lecun_normal", 1 / 64 / 500), ("complex_normal", 0.5)]
)
def test_readouts_start_with_the_released_variances(c_init, variance):
    p = initial(width=500, c_init=c_init, bidirectional=True)
    assert p["C_re"].shape == p["C_im"].shape == (2, 500, 32)
    for part in (p["C_re"], p["C_im"]):
        np.testing.assert_allclose(part.std(axis=(1, 2)), variance**0.5, rtol=0.03)
    parts = np.stack([*p["C_re"], *p["C_im"]]).reshape(4, -1)
    assert np.abs(np.corrcoef(parts) - np.eye(4)).max() < 0.03


def test_steps_start_uniform_in_their_logarithm():
    steps = initial(state_size=8000, blocks=1000, dt_min=0.01, dt_max=0.5)["log_step"]
    assert np.log(0.01) <= steps.min() < np.log(0.01) + 0.01
    assert np.log(0.5) - 0.01 < steps.max() <= np.log(0.5) + 1e-6
    np.testing.assert_allclose(
        np.quantile(steps, [0.25, 0.5, 0.75]), np.log(0.01) + np.log(50) * np.array([1, 2, 3]) / 4, atol=0.1
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"blocks": 5}, "blocks=5 must divide state_size=64 into blocks of conjugate pairs"),
        ({"blocks": 64}, "into blocks of conjugate pairs"),
        ({"state_size": 0}, "state_size=0 must be at least 1"),
        ({"discretisation": "euler"}, "discretisation='euler' is not one of zoh, bilinear"),
        ({"c_init": "lecun"}, "c_init='lecun' is not one of trunc_standard_normal, lecun_normal"),
        ({"dt_min": 0.2}, "dt_min=0.2 and dt_max=0.1"),
        ({"dt_min": 0.0}, "dt_min=0.0"),
    ],
)
def test_check_refuses_what_does_not_fit(fields, message):
    with pytest.raises(UserError, match=message):
        S5(WIDTH, **fields)
