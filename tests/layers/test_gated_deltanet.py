"""Gated DeltaNet against Yang et al. 2025, Sections 3.1 and 3.4, in NumPy."""

import itertools

import jax
import numpy as np
import pytest

from helpers import init_params, run_layer, sigmoid, silu, start_state, transition
from lrnn_jax.errors import UserError
from lrnn_jax.layers.gated_deltanet import GatedDeltaNet

WIDTH, HEADS, LENGTH, BATCH = 6, 2, 9, 2


def unit(x):
    return x / np.sqrt((x**2).sum() + 1e-6)


def run_numpy(p, x, s, *, taps, size, negative):
    """One row, from the state ``s`` [H K V] and no earlier inputs. Returns outputs, last state and transitions."""
    kernel = p["conv"]["kernel"] if taps else None
    streams, first = [], 0
    for name in "qkv":
        z = x @ p[name]["kernel"]
        if taps:
            own = kernel[:, first : first + z.shape[1]]
            first += z.shape[1]
            z = np.stack([sum(own[j] * z[t - j] for j in range(taps) if t >= j) for t in range(len(x))])
        streams.append(silu(z).reshape(len(x), HEADS, -1))
    outputs, transitions = [], []
    for t in range(len(x)):
        heads = []
        dt = np.log1p(np.exp(x[t] @ p["decay"]["kernel"] + p["decay"]["dt_bias"]))
        alpha = np.exp(-np.exp(p["decay"]["A_log"]) * dt)
        beta = sigmoid(x[t] @ p["beta"]["kernel"]) * (2 if negative else 1)
        for h in range(HEADS):
            q, k, v = (stream[t, h] for stream in streams)
            q, k = unit(q) / np.sqrt(size), unit(k)
            a = alpha[h] * (np.eye(size) - beta[h] * np.outer(k, k))
            s[h] = a @ s[h] + beta[h] * np.outer(k, v)
            o = s[h].T @ q
            heads.append(o / np.sqrt((o**2).mean() + 1e-5) * p["norm"]["scale"])
            transitions.append(a)
        outputs.append((np.concatenate(heads) * silu(x[t] @ p["gate"]["kernel"])) @ p["out"]["kernel"])
    return np.array(outputs), s, np.array(transitions).reshape(len(x), HEADS, size, size)


@pytest.mark.parametrize(("taps", "head_dim", "negative"), list(itertools.product([0, 4], [0, 4], [False, True])))
def test_equals_a_numpy_loop(taps, head_dim, negative):
    rng = np.random.default_rng(0)
    layer = GatedDeltaNet(WIDTH, heads=HEADS, head_dim=head_dim, expand_v=2, conv_width=taps, negative_eigenvalues=negative)
    size = head_dim or WIDTH // HEADS
    x = np.float32(rng.normal(size=(BATCH, LENGTH, WIDTH)))
    params = init_params(layer)
    params = jax.tree.map(lambda p: np.float32(p + 0.2 * rng.normal(size=p.shape)), params)
    state = {**start_state(layer, BATCH), "S": np.float32(rng.normal(size=(BATCH, HEADS, size, 2 * size)))}
    y, last = run_layer(layer, params, x, state=state)
    a = transition(layer, params, x)
    assert ("conv" in params) == bool(taps)
    exact = jax.tree.map(np.float64, params)
    for row in range(BATCH):
        s = np.array(state["S"][row], np.float64)
        outputs, s, transitions = run_numpy(exact, np.float64(x[row]), s, taps=taps, size=size, negative=negative)
        np.testing.assert_allclose(y[row], outputs, atol=2e-5)
        np.testing.assert_allclose(last["S"][row], s, atol=3e-6)
        np.testing.assert_allclose(a[row], transitions, atol=3e-6)


def test_decays_start_where_mamba_2_starts_them():
    """exp(A_log) is uniform in [0, 16] and softplus(dt_bias) log-uniform in [1e-3, 1e-1]."""
    layer = GatedDeltaNet(8, heads=4000, head_dim=1, expand_v=1, conv_width=0)
    decay = init_params(layer)["decay"]
    a, dt = np.exp(decay["A_log"]), np.log1p(np.exp(np.float64(decay["dt_bias"])))
    assert 0 < a.min() < 0.1 and 15.9 < a.max() <= 16 and abs(a.mean() - 8) < 0.3
    assert 1e-3 <= dt.min() * 1.001 < 1.1e-3 and 0.09 < dt.max() <= 0.1001
    assert abs(np.log10(dt).mean() + 2) < 0.05


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 3}, "heads=3 must be at least 1 and divide width=8"),
        ({"heads": 0, "head_dim": 4}, "heads=0 must be at least 1"),
        ({"head_dim": -1}, "head_dim=-1 must be at least 0"),
        ({"expand_v": 0}, "expand_v=0 must be at least 1"),
        ({"conv_width": -1}, "conv_width=-1 must be at least 0"),
    ],
)
def test_check_refuses_what_does_not_fit(fields, message):
    good = {
        "initial_values": "default",
        "width": 8,
        "heads": 2,
        "head_dim": 0,
        "expand_v": 2,
        "conv_width": 0,
        "negative_eigenvalues": True,
    }
    GatedDeltaNet.check(good)
    GatedDeltaNet.check({**good, "heads": 3, "head_dim": 5})  # the inner width is then free
    with pytest.raises(UserError, match=message):
        GatedDeltaNet.check({**good, **fields})
