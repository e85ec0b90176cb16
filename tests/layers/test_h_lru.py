"""The H-LRU, in both forms, against Dubinin et al. 2026 in NumPy, and what the paper proves of it."""

import numpy as np
import pytest
from layers.dubinin import BOUNDED, check_bound, flatten, float64, share

from helpers import add_noise, assert_near, init_params, run_layer, transition
from lrnn_jax.errors import UserError
from lrnn_jax.layers.h_lru import HLRU
from lrnn_jax.parts.gates import GATES


def make_gates(layer, params, x):
    """(a^1, ..., a^M, a^0) of each channel at one position."""
    p, count = float64(params), layer.order + 1
    if layer.selective:
        logits = x @ p["a/kernel"] + p["a/bias"]
    else:
        logits = p["logits"] / count if layer.gates == "none" else p["logits"]
    return share(logits.reshape(layer.channels, count), layer.gates)


def loop(layer, params, x, state):
    """Outputs and last state of one row, from the sum over the last M values or, as observer, from s."""
    p, m, ys = float64(params), layer.order, []
    for now in np.float64(x):
        gates, v = make_gates(layer, params, now), now @ p["v/kernel"]
        new = np.zeros(state.shape)
        for k in range(layer.channels):
            if layer.form == "companion":
                new[k, 0] = sum(gates[k, i] * state[k, i] for i in range(m)) + gates[k, m] * v[k]
                new[k, 1:] = state[k, :-1]
            else:
                for i in range(m):
                    new[k, i] = gates[k, i] * state[k, 0] + (state[k, i + 1] if i + 1 < m else 0)
                new[k, 0] += gates[k, m] * v[k]
        state = new
        ys.append(state.reshape(-1) @ p["out/kernel"])
    return np.stack(ys), state


@pytest.mark.parametrize(
    "fields",
    [{"gates": gates, "selective": selective} for gates in GATES for selective in (True, False)]
    + [{"order": order, "form": form} for order in (1, 2, 3, 5) for form in ("companion", "observer")]
    + [{"form": "observer", "selective": False}, {"form": "observer", "gates": "tanh"}],
    ids=str,
)
def test_equals_a_numpy_loop(fields):
    layer = HLRU(width=4, **{"channels": 2, "order": 3, **fields})
    rng = np.random.default_rng(0)
    params = add_noise(init_params(layer), 1, 0.5)
    x, h0 = np.float32(rng.normal(size=(2, 9, 4))), np.float32(rng.normal(size=(2, 2, layer.order)))
    expected = [loop(layer, params, x[row], np.float64(h0[row])) for row in range(2)]
    y, last = run_layer(layer, params, x, state=h0)
    assert_near((y, last), tuple(np.stack(part) for part in zip(*expected, strict=True)), 1e-5)
    a = np.zeros((2, 9, 2, layer.order, layer.order))
    a[..., 1:, :-1] = np.eye(layer.order - 1)  # ones below the diagonal
    a[..., 0, :] = [[make_gates(layer, params, np.float64(now))[..., :-1] for now in row] for row in x]
    assert_near(transition(layer, params, x), a if layer.form == "companion" else np.swapaxes(a, -2, -1), 1e-5)


def test_a_case_by_hand():
    """All logits 0, so every gate is 1/3."""
    layer = HLRU(width=1, channels=1, order=2)
    params = {"a": {"kernel": np.zeros((1, 3), np.float32), "bias": np.zeros(3, np.float32)}}
    params |= {"v": {"kernel": np.float32([[1]])}, "out": {"kernel": np.float32([[1], [10]])}}
    y, last = run_layer(layer, params, np.float32([3, 0, 3]).reshape(1, 3, 1))
    # h = 1, then 1/3, then (1/3 + 1)/3 + 1
    np.testing.assert_allclose(y[0, :, 0], [1, 1 / 3 + 10, 13 / 9 + 10 / 3], rtol=1e-6)
    np.testing.assert_allclose(last[0, 0], [13 / 9, 1 / 3], rtol=1e-6)


def test_a_reset_leaves_nothing_of_the_past_in_the_state():
    layer = HLRU(width=1, channels=1, order=3)
    params = {"a": {"kernel": np.zeros((1, 4), np.float32), "bias": np.zeros(4, np.float32)}}
    params |= {"v": {"kernel": np.float32([[4]])}, "out": {"kernel": np.float32([[1], [10], [100]])}}
    reset = np.array([[False, False, True, False]])
    y, last = run_layer(layer, params, np.ones((1, 4, 1), np.float32), state=np.full((1, 1, 3), 9, np.float32), reset=reset)
    # (27/4 + 1, 9, 9), then its first with the reset: (1, 0, 0), (1/4 + 1, 1, 0)
    np.testing.assert_allclose(y[0, [0, 2, 3], 0], [7.75 + 90 + 900, 1, 11.25], rtol=1e-6)
    np.testing.assert_allclose(last[0, 0], [1.25, 1, 0], rtol=1e-6)


