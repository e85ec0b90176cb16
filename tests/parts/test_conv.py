"""The causal convolution against a NumPy loop over documents."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrnn_jax.parts.conv import CausalConv, count_parameters, count_state, empty_history

BATCH, FEATURES = 2, 3


@functools.cache
def prepare(width, use_bias=True):
    conv = CausalConv(FEATURES, width, use_bias=use_bias)
    x, history = np.zeros((BATCH, 1, FEATURES), np.float32), np.zeros((BATCH, width - 1, FEATURES), np.float32)
    return jax.jit(conv.init)(jax.random.key(0), x, history, None), jax.jit(conv.apply)


def draw(width, length):
    rng = np.random.default_rng(length)
    x, history = rng.normal(size=(BATCH, length, FEATURES)), rng.normal(size=(BATCH, width - 1, FEATURES))
    return np.float32(x), np.float32(history)


def run_numpy(variables, x, history, reset=None):
    """y_t = bias + sum_j kernel_j x_{t-j}, over the inputs since the last start only; what is forgotten reads zero."""
    kernel, bias = np.float64(variables["params"]["kernel"]), np.float64(variables["params"].get("bias", 0.0))
    taps = len(kernel) - 1
    outputs, kept = np.zeros(x.shape), np.zeros(history.shape)
    for row in range(BATCH):
        seen = [*np.float64(history[row])]
        for t in range(x.shape[1]):
            if reset is not None and reset[row, t]:
                seen = [np.zeros(FEATURES)] * taps
            seen.append(np.float64(x[row, t]))
            outputs[row, t] = bias + sum(kernel[j] * seen[-1 - j] for j in range(taps + 1))
        kept[row] = np.reshape(seen[len(seen) - taps :], (taps, FEATURES))
    return outputs, kept


@pytest.mark.parametrize("use_bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_equals_a_numpy_loop_that_continues_from_the_history(width, length, use_bias):
    variables, run = prepare(width, use_bias)
    x, history = draw(width, length)
    y, kept = run(variables, x, history, None)
    expected, expected_kept = run_numpy(variables, x, history)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    np.testing.assert_array_equal(kept, np.float32(expected_kept))


@pytest.mark.parametrize("positions", [(0,), (1,), (5,), (6,), (2, 3, 5), tuple(range(7))])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_reset_forgets_the_history_and_every_earlier_input(width, positions):
    variables, run = prepare(width)
    x, history = draw(width, 7)
    reset = np.zeros((BATCH, 7), bool)
    reset[0, list(positions)] = True  # the second row goes on
    y, kept = run(variables, x, history, reset)
    expected, expected_kept = run_numpy(variables, x, history, reset)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    np.testing.assert_array_equal(kept, np.float32(expected_kept))


@pytest.mark.parametrize("pieces", [(1,) * 7, (2, 5), (3, 1, 3)])
def test_pieces_with_carried_history_equal_the_whole(pieces):
    variables, run = prepare(4)
    x, history = draw(4, 7)
    reset = np.zeros((BATCH, 7), bool)
    reset[0, 2] = reset[1, 5] = True
    whole, last = run(variables, x, history, reset)
    outputs, first = [], 0
    for piece in pieces:
        part = slice(first, first + piece)
        y, history = run(variables, x[:, part], history, reset[:, part])
        outputs.append(y)
        first += piece
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), whole, atol=1e-6)
    np.testing.assert_array_equal(history, last)


def test_width_0_is_the_identity_without_parameters():
    """And without the activation."""
    conv = CausalConv(FEATURES, 0, activation=jax.nn.silu)
    x, history = draw(1, 7)[0], empty_history(BATCH, FEATURES, 0)
    assert history.shape == (BATCH, 0, FEATURES)
    (y, kept), variables = conv.init_with_output(jax.random.key(0), x, history, None)
    assert not variables
    np.testing.assert_array_equal(y, x)
    assert kept is history


def test_the_activation_follows_the_bias():
    variables, run = prepare(4)
    conv = CausalConv(FEATURES, 4, activation=jnp.square)
    y, _ = jax.jit(conv.apply)(variables, *draw(4, 7), None)
    np.testing.assert_allclose(y, np.square(run(variables, *draw(4, 7), None)[0]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("use_bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("width", [0, 1, 4])
def test_counts_are_those_of_parameters_and_history(width, use_bias):
    conv = CausalConv(FEATURES, width, use_bias=use_bias)
    history = jax.eval_shape(lambda: empty_history(1, FEATURES, width))
    variables = jax.eval_shape(conv.init, jax.random.key(0), np.zeros((1, 2, FEATURES), np.float32), history, None)
    assert count_parameters(FEATURES, width, use_bias=use_bias) == sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert count_state(FEATURES, width) == history.size


def test_no_gradient_crosses_a_reset_or_runs_backwards_in_time():
    variables, _ = prepare(4)
    conv, (x, history) = CausalConv(FEATURES, 4), draw(4, 7)
    reset = np.arange(BATCH * 7).reshape(BATCH, 7) % 7 == 3
    jacobian = jax.jit(jax.jacrev(lambda x, history: conv.apply(variables, x, history, reset)[0][0], argnums=(0, 1)))(
        x, history
    )
    reach = np.abs(jacobian[0]).max(axis=(1, 2, 4))  # [t, s]
    document = np.arange(7) >= 3
    lag = np.arange(7)[:, None] - np.arange(7)[None]
    np.testing.assert_array_equal(reach > 0, (lag >= 0) & (lag < 4) & (document[:, None] == document[None]))
    np.testing.assert_array_equal(np.abs(jacobian[1]).max(axis=(1, 2, 3, 4)) > 0, ~document)


@pytest.mark.parametrize("reset", [None, np.arange(BATCH * 7).reshape(BATCH, 7) % 7 == 4], ids=["whole", "reset"])
def test_bfloat16_outputs_keep_a_float32_history(reset):
    variables, run = prepare(4)
    x, history = draw(4, 7)
    low = CausalConv(FEATURES, 4, dtype=jnp.bfloat16)
    y, kept = jax.jit(low.apply)(variables, x.astype(jnp.bfloat16), history, reset)
    assert (y.dtype, kept.dtype) == (jnp.bfloat16, jnp.float32)
    expected, _ = run(variables, x, history, reset)
    np.testing.assert_allclose(np.float32(y), expected, atol=0.02)


def test_the_kernel_starts_uniform_within_one_over_the_root_of_the_width():
    conv = CausalConv(2000, 4)
    params = jax.jit(conv.init)(
        jax.random.key(0), np.zeros((1, 1, 2000), np.float32), np.zeros((1, 3, 2000), np.float32), None
    )["params"]
    assert params["kernel"].shape == (4, 2000)
    for values in (params["kernel"], params["bias"]):
        assert 0.49 < np.abs(values).max() <= 0.5
        np.testing.assert_allclose(np.std(values), 0.5 / np.sqrt(3), rtol=0.05)
