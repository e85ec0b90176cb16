"""Encoders: features of any number, and positions at any place of a sequence."""

import jax
import numpy as np
import pytest
from small_models import LENGTH, TOKENS, WIDTH, apply, dense, initialise, make_model, merge, sinusoid

from lrnn_jax.models.encoders import sinusoids

BARE = {"depth": 0, "norm": "none"}


@pytest.mark.parametrize("features", [1, 3])
def test_features_pass_a_linear_encoder(features):
    model = make_model(**BARE, vocab_size=0)
    x = np.float32(np.random.default_rng(0).normal(size=(2, LENGTH, features)))
    variables = initialise(model, x)
    p = merge(variables)
    assert set(p) == {"encode", "head"}
    np.testing.assert_allclose(apply(model, variables, x)[0], dense(p["head"], dense(p["encode"], np.float64(x))), atol=1e-5)


@pytest.mark.parametrize("width", [1, 4, 7])
def test_sinusoidal_positions_are_sines_and_cosines_of_falling_frequency(width):
    expected = [[sinusoid(t, i, width) for i in range(width)] for t in range(9)]
    np.testing.assert_allclose(sinusoids(9, width), expected, atol=1e-6)


def table_of(model, p):
    return p["positions"]["embedding"] if model.positions == "learned" else sinusoids(model.max_length, WIDTH)


@pytest.mark.parametrize("vocab_size", [5, 0])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_positions_are_added_to_the_encoded_inputs(positions, vocab_size):
    model = make_model(**BARE, positions=positions, max_length=LENGTH + 3, vocab_size=vocab_size)
    x = TOKENS if vocab_size else np.float32(np.random.default_rng(0).normal(size=(2, LENGTH, 2)))
    variables = initialise(model, x)
    p = merge(variables)
    encoded = p["embed"]["embedding"][x] if vocab_size else dense(p["encode"], x)
    expected = dense(p["head"], encoded + table_of(model, p)[:LENGTH])
    logits, (following,) = apply(model, variables, x)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(following, [LENGTH, LENGTH])


def test_positions_begin_again_at_every_reset_and_go_on_from_a_state():
    model = make_model(**BARE, positions="learned", max_length=LENGTH)
    variables = initialise(model)
    p = merge(variables)
    reset = np.bool_([[0, 0, 0, 0, 0, 0], [1, 0, 1, 1, 0, 0]])
    start = np.int32([0, 3])
    where = np.array([[0, 1, 2, 3, 4, 5], [0, 1, 0, 0, 1, 2]])
    logits, (following,) = apply(model, variables, states=(start,), reset=reset)
    expected = dense(p["head"], p["embed"]["embedding"][TOKENS] + p["positions"]["embedding"][where])
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(following, [6, 3])
    # no reset in a row that goes on: beyond the last position there is nothing to add
    beyond, (following,) = apply(model, variables, TOKENS[:, :4], states=(start,), reset=np.zeros((2, 4), bool))
    np.testing.assert_array_equal(np.isnan(beyond).any(-1), [[0, 0, 0, 0], [0, 0, 0, 1]])
    np.testing.assert_array_equal(following, [4, 7])


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_positions_token_by_token_are_those_of_the_full_pass(positions):
    model = make_model(positions=positions, max_length=LENGTH)
    variables = initialise(model)
    whole, last = apply(model, variables)
    states, outputs = model.init_states(2), []
    for t in range(LENGTH):
        logits, states = apply(model, variables, TOKENS[:, t : t + 1], states=states)
        outputs.append(logits)
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), whole, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), states, last)
    with pytest.raises(ValueError, match="states: 1 of them for 1 blocks and their positions"):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x, states=states[:1]), TOKENS)


def test_learned_positions_start_small():
    model = make_model(depth=0, width=32, positions="learned", max_length=60)
    params = jax.jit(model.init)(jax.random.key(0), TOKENS)["params"]
    assert params["positions"]["embedding"].shape == (60, 32)
    np.testing.assert_allclose(np.std(params["positions"]["embedding"]), 0.02, rtol=0.05)
