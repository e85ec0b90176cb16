"""The backbone: encoder, blocks and heads, against hand-made cases and NumPy."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from lrnn_jax.layers.diagonal import Diagonal
from lrnn_jax.models.backbone import HEADS, Backbone, Block
from lrnn_jax.models.mixer import MIXERS
from lrnn_jax.parts.norm import NORMS, make_norm
from lrnn_jax.registry import LAYERS, load_layer

compile_quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
WIDTH, VOCAB, OUTPUTS, LENGTH = 4, 5, 3, 6
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, VOCAB, (2, LENGTH)), jnp.int32)


def make_model(**fields):
    defaults = {
        "layer_class": Diagonal,
        "layer_fields": (("gain", 2.0),),
        "vocab_size": VOCAB,
        "outputs": OUTPUTS,
        "width": WIDTH,
        "depth": 1,
        "mixer_hidden": 7,
    }
    return Backbone(**{**defaults, **fields})


def initialise(model, inputs=TOKENS):
    """Random variables without a compiled `init`: matrices of unit gain, gains and variances near one, offsets near zero."""
    rng = np.random.default_rng(1)

    def draw(path, p):
        kind = path[-1].key
        deviation = max(1, np.prod(p.shape[:-1])) ** -0.5 if kind.endswith("kernel") else 0.5
        around = 1.0 if kind in ("scale", "var") else 0.0
        return jnp.asarray(around + deviation * rng.uniform(-1.7, 1.7, p.shape), p.dtype)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0), inputs))


@functools.cache
def program(model, **flags):
    return compile_quickly(functools.partial(model.apply, **flags))


def apply(model, variables, inputs=TOKENS, **kw):
    """Runs the compiled model; arrays may change from call to call, flags are part of the program."""
    arrays = {name: kw.pop(name) for name in ("lengths", "states", "reset", "rngs") if name in kw}
    return program(model, **kw)(variables, inputs, **arrays)


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
    tokens = jnp.array([[0, 1, 2], [2, 2, 0]])
    lengths = None if lengths is None else jnp.array(lengths)
    logits, states = apply(model, {"params": HAND_MADE}, tokens, lengths=lengths)
    np.testing.assert_allclose(logits, expected, rtol=1e-6)
    assert states == ()


@pytest.mark.parametrize("head", ["last", "mean"])
def test_padding_beyond_the_lengths_does_not_matter(head):
    model = make_model(depth=2, head=head)
    variables, lengths = initialise(model), jnp.array([2, 5])
    logits, _ = apply(model, variables, lengths=lengths)
    padded = jnp.arange(LENGTH)[None] >= lengths[:, None]
    other, _ = apply(model, variables, jnp.where(padded, (TOKENS + 1) % VOCAB, TOKENS), lengths=lengths)
    np.testing.assert_array_equal(logits, other)
    for row, length in enumerate([2, 5]):
        alone, _ = apply(model, variables, TOKENS[row : row + 1, :length])
        np.testing.assert_allclose(logits[row : row + 1], alone, rtol=1e-5)
    inside, _ = apply(model, variables, TOKENS.at[:, 1].add(1) % VOCAB, lengths=lengths)
    assert np.all(np.abs(np.asarray(inside - logits)).max(axis=1) > 1e-4)


def dense(p, x):
    return x @ p["kernel"] + p.get("bias", 0.0)


def layer_norm(p, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]


def rms_norm(p, x):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p["scale"]


def batch_norm(p, x):
    return (x - p["mean"]) / np.sqrt(p["var"] + 1e-5) * p["scale"] + p["bias"]


NUMPY_NORMS = {"layernorm": layer_norm, "rmsnorm": rms_norm, "batchnorm": batch_norm, "none": lambda p, x: x}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    """The tanh approximation, flax's default."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def mix(kind, p, x):
    if kind == "glu":
        u = gelu(x)
        return dense(p["value"], u) * sigmoid(dense(p["gate"], u))
    up = dense(p["up"], x)
    if kind == "mlp":
        return dense(p["down"], gelu(up))
    if kind == "geglu":
        return dense(p["down"], up * (1 + np.vectorize(math.erf)(up / np.sqrt(2))) / 2 * dense(p["gate"], x))
    return dense(p["down"], up * sigmoid(up) * dense(p["gate"], x))


@functools.cache
def compile_layer():
    return compile_quickly(lambda params, x: Diagonal(WIDTH, gain=2.0).apply({"params": params}, x)[0])


