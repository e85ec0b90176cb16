"""Every head against NumPy: what it makes of the stream, of padding and of its norms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import LENGTH, NUMPY_NORMS, TOKENS, VOCAB, WIDTH, apply, dense, gelu, initialise, make_model, merge, sinusoid

from lrnn_jax.models.names import HEADS, load_head

PAIRS = np.stack([TOKENS, (TOKENS[::-1] + 2) % VOCAB], axis=1)
LENGTHS = np.int32([2, 5])


def inputs_of(head):
    return PAIRS if head == "pair" else TOKENS


def lengths_of(head):
    return np.stack([LENGTHS, [6, 1]], axis=1).astype(np.int32) if head == "pair" else LENGTHS


def answer(head, p, x, lengths, normalise, positions):
    """The logits of one row ``x`` [T D], or of a pair [2 T D], in float64."""
    if head == "pair":
        u, v = (normalise(p.get("norm"), row)[:length].mean(0) for row, length in zip(x, lengths, strict=True))
        return dense(p["head"], gelu(dense(p["head"]["hidden"], np.concatenate([u, v, u - v, u * v]))))
    if head == "autoencoder":
        y = x[lengths - 1] + positions
        for i in range(2):
            y = dense(p["head"][f"hidden_{i}"], normalise(p["head"].get(f"norm_{i}"), y))
            y *= (1 + np.vectorize(math.erf)(y / np.sqrt(2))) / 2
        return dense(p["head"], normalise(p["head"].get("norm_2"), y))
    x = normalise(p.get("norm"), x)
    if head in ("mean", "regression"):
        return dense(p["head"], x[:lengths].mean(0))
    return dense(p["head"], x[lengths - 1] if head == "last" else x)


@pytest.mark.parametrize("norm", ["layernorm", "none", "batchnorm"])
@pytest.mark.parametrize("head", HEADS)
def test_a_head_equals_its_formula(head, norm):
    model = make_model(depth=0, head=head, norm=norm, max_length=LENGTH + 2)
    inputs, lengths = inputs_of(head), lengths_of(head)
    variables = initialise(model, inputs)
    logits, _ = apply(model, variables, inputs, lengths=lengths)
    p = merge(variables)
    positions = np.array([[sinusoid(t, i, WIDTH) for i in range(WIDTH)] for t in range(LENGTH)])
    stream = p["embed"]["embedding"][inputs]
    expected = [answer(head, p, *row, NUMPY_NORMS[norm], positions) for row in zip(stream, lengths, strict=True)]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=5e-6 * np.abs(expected).max())
    whole = np.full_like(lengths, LENGTH)
    np.testing.assert_array_equal(apply(model, variables, inputs)[0], apply(model, variables, inputs, lengths=whole)[0])


@pytest.mark.parametrize("head", [head for head in HEADS if head != "token"])
def test_padding_beyond_the_lengths_does_not_matter(head):
    model = make_model(depth=2, head=head, max_length=9)
    inputs, lengths = inputs_of(head), lengths_of(head)
    variables = initialise(model, inputs)
    logits, _ = apply(model, variables, inputs, lengths=lengths)
    inside = np.arange(LENGTH) < lengths[..., None]
    other, _ = apply(model, variables, np.where(inside, inputs, (inputs + 1) % VOCAB), lengths=lengths)
    np.testing.assert_array_equal(logits, other)
    longer = np.pad(inputs, [(0, 0)] * (inputs.ndim - 1) + [(0, 3)])
    padded, _ = apply(model, variables, longer, lengths=lengths)
    np.testing.assert_allclose(padded[:, :LENGTH] if head == "autoencoder" else padded, logits, rtol=1e-5, atol=1e-6)
    changed, _ = apply(model, variables, (inputs + (np.arange(LENGTH) == 0)) % VOCAB, lengths=lengths)
    assert np.all(np.abs(changed - logits).reshape(2, -1).max(axis=1) > 1e-4)


def test_an_autoencoder_decodes_from_its_last_vector_alone():
    """Two inputs that leave the same last vector have the same answer: with no block, those that end alike."""
    model = make_model(depth=0, head="autoencoder", max_length=LENGTH)
    variables = initialise(model)
    other = np.where(np.arange(LENGTH) == LENGTH - 1, TOKENS, (TOKENS + 1) % VOCAB)
    np.testing.assert_array_equal(apply(model, variables)[0], apply(model, variables, other)[0])


def test_an_autoencoder_shares_the_learned_positions_of_its_encoder():
    model = make_model(depth=0, norm="none", head="autoencoder", positions="learned", max_length=LENGTH + 2)
    variables = initialise(model)
    p = merge(variables)
    table = p["positions"]["embedding"][:LENGTH]
    stream = p["embed"]["embedding"][TOKENS] + table
    expected = [answer("autoencoder", p, row, LENGTH, NUMPY_NORMS["none"], table) for row in stream]
    np.testing.assert_allclose(apply(model, variables)[0], expected, rtol=1e-5, atol=1e-5)


def test_a_regression_is_not_rounded_to_the_compute_dtype():
    fields = {"depth": 0, "norm": "none", "dtype": jnp.bfloat16}
    for head, rounded in (("mean", True), ("regression", False)):
        model = make_model(head=head, **fields)
        numbers, _ = apply(model, initialise(model))
        assert np.array_equal(numbers, numbers.astype(jnp.bfloat16)) == rounded, head


@pytest.mark.parametrize("head", HEADS)
def test_bfloat16_is_near_float32(head):
    fields = {"depth": 1, "mixer": "half_glu1", "head": head, "max_length": LENGTH}
    inputs = inputs_of(head)
    variables = initialise(make_model(**fields), inputs)
    expected, _ = apply(make_model(**fields), variables, inputs)
    logits, _ = apply(make_model(**fields, dtype=jnp.bfloat16), variables, inputs)
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() < 0.05 * np.abs(expected).max()


def test_only_token_and_last_are_causal():
    assert [head for head in HEADS if load_head(head).CAUSAL] == ["token", "last"]
    assert [head for head in HEADS if load_head(head).ROWS == 2] == ["pair"]


def test_a_pair_of_feature_rows_passes_the_blocks_side_by_side():
    rng = np.random.default_rng(0)
    x = np.float32(rng.normal(size=(2, 2, LENGTH, 3)))
    model = make_model(vocab_size=0, head="pair")
    variables = initialise(model, x)
    logits, states = apply(model, variables, x)
    assert logits.shape == (2, 3)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(states)} == {4}
    swapped, _ = apply(model, variables, x[::-1])
    np.testing.assert_allclose(swapped[::-1], logits, rtol=1e-5, atol=1e-6)
    assert np.abs(apply(model, variables, x[:, ::-1])[0] - logits).max() > 1e-3
