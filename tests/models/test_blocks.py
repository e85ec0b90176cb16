"""Ways to run the blocks that change no number: kept activations, one compiled body, values as arguments."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from small_models import LENGTH, TOKENS, apply, initialise, make_model

from lrnn_jax.analysis.spectra import measure_spectra
from lrnn_jax.layers.deltanet import DeltaNet
from lrnn_jax.layers.diagonal import Diagonal
from lrnn_jax.models.backbone import unroll_blocks

DEPTH = 3
FIELDS = {"layer_class": DeltaNet, "layer_fields": (("heads", 2),), "depth": DEPTH, "mixer": "swiglu", "norm": "batchnorm"}
RESET = np.random.default_rng(2).random((2, LENGTH)) < 0.2


def assert_near(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(np.abs(expected).max(), 1e-3))


def learn(model, variables):
    """Outputs, states, statistics and gradients of a training pass from given states."""
    states = jax.tree.map(lambda part: np.full(part.shape, 0.1, np.float32), model.init_states(2))

    def lose(params, tokens, reset):
        (logits, after), updated = model.apply(
            {**variables, "params": params}, tokens, states=states, reset=reset, train=True, mutable="batch_stats"
        )
        return jnp.sum(jnp.sin(logits)), (logits, after, updated)

    grads, rest = jax.jit(jax.grad(lose, has_aux=True))(variables["params"], TOKENS, RESET)
    return {"params": grads, **rest[2]}, rest[:2]


def stack_blocks(variables):
    """The same variables as a model with ``scan_blocks`` has them."""
    return {
        collection: {
            **{name: part for name, part in tree.items() if not name.startswith("block_")},
            "blocks": jax.tree.map(lambda *parts: np.stack(parts), *(tree[f"block_{i}"] for i in range(DEPTH))),
        }
        for collection, tree in variables.items()
    }


@pytest.mark.parametrize(("remat", "scan_blocks"), [(True, False), (False, True), (True, True)])
def test_remat_and_a_scan_over_blocks_change_no_number(remat, scan_blocks):
    plain, model = make_model(**FIELDS), make_model(**FIELDS, remat=remat, scan_blocks=scan_blocks)
    variables = initialise(plain)
    own = stack_blocks(variables) if scan_blocks else variables
    shapes = jax.eval_shape(model.init, jax.random.key(0), TOKENS)
    jax.tree.map(lambda leaf, shape: np.testing.assert_equal(leaf.shape, shape.shape), own, dict(shapes))
    expected, found = learned(), learn(model, own)
    jax.tree.map(assert_near, found[1], expected[1])
    jax.tree.map(assert_near, found[0], stack_blocks(expected[0]) if scan_blocks else expected[0])


@functools.cache
def learned():
    model = make_model(**FIELDS)
    return learn(model, initialise(model))


@pytest.mark.parametrize("fields", [{"remat": True}, {"scan_blocks": True}])
def test_initial_values_and_dropout_are_of_every_block_its_own(fields):
    model = make_model(depth=DEPTH, mixer="glu", dropout=0.5, **fields)
    variables = jax.jit(model.init)(jax.random.key(0), TOKENS)
    plain, single = unroll_blocks(model, variables)
    assert (plain.remat, plain.scan_blocks) == (False, False)
    kernels = [np.asarray(single["params"][f"block_{i}"]["layer"]["input"]["kernel"]) for i in range(DEPTH)]
    assert not np.allclose(kernels[0], kernels[1]) and not np.allclose(kernels[1], kernels[2])
    if "remat" in fields:
        expected = jax.jit(plain.init)(jax.random.key(0), TOKENS)
        jax.tree.map(np.testing.assert_array_equal, single, dict(expected))
    np.testing.assert_allclose(apply(model, variables)[0], apply(plain, single)[0], rtol=1e-5, atol=1e-6)

    def train(seed):
        return apply(model, variables, train=True, rngs={"dropout": jax.random.key(seed)})[0]

    np.testing.assert_array_equal(train(0), train(0))
    assert np.abs(train(0) - train(1)).max() > 1e-3


@pytest.mark.parametrize("fields", [{}, {"remat": True}, {"scan_blocks": True}])
def test_values_of_the_layer_may_be_arguments_of_a_program(fields):
    """Initialising, applying and differentiating by them: one program serves many values."""
    model, other = make_model(depth=2, layer_fields=(), **fields), make_model(depth=2, layer_fields=(("gain", 2.0),), **fields)

    def answer(gain, tokens):
        variables = model.init(jax.random.key(0), tokens, layer_values={"gain": gain})
        return jnp.sum(jnp.sin(model.apply(variables, tokens, layer_values={"gain": gain})[0]))

    def expect(tokens):
        return jnp.sum(jnp.sin(other.init_with_output(jax.random.key(0), tokens)[0][0]))

    run = jax.jit(jax.value_and_grad(answer))
    value, slope = run(np.float32(2.0), TOKENS)
    np.testing.assert_allclose(value, jax.jit(expect)(TOKENS), rtol=1e-5)
    (above, _), (below, _) = (run(np.float32(2.0 + step), TOKENS) for step in (0.02, -0.02))
    np.testing.assert_allclose(slope, (above - below) / 0.04, rtol=0.02, atol=1e-3)


class Indexed(Diagonal):
    """Starts from another value in every block."""

    indexed = True

    def setup(self):
        super().setup()
        self.which = self.param("which", lambda key: jnp.asarray(float(self.index)))

    def parameter_count(self):
        return super().parameter_count() + 1


def test_a_layer_knows_which_block_it_is_in():
    model = make_model(depth=DEPTH, layer_class=Indexed)
    params = jax.jit(model.init)(jax.random.key(0), TOKENS)["params"]
    found = {path: float(leaf) for path, leaf in traverse_util.flatten_dict(params, sep="/").items() if "which" in path}
    assert found == {f"block_{i}/layer/which": i for i in range(DEPTH)}
    assert model.make_layer(2).index == 2
    with pytest.raises(ValueError, match=r"scan_blocks=True needs blocks that start alike.*Indexed"):
        make_model(layer_class=Indexed, scan_blocks=True)


@pytest.mark.parametrize("fields", [{"remat": True}, {"scan_blocks": True}])
def test_spectra_are_measured_however_the_blocks_run(fields):
    """They are read by looking into the layers from outside, where neither may stand in between."""
    plain, model = make_model(depth=DEPTH), make_model(depth=DEPTH, **fields)
    variables = initialise(plain)
    expected = measure_spectra(plain, variables, TOKENS)
    found = measure_spectra(model, stack_blocks(variables) if model.scan_blocks else variables, TOKENS)
    assert len(found) == DEPTH
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
