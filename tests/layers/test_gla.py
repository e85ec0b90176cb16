"""GLA against Yang et al. 2024, Eq. 3 and Section 4.4, in NumPy; the range [-1, 1] is ours, as Grazzi et al. 2025, Eq. 2."""

import jax
import numpy as np
import pytest

from helpers import init_params, run_layer, sigmoid, silu, start_state, transition
from lrnn_jax.errors import UserError
from lrnn_jax.layers.gla import GLA

WIDTH, HEADS, KEYS, VALUES, RANK, LENGTH, BATCH = 6, 2, 3, 5, 2, 9, 2


def run_numpy(p, x, s, *, taps, normaliser, negative):
    """One row, from the state ``s`` [H K V] and no earlier inputs. Returns outputs, last state and decays."""
    projected = np.concatenate([x @ p[name]["kernel"] for name in "qkv"], axis=1)
    if taps:
        kernel = p["conv"]["kernel"]
        projected = [silu(sum(kernel[j] * projected[t - j] for j in range(taps) if t >= j)) for t in range(len(x))]
    logits = x @ p["gate_down"]["kernel"] @ p["gate_up"]["kernel"] + p["gate_up"]["bias"]
    outputs, decays = [], []
    for t in range(len(x)):
        alpha = (sigmoid(logits[t]) ** (1 / normaliser)).reshape(HEADS, KEYS)
        alpha = 2 * alpha - 1 if negative else alpha
        q, k = projected[t][: 2 * HEADS * KEYS].reshape(2, HEADS, KEYS)
        v = projected[t][2 * HEADS * KEYS :].reshape(HEADS, VALUES)
        gate = silu(x[t] @ p["output_gate"]["kernel"]).reshape(HEADS, VALUES)
        heads = []
        for head in range(HEADS):
            s[head] = np.diag(alpha[head]) @ s[head] + np.outer(k[head], v[head])
            o = s[head].T @ q[head] / np.sqrt(KEYS)
            heads.append(o / np.sqrt((o**2).mean() + 1e-5) * p["norm"]["scale"] * gate[head])
        outputs.append(np.concatenate(heads) @ p["out"]["kernel"])
        decays.append(alpha)
    return np.array(outputs), s, np.array(decays)


@pytest.mark.parametrize("method", GLA.METHODS)
@pytest.mark.parametrize(("taps", "normaliser", "negative"), [(0, 16.0, False), (4, 2.0, False), (0, 0.5, True)])
def test_equals_a_numpy_loop(taps, normaliser, negative, method):
    rng = np.random.default_rng(0)
    sizes = {"heads": HEADS, "key_size": KEYS, "value_size": VALUES, "gate_rank": RANK, "conv_width": taps}
    layer = GLA(WIDTH, **sizes, gate_normaliser=normaliser, negative_eigenvalues=negative)
    x = np.float32(rng.normal(size=(BATCH, LENGTH, WIDTH)))
    params = init_params(layer)
    params = jax.tree.map(lambda p: np.float32(p + 0.3 * rng.normal(size=p.shape)), params)
    state = {**start_state(layer, BATCH), "S": np.float32(rng.normal(size=(BATCH, HEADS, KEYS, VALUES)))}
    y, last = run_layer(layer, params, x, state=state, scan=method)
    a = transition(layer, params, x)
    assert ("conv" in params) == bool(taps)
    assert (np.min(a) < -0.1) == negative
    exact = jax.tree.map(np.float64, params)
    for row in range(BATCH):
        s = np.array(state["S"][row], np.float64)
        outputs, s, decays = run_numpy(exact, np.float64(x[row]), s, taps=taps, normaliser=normaliser, negative=negative)
        np.testing.assert_allclose(y[row], outputs, atol=5e-6 * np.abs(outputs).max())
        np.testing.assert_allclose(last["S"][row], s, atol=3e-6 * np.abs(s).max())
        np.testing.assert_allclose(a[row], decays, atol=2e-6)


