"""mLSTM against the unstabilised recurrence of Beck et al. 2024, Eqs. 19-27, in NumPy, float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import init_params, run_layer, sigmoid, silu, start_state, to_numpy, transition
from lrnn_jax.errors import UserError
from lrnn_jax.layers.mlstm import MLSTM

WIDTH, HEADS, LENGTH, BATCH = 4, 2, 9, 2
INNER = 2 * WIDTH
SIZE = INNER // HEADS


def multiply_blocks(x, kernel):
    size = kernel.shape[1]
    return np.concatenate([x[i * size : (i + 1) * size] @ block for i, block in enumerate(kernel)])


def run_numpy(p, x, c, n, starts=()):
    """One row, from C and n without any stabiliser. Returns outputs, C, n, h and forget gates."""
    kernel = p["conv"]["kernel"] if "conv" in p else None
    up = x @ p["up"]["kernel"]
    outputs, cells, gates, first = [], [], [], 0
    for t in range(len(x)):
        if t in starts:
            c, n, first = np.zeros_like(c), np.zeros_like(n), t
        conv = up[t, :INNER]
        if kernel is not None:
            taps = [kernel[j] * up[t - j, :INNER] for j in range(len(kernel)) if t - j >= first]
            conv = silu(sum(taps) + p["conv"]["bias"])
        q, k = multiply_blocks(conv, p["q_kernel"]), multiply_blocks(conv, p["k_kernel"])
        v = multiply_blocks(up[t, :INNER], p["v_kernel"])
        together = np.concatenate([q, k, v])
        i = np.exp(together @ p["input_gate"]["kernel"] + p["input_gate"]["bias"])
        f = sigmoid(together @ p["forget_gate"]["kernel"] + p["forget_gate"]["bias"])
        q, k, v = (z.reshape(HEADS, SIZE) for z in (q, k / np.sqrt(SIZE), v))
        h = np.zeros((HEADS, SIZE))
        for head in range(HEADS):
            c[head] = f[head] * c[head] + i[head] * np.outer(v[head], k[head])
            n[head] = f[head] * n[head] + i[head] * k[head]
            h[head] = c[head] @ q[head] / max(abs(n[head] @ q[head]), 1)
        normed = (h - h.mean(axis=1, keepdims=True)) / np.sqrt(h.var(axis=1, keepdims=True) + 1e-5)
        y = normed.reshape(-1) * p["norm_scale"] + p["skip"] * conv
        outputs.append((y * silu(up[t, INNER:])) @ p["down"]["kernel"])
        cells.append(h)
        gates.append(f)
    return np.array(outputs), c, n, np.array(gates)


def make_case(scale, blocks=4, taps=4):
    """Gates' biases are spread by ``scale``: input gates from exp(-scale) to exp(scale)."""
    rng = np.random.default_rng(0)
    layer = MLSTM(WIDTH, heads=HEADS, block_size=blocks, conv_width=taps)
    x = np.float32(rng.normal(size=(BATCH, LENGTH, WIDTH)))
    params = init_params(layer)
    params = jax.tree.map(lambda p: np.float32(p + 0.5 * rng.normal(size=p.shape)), params)
    params["input_gate"]["bias"] = np.float32([-scale, scale])
    params["forget_gate"]["bias"] = np.float32([1, -scale / 4])
    return rng, layer, params, x


@pytest.mark.parametrize("method", MLSTM.METHODS)
@pytest.mark.parametrize(("scale", "blocks", "taps"), [(1.0, 4, 4), (6.0, 2, 0)])
def test_equals_the_recurrence_without_a_stabiliser(scale, blocks, taps, method):
    rng, layer, params, x = make_case(scale, blocks, taps)
    c, n = rng.normal(size=(BATCH, HEADS, SIZE, SIZE)), rng.normal(size=(BATCH, HEADS, SIZE))
    m = rng.normal(size=(BATCH, HEADS))
    state = {**start_state(layer, BATCH), "C": np.swapaxes(c, 2, 3), "n": n, "m": m}
    y, last = run_layer(layer, params, x, state=jax.tree.map(np.float32, state), scan=method)
    f = transition(layer, params, x)
    exact = jax.tree.map(np.float64, params)
    for row in range(BATCH):
        scales = np.exp(m[row])
        start = c[row] * scales[:, None, None], n[row] * scales[:, None]
        outputs, c_last, n_last, gates = run_numpy(exact, np.float64(x[row]), *start)
        # 1e-6 in the divisor of the stabilised h
        np.testing.assert_allclose(y[row], outputs, atol=2e-5 * np.abs(outputs).max())
        np.testing.assert_allclose(f[row], gates, atol=1e-6)
        kept = np.exp(-np.float64(last["m"][row]))
        c_last, n_last = np.swapaxes(c_last, 1, 2) * kept[:, None, None], n_last * kept[:, None]
        np.testing.assert_allclose(last["C"][row], c_last, atol=5e-6 * np.abs(c_last).max())
        np.testing.assert_allclose(last["n"][row], n_last, atol=5e-6 * np.abs(n_last).max())


