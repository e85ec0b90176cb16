"""The backbone: encoder, blocks and heads, against hand-made cases and NumPy."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from small_models import (
    LENGTH,
    NUMPY_NORMS,
    OUTPUTS,
    TOKENS,
    WIDTH,
    apply,
    batch_norm,
    dense,
    initialise,
    layer_norm,
    make_model,
    merge,
    mix,
)

from lrnn_jax.layers.diagonal import Diagonal
from lrnn_jax.models.backbone import Backbone
from lrnn_jax.models.block import Block
from lrnn_jax.models.names import HEADS, MIXERS, NORMS
from lrnn_jax.models.norms import Norm
from lrnn_jax.registry import load_layer

HAND_MADE = {  # embeddings (1, 0), (0, 1), (2, 4); logits (x, 10 y, x + y + 1)
    "embed": {"embedding": np.float32([[1, 0], [0, 1], [2, 4]])},
    "head": {"kernel": np.float32([[1, 0, 1], [0, 10, 1]]), "bias": np.float32([0, 0, 1])},
}


@pytest.mark.parametrize(
    ("head", "lengths", "expected"),
    [
        ("token", None, [[[1, 0, 2], [0, 10, 2], [2, 40, 7]], [[2, 40, 7], [2, 40, 7], [1, 0, 2]]]),
        ("last", None, [[2, 40, 7], [1, 0, 2]]),
        ("last", [1, 2], [[1, 0, 2], [2, 40, 7]]),
        ("mean", None, [[1, 50 / 3, 1 + 8 / 3], [5 / 3, 80 / 3, 1 + 13 / 3]]),
        ("mean", [2, 1], [[0.5, 5, 2], [2, 40, 7]]),
    ],
)
def test_heads_on_a_case_made_by_hand(head, lengths, expected):
    model = make_model(vocab_size=3, width=2, depth=0, norm="none", head=head)
    tokens = np.int32([[0, 1, 2], [2, 2, 0]])
    lengths = None if lengths is None else np.int32(lengths)
    logits, states = apply(model, {"params": HAND_MADE}, tokens, lengths=lengths)
    np.testing.assert_allclose(logits, expected, rtol=1e-6)
    assert states == ()


@functools.cache
def compile_layer():
    return jax.jit(lambda params, x: Diagonal(WIDTH, gain=2.0).apply({"params": params}, x)[0])


def run_numpy(p, *, norm, norm_position, mixer, residual):
    """One block around the diagonal layer, which the tests of `layers` check on its own."""

    def normalise(p, x):
        return NUMPY_NORMS[norm](p, x)

    def join(x, y):
        return x + y if residual else y

    def recur(x):
        y = np.float64(compile_layer()(jax.tree.map(np.float32, block["layer"]), np.float32(x)))
        return mix(mixer, block["glu"], y) if "glu" in block else y

    block, pre = p["block_0"], norm_position == "pre"
    x = p["embed"]["embedding"][np.asarray(TOKENS)]
    own = block.get("norm")
    x = join(x, recur(normalise(own, x))) if pre else normalise(own, join(x, recur(x)))
    if "mlp" in block:
        own = block.get("mlp_norm")
        y = mix(mixer, block["mlp"], normalise(own, x) if pre else x)
        x = join(x, y) if pre else normalise(own, join(x, y))
    if pre:
        x = normalise(p.get("norm"), x)
    else:
        assert "norm" not in p
    return dense(p["head"], x)


CASES = [
    *(("layernorm", position, mixer, True) for position in ("pre", "post") for mixer in MIXERS),
    *(("layernorm", position, mixer, False) for position in ("pre", "post") for mixer in ("none", "mlp")),
    *((norm, position, "swiglu", True) for position in ("pre", "post") for norm in NORMS if norm != "layernorm"),
]


@pytest.mark.parametrize(("norm", "norm_position", "mixer", "residual"), CASES)
def test_a_block_equals_its_formula(norm, norm_position, mixer, residual):
    fields = {"norm": norm, "norm_position": norm_position, "mixer": mixer, "residual": residual}
    model = make_model(**fields)
    variables = initialise(model)
    logits, _ = apply(model, variables)
    expected = run_numpy(merge(variables), **fields)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=5e-6 * np.abs(expected).max())


def test_without_the_final_norm_the_head_reads_the_last_block():
    model = make_model(depth=0, norm="batchnorm", final_norm=False)
    variables = initialise(model)
    params = variables["params"]
    assert "norm" not in params and "batch_stats" not in variables
    read = np.float64(params["embed"]["embedding"])[np.asarray(TOKENS)]
    np.testing.assert_allclose(apply(model, variables)[0], dense(params["head"], read), rtol=1e-5, atol=1e-6)


def test_batchnorm_updates_its_statistics_in_training_only():
    model = make_model(depth=0, norm="batchnorm", norm_momentum=0.8)
    variables = initialise(model)
    x = np.float64(variables["params"]["embed"]["embedding"])[np.asarray(TOKENS)].reshape(-1, WIDTH)
    (trained, _), update = apply(model, variables, train=True, mutable="batch_stats")
    before, after = variables["batch_stats"]["norm"], update["batch_stats"]["norm"]
    np.testing.assert_allclose(after["mean"], 0.8 * before["mean"] + 0.2 * np.float32(x.mean(0)), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(after["var"], 0.8 * before["var"] + 0.2 * np.float32(x.var(0)), rtol=1e-5)
    p = merge(variables)
    p["norm"].update(mean=x.mean(0), var=x.var(0))
    expected = dense(p["head"], batch_norm(p["norm"], x)).reshape(trained.shape)
    np.testing.assert_allclose(trained, expected, atol=1e-5)
    (evaluated, _), untouched = apply(model, variables, train=False, mutable="batch_stats")
    jax.tree.map(np.testing.assert_array_equal, untouched["batch_stats"], variables["batch_stats"])
    assert np.abs(np.asarray(evaluated - trained)).max() > 1e-3


@pytest.mark.parametrize(
    "fields", [{"head": "last", "norm_position": "pre"}, {"head": "mean", "norm_position": "post"}], ids=str
)
def test_batchnorm_without_padding_gives_what_it_gives_unpadded(fields):
    model = make_model(norm="batchnorm", norm_padding=False, mixer="mlp", **fields)
    variables = initialise(model)
    longer = np.concatenate([TOKENS, np.ones_like(TOKENS)], axis=1)
    lengths = np.full(len(TOKENS), TOKENS.shape[1], np.int32)

    def train(model, tokens):
        (logits, _), updated = apply(model, variables, tokens, lengths=lengths, train=True, mutable="batch_stats")
        return logits, updated["batch_stats"]

    expected = train(make_model(norm="batchnorm", mixer="mlp", **fields), TOKENS)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), train(model, longer), expected)
    # by default padding counts, as in the code of S5 and LRU
    counted, _ = train(make_model(norm="batchnorm", mixer="mlp", **fields), longer)
    assert np.abs(np.asarray(counted - expected[0])).max() > 1e-3


@pytest.mark.parametrize("mixer", MIXERS)
def test_dropout_is_random_in_training_only(mixer):
    model = make_model(mixer=mixer, dropout=0.5)
    variables = initialise(model)

    def train(seed):
        return apply(model, variables, train=True, rngs={"dropout": jax.random.key(seed)})[0]

    np.testing.assert_array_equal(train(0), train(0))
    assert np.abs(np.asarray(train(0) - train(1))).max() > 1e-3
    evaluated, _ = apply(model, variables)
    np.testing.assert_array_equal(evaluated, apply(make_model(mixer=mixer), variables)[0])
    never, _ = apply(make_model(mixer=mixer, dropout=0.0), variables, train=True)
    np.testing.assert_array_equal(never, evaluated)
    assert np.abs(np.asarray(train(0) - evaluated)).max() > 1e-3


@pytest.mark.parametrize("mixer", ["none", "mlp"])
def test_dropout_drops_whole_branches_and_keeps_the_residual(mixer):
    """With everything dropped, a block is the identity: only encoder, last norm and head are left."""
    variables = initialise(make_model(mixer=mixer))
    model = make_model(mixer=mixer, dropout=1.0)
    logits, _ = apply(model, variables, train=True, rngs={"dropout": jax.random.key(0)})
    p = merge(variables)
    expected = dense(p["head"], layer_norm(p["norm"], p["embed"]["embedding"][np.asarray(TOKENS)]))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["deltanet", "lstm"])
def test_states_carried_token_by_token_equal_the_full_pass(name):
    layer_class = load_layer(name)
    fields = (("heads", 2),) if hasattr(layer_class, "heads") else ()
    model = make_model(layer_class=layer_class, layer_fields=fields, depth=2, mixer="glu")
    variables = initialise(model)
    whole, last = apply(model, variables)
    states, outputs = model.init_states(2), []
    for t in range(LENGTH):
        logits, states = apply(model, variables, TOKENS[:, t : t + 1], states=states)
        outputs.append(logits)
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), whole, rtol=1e-5, atol=1e-5)
    assert len(states) == 2
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), states, last)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_states_of_another_number_of_blocks_are_refused(count):
    model = make_model(depth=2)
    states = model.init_states(2)[:1] * count
    with pytest.raises(ValueError, match=f"states: {count} of them for 2 blocks"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((2, 3), jnp.int32), states=states))


def test_a_reset_makes_packed_documents_independent():
    model = make_model(layer_class=load_layer("deltanet"), layer_fields=(("heads", 2),), depth=2)
    variables = initialise(model)
    reset = np.tile(np.arange(LENGTH) == 2, (2, 1))
    packed, last = apply(model, variables, reset=reset)
    first, _ = apply(model, variables, TOKENS[:, :2])
    second, states = apply(model, variables, TOKENS[:, 2:])
    np.testing.assert_allclose(packed, np.concatenate([first, second], axis=1), atol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), last, states)


def test_the_scan_reaches_the_layers():
    model = make_model(depth=2)
    variables = initialise(model)
    expected, _ = apply(model, variables)
    np.testing.assert_allclose(apply(make_model(depth=2, scan="associative"), variables)[0], expected, atol=1e-5)
    with pytest.raises(ValueError, match="'chunky'"):
        make_model(scan="chunky").apply(variables, jnp.asarray(TOKENS))


@pytest.mark.parametrize(("norm", "head"), [("layernorm", "token"), ("batchnorm", "last"), ("rmsnorm", "mean")])
def test_bfloat16_keeps_parameters_states_and_logits_in_float32(norm, head):
    fields = {"depth": 2, "norm": norm, "mixer": "glu", "head": head}
    model = make_model(**fields, dtype=jnp.bfloat16)
    variables = initialise(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    (logits, states), update = apply(model, variables, mutable="batch_stats", train=True)
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, states, update))} == {jnp.dtype("float32")}
    (expected, _), _ = apply(make_model(**fields), variables, mutable="batch_stats", train=True)
    error = np.abs(np.asarray(logits - expected)).max() / np.abs(np.asarray(expected)).max()
    assert 1e-6 < error < 0.03


@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_branches_in_bfloat16_are_added_up_in_float32(norm_position):
    model = make_model(depth=2, mixer="mlp", norm_position=norm_position, dtype=jnp.bfloat16)
    _, seen = model.apply(
        initialise(model), jnp.asarray(TOKENS), capture_intermediates=lambda module, _: isinstance(module, (Block, Diagonal))
    )
    for block in ("block_0", "block_1"):
        ((stream, _),) = seen["intermediates"][block]["__call__"]
        ((branch, _),) = seen["intermediates"][block]["layer"]["__call__"]
        assert stream.dtype == jnp.float32 and branch.dtype == jnp.bfloat16
    assert np.any(stream != stream.astype(jnp.bfloat16).astype(jnp.float32))


def test_an_embedding_in_bfloat16_gets_the_gradient_of_every_token():
    """A sum of equal terms that is kept in bfloat16 stops growing at 256 of them."""
    model = make_model(dtype=jnp.bfloat16)
    params = initialise(model)["params"]

    def gradient(rows):
        tokens = jnp.ones((rows, 1), jnp.int32)
        pull = jax.grad(lambda params: jnp.sum(model.apply({"params": params}, tokens)[0][..., 0]))
        return np.asarray(jax.jit(pull)(params)["embed"]["embedding"][1])

    np.testing.assert_allclose(gradient(4096), 4096 * gradient(1), rtol=0.01)


@pytest.mark.parametrize(
    "fields",
    [
        *({"mixer": mixer} for mixer in MIXERS),
        *({"norm": norm, "mixer": "mlp"} for norm in NORMS),
        *({"head": head, "max_length": LENGTH, "positions": "learned"} for head in HEADS),
    ],
)
def test_every_parameter_outside_the_layers_is_in_exactly_one_group(fields):
    model = make_model(**fields)
    inputs = np.stack([TOKENS, TOKENS], axis=1) if model.head == "pair" else TOKENS
    paths = traverse_util.flatten_dict(jax.eval_shape(model.init, jax.random.key(0), inputs)["params"], sep="/")
    outside = [path for path in paths if "/layer/" not in path]
    assert len(outside) < len(paths)
    for path in outside:
        assert sum(bool(re.search(pattern, path)) for pattern in Backbone.PARAM_GROUPS) == 1, path


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm", "batchnorm"])
def test_the_norm_has_the_epsilon_and_the_offsets_of_its_fields(norm):
    model = make_model(depth=0, norm=norm, norm_eps=0.3, norm_bias=False)
    variables = initialise(model)
    p = merge(variables)
    assert "bias" not in p["norm"]
    x = NUMPY_NORMS[norm](p["norm"], p["embed"]["embedding"][TOKENS], 0.3)
    np.testing.assert_allclose(apply(model, variables)[0], dense(p["head"], x), rtol=1e-5, atol=1e-5)


def test_released_initial_values_are_normal_with_deviation_0_02_outside_the_layers():
    fields = {"vocab_size": 500, "outputs": 70, "width": 64, "mixer_hidden": 60, "mixer": "mlp"}
    default, released = (
        jax.jit(make_model(**fields, initial_values=values).init)(jax.random.key(0), TOKENS)["params"]
        for values in ("default", "released")
    )
    jax.tree.map(np.testing.assert_array_equal, default["block_0"].pop("layer"), released["block_0"].pop("layer"))
    for path, values in traverse_util.flatten_dict(released, sep="/").items():
        if path.endswith(("kernel", "embedding")):
            np.testing.assert_allclose(np.std(values), 0.02, rtol=0.05, err_msg=path)
        elif path.endswith("bias"):
            assert not np.any(values)


def test_a_head_without_bias_is_a_product():
    model = make_model(depth=0, head_bias=False)
    variables = initialise(model)
    assert set(variables["params"]["head"]) == {"kernel"}


@pytest.mark.parametrize(("fields", "message"), [
    ({"head": "lats"}, "head='lats' is not one of token, last, .*; did you mean 'last'"),
    ({"mixer": "half_glu"}, "mixer='half_glu' is not one of"),
    ({"norm_position": "prior"}, "norm_position='prior'"),
    ({"initial_values": "release"}, "initial_values='release'.*'released'"),
    ({"positions": "learnt", "max_length": 3}, "positions='learnt'.*'learned'"),
    ({"positions": "learned"}, "positions='learned' needs max_length of at least 1"),
    ({"head": "autoencoder"}, "head='autoencoder' needs max_length of at least 1"),
    ({"mixer": "geglu", "mixer_hidden": 0}, "mixer='geglu' needs mixer_hidden of at least 1"),
])  # fmt: skip
def test_fields_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        make_model(**fields)


@pytest.mark.parametrize(("fields", "shape", "message"), [
    ({}, (2, 3, 4), r"shape \(2, 3, 4\) is not \[B T\], as for the head 'token'"),
    ({"vocab_size": 0}, (2, 3, 4, 5), r"is not \[B T F\]"),
    ({"head": "pair"}, (2, 3), r"is not \[B 2 T\]"),
    ({"head": "pair"}, (2, 3, 4), r"is not \[B 2 T\]"),
    ({"max_length": 3}, (2, 4), "4 positions are more than max_length=3"),
])  # fmt: skip
def test_inputs_that_do_not_fit_are_refused(fields, shape, message):
    model = make_model(**fields)
    inputs = jax.ShapeDtypeStruct(shape, jnp.int32 if model.vocab_size else jnp.float32)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), inputs)


class BothWays(Diagonal):
    """Stands for a layer that reads from both ends."""

    CAUSAL = False


@pytest.mark.parametrize("fields", [
    {"head": "token", "layer_class": BothWays},
    {"head": "last", "layer_class": BothWays},
    {"head": "mean"},
    {"head": "autoencoder", "max_length": 9},
])  # fmt: skip
def test_what_reads_whole_sequences_cannot_go_on_from_a_state(fields):
    model = make_model(**fields)
    assert not model.causal
    logits, _ = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], TOKENS)
    assert logits.shape[-1] == OUTPUTS
    with pytest.raises(ValueError, match="reads whole sequences; it cannot go on from states"):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x, states=make_model().init_states(2)), TOKENS)
    assert make_model(head="last").causal


class Backwards(Diagonal):
    """Sums up from the right, where a row's padding is."""

    CAUSAL = False

    def recur(self, x, state, reset, scan):
        return jnp.cumsum(x[:, ::-1], axis=1)[:, ::-1], state

    def parameter_count(self):
        return 0


@pytest.mark.parametrize("scan_blocks", [False, True])
def test_a_layer_that_is_not_causal_does_not_read_padding(scan_blocks):
    model = make_model(layer_class=Backwards, head="mean", scan_blocks=scan_blocks)
    variables = initialise(model)
    lengths = np.int32([LENGTH - 2, LENGTH])
    other = np.array(TOKENS)
    other[0, -2:] = (other[0, -2:] + 1) % model.vocab_size
    logits, _ = apply(model, variables, TOKENS, lengths=lengths)
    changed, _ = apply(model, variables, other, lengths=lengths)
    np.testing.assert_array_equal(logits, changed)
    short, _ = apply(model, variables, np.array(TOKENS)[:, :-2])
    np.testing.assert_allclose(logits[0], short[0], atol=1e-6)
    whole, _ = apply(model, variables, TOKENS)
    assert np.abs(whole[0] - logits[0]).max() > 1e-3


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm='layer' is not one of layernorm, rmsnorm, batchnorm, none; did you mean"):
        Norm("layer")