def test_sizes_of_a_head_come_from_the_width():
    variables = jax.eval_shape(GLA(16, heads=2).init, jax.random.key(0), np.zeros((1, 1, 16), np.float32))
    shapes = jax.tree.map(lambda leaf: leaf.shape, variables["params"])
    assert shapes["q"]["kernel"] == shapes["k"]["kernel"] == (16, 8)
    assert shapes["v"]["kernel"] == (16, 16)
    assert shapes["gate_down"]["kernel"] == (16, 16)


def test_weights_start_uniform_as_flas():
    params = init_params(GLA(100, heads=1, gate_rank=4))
    for name, bound in [("q", 0.1), ("v", 0.1), ("out", 0.1), ("gate_down", 0.1), ("gate_up", 0.5)]:
        kernel = np.asarray(params[name]["kernel"])
        assert 0.95 * bound < np.abs(kernel).max() <= bound
        np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.15)
    assert 0.4 < np.abs(np.asarray(params["gate_up"]["bias"])).max() <= 0.5


def parity_parameters():
    """Tokens are one-hot: 0, 1, BOS. BOS writes; "1" has alpha near 0, so 2 alpha - 1 = -1; "0" and BOS have alpha = 1."""
    write = np.zeros((4, 2), np.float32)
    write[2] = 1
    token = np.zeros((4, 2), np.float32)
    token[1, 0] = -200
    return {
        "q": {"kernel": np.ones((4, 2), np.float32)},
        "k": {"kernel": write},
        "v": {"kernel": write},
        "gate_down": {"kernel": token},
        "gate_up": {"kernel": np.float32([[1, 1], [0, 0]]), "bias": np.full(2, 60, np.float32)},
        "output_gate": {"kernel": np.ones((4, 2), np.float32)},
        "norm": {"scale": np.ones(2, np.float32)},
        "out": {"kernel": np.eye(2, 4, dtype=np.float32)},
    }


@pytest.mark.parametrize("method", GLA.METHODS)
@pytest.mark.parametrize("negative", [False, True], ids=["positive", "negative"])
def test_tracks_parity_with_eigenvalues_below_0_only(negative, method):
    bits = np.random.default_rng(0).integers(0, 2, 600)
    x = np.eye(4, dtype=np.float32)[np.concatenate([[2], bits])][None]
    layer = GLA(4, heads=1, key_size=2, value_size=2, gate_rank=2, gate_normaliser=1.0, negative_eigenvalues=negative)
    y, state = run_layer(layer, parity_parameters(), x, scan=method)
    signs = np.where(np.cumsum(bits) % 2, -1, 1)
    ones = np.ones((1, 1, 2, 2), np.float32)
    if negative:
        np.testing.assert_array_equal(np.sign(y[0, 1:, 0]), signs)
        np.testing.assert_array_equal(state["S"], signs[-1] * ones)
    else:
        np.testing.assert_allclose(state["S"], 0 * ones, atol=1e-30)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 0}, "heads=0 must be at least 1"),
        ({"heads": 3}, "key_size=0 needs width=8 to be a multiple of 6"),
        ({"heads": 3, "key_size": 1}, "value_size=0 needs width=8 to be a multiple of 3"),
        ({"key_size": -1}, "key_size=-1 must be at least 0"),
        ({"value_size": -1}, "value_size=-1 must be at least 0"),
        ({"gate_rank": 0}, "gate_rank=0 must be at least 1"),
        ({"gate_normaliser": 0.0}, "gate_normaliser=0.0 must be above 0"),
        ({"conv_width": -1}, "conv_width=-1 must be at least 0"),
    ],
)
def test_check_refuses_what_does_not_fit(fields, message):
    good = {"width": 8, "heads": 2, "key_size": 0, "value_size": 0, "gate_rank": 1, "gate_normaliser": 16.0, "conv_width": 0}
    GLA.check(good)
    with pytest.raises(UserError, match=message):
        GLA.check({**good, **fields})