@pytest.mark.parametrize("method", MLSTM.METHODS)
def test_reset_forgets_the_stabiliser_too(method):
    _, layer, params, x = make_case(6.0)
    starts = (0, 3, 4)
    reset = np.zeros((BATCH, LENGTH), bool)
    reset[:, starts] = True
    state = jax.tree.map(lambda z: z + 3, start_state(layer, BATCH))
    y, _ = run_layer(layer, params, x, state=state, reset=reset, scan=method)
    exact = jax.tree.map(np.float64, params)
    for row in range(BATCH):
        zeros = np.zeros((HEADS, SIZE, SIZE)), np.zeros((HEADS, SIZE))
        outputs = run_numpy(exact, np.float64(x[row]), *zeros, starts)[0]
        np.testing.assert_allclose(y[row], outputs, atol=2e-5 * np.abs(outputs).max())


@pytest.mark.parametrize("method", MLSTM.METHODS)
def test_the_stabiliser_is_the_running_maximum_and_h_is_finite_where_exp_overflows(method):
    _, layer, params, x = make_case(300.0)

    def loss(params, x):
        y, state = nn.apply(lambda m, x: m(x, scan=method), layer)({"params": params}, x)
        return jnp.sum(y), (y, state)

    (_, (y, state)), gradients = to_numpy(jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((y, state, gradients)))
    np.testing.assert_array_less(250, state["m"][:, 1])
    # The first head's input gates are exp(-300): only m = 0 at the start, times forget gates, is left of it.
    assert (state["m"][:, 0] <= 0).all()
    assert (state["m"][:, 0] > -60).all()
    np.testing.assert_allclose(state["C"][:, 0], 0, atol=1e-30)


def test_weights_start_as_released():
    layer = MLSTM(400, heads=4, depth=5, expand=1)
    params = init_params(layer)
    for kernel, deviation in [
        (params["up"]["kernel"], (2 / 5 / 400) ** 0.5),
        (params["q_kernel"], (2 / 5 / 400) ** 0.5),
        (params["down"]["kernel"], 2 / 5 / 400**0.5),
        (params["input_gate"]["bias"], 0.1),
    ]:
        np.testing.assert_allclose(np.std(kernel), deviation, rtol=0.1 if kernel.size > 4 else 0.9)
    np.testing.assert_allclose(params["forget_gate"]["bias"], [3, 4, 5, 6], rtol=1e-6)
    for gate in ("input_gate", "forget_gate"):
        np.testing.assert_array_equal(params[gate]["kernel"], np.zeros((1200, 4)))
    for name in ("norm_scale", "skip"):
        np.testing.assert_array_equal(params[name], np.ones(400))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *(({name: 0}, f"{name}=0 must be at least 1") for name in ("heads", "expand", "block_size")),
        ({"conv_width": -1}, "conv_width=-1 must be at least 0"),
        ({"heads": 3}, "heads=3 must divide expand . width = 16"),
        ({"heads": 16}, "heads=16 must leave each head two of 16 features or more, for its norm"),
        ({"block_size": 5}, "block_size=5 must divide expand . width = 16"),
    ],
)
def test_check_refuses_what_does_not_fit(fields, message):
    good = {"width": 8, "heads": 4, "expand": 2, "conv_width": 1, "block_size": 4}
    MLSTM.check(good)
    with pytest.raises(UserError, match=message):
        MLSTM.check({**good, **fields})