def run_numpy(p, *, norm, norm_position, mixer, residual):
    """One block around the diagonal layer, which the tests of `layers` check on its own."""

    def normalise(p, x):
        return NUMPY_NORMS[norm](p, x)

    def join(x, y):
        return x + y if residual else y

    def recur(x):
        y = np.float64(compile_layer()(jax.tree.map(np.float32, block["layer"]), np.float32(x)))
        return mix("glu", block["glu"], y) if mixer == "glu" else y

    block, pre = p["block_0"], norm_position == "pre"
    x = p["embed"]["embedding"][np.asarray(TOKENS)]
    own = block.get("norm")
    x = join(x, recur(normalise(own, x))) if pre else normalise(own, join(x, recur(x)))
    if mixer not in ("none", "glu"):
        own = block.get("mlp_norm")
        y = mix(mixer, block["mlp"], normalise(own, x) if pre else x)
        x = join(x, y) if pre else normalise(own, join(x, y))
    if pre:
        x = normalise(p.get("norm"), x)
    else:
        assert "norm" not in p
    return dense(p["head"], x)


def merge(variables):
    """Joins BatchNorm's running statistics to its parameters, in float64."""
    flat = {}
    for collection in variables.values():
        flat.update(traverse_util.flatten_dict(jax.tree.map(np.float64, collection)))
    return traverse_util.unflatten_dict(flat)


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


def test_batchnorm_updates_its_statistics_in_training_only():
    model = make_model(depth=0, norm="batchnorm")
    variables = initialise(model)
    x = np.float64(variables["params"]["embed"]["embedding"])[np.asarray(TOKENS)].reshape(-1, WIDTH)
    (trained, _), update = apply(model, variables, train=True, mutable="batch_stats")
    before, after = variables["batch_stats"]["norm"], update["batch_stats"]["norm"]
    np.testing.assert_allclose(after["mean"], 0.95 * before["mean"] + 0.05 * np.float32(x.mean(0)), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(after["var"], 0.95 * before["var"] + 0.05 * np.float32(x.var(0)), rtol=1e-5)
    p = merge(variables)
    p["norm"].update(mean=x.mean(0), var=x.var(0))
    expected = dense(p["head"], batch_norm(p["norm"], x)).reshape(trained.shape)
    np.testing.assert_allclose(trained, expected, atol=1e-5)
    (evaluated, _), untouched = apply(model, variables, train=False, mutable="batch_stats")
    jax.tree.map(np.testing.assert_array_equal, untouched["batch_stats"], variables["batch_stats"])
    assert np.abs(np.asarray(evaluated - trained)).max() > 1e-3


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


def test_features_pass_a_linear_encoder():
    model = make_model(vocab_size=0, depth=0, norm="none")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, LENGTH, 7)), jnp.float32)
    variables = initialise(model, x)
    p = merge(variables)
    assert set(p) == {"encode", "head"}
    np.testing.assert_allclose(apply(model, variables, x)[0], dense(p["head"], dense(p["encode"], np.float64(x))), atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
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
    reset = jnp.zeros((2, LENGTH), bool).at[:, 2].set(True)
    packed, last = apply(model, variables, reset=reset)
    first, _ = apply(model, variables, TOKENS[:, :2])
    second, states = apply(model, variables, TOKENS[:, 2:])
    np.testing.assert_allclose(packed, np.concatenate([first, second], axis=1), atol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), last, states)


def test_the_method_reaches_the_layers():
    model = make_model(depth=2)
    variables = initialise(model)
    expected, _ = apply(model, variables)
    np.testing.assert_allclose(apply(make_model(depth=2, method="associative"), variables)[0], expected, atol=1e-5)
    with pytest.raises(ValueError, match="'chunky'"):
        make_model(method="chunky").apply(variables, TOKENS)


@pytest.mark.parametrize(("norm", "head"), list(zip(["layernorm", "batchnorm", "rmsnorm"], HEADS, strict=True)))
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
        initialise(model), TOKENS, capture_intermediates=lambda module, _: isinstance(module, (Block, Diagonal))
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
        return np.asarray(compile_quickly(pull)(params)["embed"]["embedding"][1])

    np.testing.assert_allclose(gradient(4096), 4096 * gradient(1), rtol=0.01)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("mixer", MIXERS)
def test_every_parameter_outside_the_layers_is_in_exactly_one_group(mixer, norm):
    model = make_model(mixer=mixer, norm=norm)
    paths = traverse_util.flatten_dict(jax.eval_shape(model.init, jax.random.key(0), TOKENS)["params"], sep="/")
    outside = [path for path in paths if "/layer/" not in path]
    assert len(outside) < len(paths)
    for path in outside:
        assert sum(bool(re.search(pattern, path)) for pattern in Backbone.PARAM_GROUPS) == 1, path


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="'layer' is not one of layernorm, rmsnorm, batchnorm, none"):
        make_norm("layer", train=False, dtype=jnp.float32)