def test_both_forms_have_the_same_values_where_gates_are_fixed():
    """Not the same states: those beside h_t differ, so only h_t is read out."""
    companion = HLRU(width=2, channels=2, order=3, selective=False)
    params = add_noise(init_params(companion), 0, 0.5)
    first = np.zeros((2, 3, 2), np.float32)
    first[:, 0] = np.eye(2)
    params = {**params, "out": {"kernel": first.reshape(6, 2)}}
    x = np.random.default_rng(0).normal(size=(1, 12, 2)).astype(np.float32)
    y, last = run_layer(companion, params, x)
    other, another = run_layer(companion.clone(form="observer"), params, x)
    assert_near(other, y, 1e-6)
    assert np.abs(another - last).max() > 1e-3


@pytest.mark.parametrize("gates", BOUNDED)
def test_values_are_bounded_by_inputs_and_first_state(gates):
    """Proposition 1: magnitudes of a channel's gates add up to at most 1. The bound is reached, so more would be seen."""
    assert 0.5 < check_bound(HLRU(width=6, channels=2, order=3, gates=gates)) <= 1 + 1e-5


@pytest.mark.parametrize(("form", "values"), [("companion", [1, 0, 1]), ("observer", [1, 0, 2])])
def test_the_observer_form_breaks_the_bound(form, values):
    """Every v is 1. Position 2 saves the 1 of position 1, as observer beside its value, and position 3 adds a new 1 to it."""
    layer = HLRU(width=2, channels=1, order=2, form=form)
    kernel = np.float32([[0, 0, 300], [0, 300, 0]])  # a token that writes (a^0 = 1) and one that takes h_{t-2} (a^2 = 1)
    params = {"a": {"kernel": kernel, "bias": np.zeros(3, np.float32)}}
    params |= {"v": {"kernel": np.ones((2, 1), np.float32)}, "out": {"kernel": np.eye(2, dtype=np.float32)}}
    y, _ = run_layer(layer, params, np.eye(2, dtype=np.float32)[None, [0, 1, 0]])
    np.testing.assert_array_equal(y[0, :, 0], values)


def test_without_normalisation_values_are_not_bounded():
    layer = HLRU(width=1, channels=1, order=2, gates="none")
    params = {"a": {"kernel": np.zeros((1, 3), np.float32), "bias": np.ones(3, np.float32)}}
    params |= {"v": {"kernel": np.float32([[1]])}, "out": {"kernel": np.float32([[1], [0]])}}
    y, _ = run_layer(layer, params, np.ones((1, 5, 1), np.float32))
    np.testing.assert_array_equal(y[0, :, 0], [1, 2, 4, 7, 12])


@pytest.mark.parametrize("gates", BOUNDED)
@pytest.mark.parametrize("form", ["companion", "observer"])
def test_eigenvalues_are_within_the_unit_circle(gates, form):
    layer = HLRU(width=6, channels=2, order=3, gates=gates, form=form)
    params = add_noise(init_params(layer), 1, 1.0)
    x = np.random.default_rng(0).normal(size=(2, 50, 6)).astype(np.float32)
    radius = np.abs(np.linalg.eigvals(np.float64(transition(layer, params, x)))).max(-1)
    assert 0.5 < radius.max() <= 1 + 1e-6


def test_initial_values_are_the_released_ones():
    """Matrices of standard deviation 0.02 and no bias: gates near 1 / (M + 1); logits of fixed gates uniform in [0, 1)."""
    params = init_params(HLRU(width=64, channels=64, order=4))
    for name in ("v", "a", "out"):
        np.testing.assert_allclose(params[name]["kernel"].std(), 0.02, rtol=0.05)
    np.testing.assert_array_equal(params["a"]["bias"], 0)
    assert sorted(path for path, _ in flatten(params)) == ["a/bias", "a/kernel", "out/kernel", "v/kernel"]
    logits = init_params(HLRU(width=4, channels=256, order=4, selective=False))["logits"]
    assert logits.shape == (256, 5)
    assert 0 <= logits.min() < 0.01 and 0.99 < logits.max() < 1
    np.testing.assert_allclose(logits.mean(), 0.5, atol=0.03)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": 0}, "channels=0 must be at least 1"),
        ({"order": 0}, "order=0 must be at least 1"),
        ({"form": "observed"}, "form='observed' is not one of companion, observer; did you mean 'observer'"),
        ({"gates": "tan"}, "gates='tan' is not one of softmax, sigmoid, .*; did you mean 'tanh'"),
    ],
)
def test_check_refuses_what_does_not_fit(fields, message):
    with pytest.raises(UserError, match=message):
        HLRU(width=8, **fields)


def test_variants_are_the_normalisations_fixed_gates_and_the_other_form():
    assert list(HLRU.VARIANTS) == [*GATES, "fixed", "observer"]
    assert HLRU.VARIANTS["softmax"] == {"gates": HLRU.gates}
