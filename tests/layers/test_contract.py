"""What every layer of the registry must do. A new layer is tested here without an edit."""

import functools
import inspect
import itertools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from lrnn_jax.config.fields import own_fields
from lrnn_jax.registry import LAYERS, load_layer

WIDTH, BATCH = 8, 2
LENGTHS = (1, 2, 63, 128, 257)
# Fields that make a layer small; a layer that is missing here runs with its defaults. N must differ from other sizes, so
# that a diagonal transition is never mistaken for a square matrix.
SMALL = {
    "deltanet": {"heads": 2},
    "deltaproduct": {"heads": 2},
    "full_matrix": {"size": 3},
    "gated_deltanet": {"heads": 2},
    "gla": {"heads": 2, "key_size": 3, "gate_rank": 2},
    "lru": {"state_size": 6},
    "mamba": {"state_size": 4},
    "mamba2": {"heads": 2, "state_size": 4},
    "mlstm": {"heads": 2, "expand": 1},
    "rwkv7": {"heads": 2},
    "slstm": {"heads": 2},
    "transformer": {"heads": 2, "window": 12},
}
# Fields with which a layer's transitions have real eigenvalues: a product of two reflections is a rotation.
REAL = {"deltaproduct": {"householders": 1}}
# Error allowed, relative to the largest entry of the array that is compared.
TOLERANCE = 1e-5
compile_quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

EVERY_METHOD = [(name, method) for name in LAYERS for method in load_layer(name).METHODS]
PARALLEL = [(name, method) for name, method in EVERY_METHOD if method != "sequential"]


def flag_choices(name):
    """Every combination of the layer's boolean fields."""
    flags = [field for field, default in own_fields(load_layer(name)).items() if isinstance(default, bool)]
    return [dict(zip(flags, values, strict=True)) for values in itertools.product([False, True], repeat=len(flags))]


VARIANTS = [(name, flags) for name in LAYERS for flags in flag_choices(name)]


def make_layer(name, dtype=jnp.float32, **fields):
    return load_layer(name)(width=WIDTH, dtype=dtype, **{**SMALL.get(name, {}), **fields})


def make_input(length, batch=BATCH, seed=0, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, length, WIDTH)), dtype)


def add_noise(tree, seed, scale):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + jnp.asarray(scale * rng.normal(size=x.shape), x.dtype), tree)


def initialise(layer, seed=0):
    """Returns variables moved off their initial values, so that no parameter is zero or the same everywhere."""
    variables = compile_quickly(layer.init)(jax.random.key(seed), make_input(2))
    return add_noise(variables, seed + 1, 0.2)


@functools.cache
def prepare(name):
    layer = make_layer(name)
    return layer, initialise(layer), add_noise(layer.init_state(BATCH), 2, 0.5)


def call(layer, method, variables, x, state, reset=None):
    run = nn.apply(lambda m, x, state, reset: m(x, state=state, reset=reset, scan=method), layer)
    return run(variables, x, state, reset)


@functools.cache
def forward(name, method="sequential"):
    return compile_quickly(functools.partial(call, make_layer(name), method))


def pull_back(run, *args):
    """Returns the outputs of ``run`` and the gradients of their sum with fixed random-looking weights."""
    outputs, vjp = jax.vjp(run, *args)
    return outputs, vjp(jax.tree.map(lambda y: jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape), outputs))


@functools.cache
def backward(name, method):
    """Outputs and gradients of parameters, input and initial state, in one program."""

    @compile_quickly
    def run(variables, x, state, reset):
        return pull_back(lambda *args: call(make_layer(name), method, *args, reset), variables, x, state)

    return run


def assert_near(actual, expected, tolerance=TOLERANCE):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, y), x in zip(jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(actual), strict=True):
        y = np.asarray(y, np.float64)
        assert x.shape == y.shape
        atol = tolerance * max(np.abs(y).max(initial=0), 1e-6)
        np.testing.assert_allclose(np.asarray(x, np.float64), y, rtol=0, atol=atol, err_msg=jax.tree_util.keystr(path))


@functools.cache
def decode(name):
    """Returns the outputs and the states after every token, one call per token."""
    _, variables, state = prepare(name)
    x, step, outputs, states = make_input(max(LENGTHS)), forward(name), [], []
    for t in range(x.shape[1]):
        y, state = step(variables, x[:, t : t + 1], state, None)
        outputs.append(np.asarray(y))
        states.append(jax.tree.map(np.asarray, state))
    return np.concatenate(outputs, axis=1), states


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("name", "method"), EVERY_METHOD)
def test_all_at_once_equals_token_by_token(name, method, length):
    _, variables, state = prepare(name)
    y, last = forward(name, method)(variables, make_input(max(LENGTHS))[:, :length], state, None)
    outputs, states = decode(name)
    assert_near((y, last), (outputs[:, :length], states[length - 1]))


@pytest.mark.parametrize("length", [2, 63])
@pytest.mark.parametrize(("name", "method"), PARALLEL)
def test_methods_agree_in_outputs_states_and_all_gradients(name, method, length):
    _, variables, state = prepare(name)
    args = variables, make_input(length), state, jnp.zeros((BATCH, length), bool)
    assert_near(backward(name, method)(*args), backward(name, "sequential")(*args))


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_through_token_by_token_decoding_equal_those_of_one_call(name):
    layer, variables, state = prepare(name)
    x = make_input(4)

    def decode(variables, x, state):
        outputs = []
        for t in range(x.shape[1]):
            y, state = call(layer, "sequential", variables, x[:, t : t + 1], state)
            outputs.append(y)
        return jnp.concatenate(outputs, axis=1), state

    expected = compile_quickly(functools.partial(pull_back, decode))(variables, x, state)
    assert_near(backward(name, "sequential")(variables, x, state, jnp.zeros((BATCH, 4), bool)), expected)


@pytest.mark.parametrize(("name", "method"), EVERY_METHOD)
def test_cut_anywhere_and_carry_the_state(name, method):
    _, variables, start = prepare(name)
    x, run = make_input(7), forward(name, method)
    whole = run(variables, x, start, None)
    for cut in range(1, 7):
        first, state = run(variables, x[:, :cut], start, None)
        second, state = run(variables, x[:, cut:], state, None)
        assert_near((jnp.concatenate([first, second], axis=1), state), whole)


@pytest.mark.parametrize(("name", "method"), EVERY_METHOD)
def test_no_state_means_the_initial_state(name, method):
    layer, variables, _ = prepare(name)
    x, run = make_input(7), forward(name, method)
    assert_near(run(variables, x, None, None), run(variables, x, layer.init_state(BATCH), None), 1e-6)


@pytest.mark.parametrize(("name", "method"), EVERY_METHOD)
def test_outputs_depend_on_the_past_of_their_own_row_only(name, method):
    layer, variables, state = prepare(name)
    jacobian = compile_quickly(jax.jacrev(lambda x: call(layer, method, variables, x, state)[0]))(make_input(6))
    reach = np.abs(jacobian).max(axis=(2, 5)).transpose(0, 2, 1, 3)  # [row of y, row of x, t, s]
    past = np.tril(np.ones((6, 6), bool))
    for row, other in itertools.product(range(BATCH), repeat=2):
        allowed = past if row == other else np.zeros_like(past)
        np.testing.assert_array_equal(reach[row, other] > 0, allowed)


@functools.cache
def run_separately(name):
    """Every sequence of two packed rows in a call of its own. Returns the reset flags, and (outputs, gradients).

    The first row forgets its carried state at position 0, the second keeps it until position 2.
    """
    layer, variables, state = prepare(name)
    length, starts = 6, ((0, 3), (2, 5))
    reset = np.zeros((BATCH, length), bool)
    for row, positions in enumerate(starts):
        reset[row, list(positions)] = True

    def separate(variables, x, state):
        outputs, lasts = [], []
        for row, positions in enumerate(starts):
            pieces, carried = [], jax.tree.map(lambda s, row=row: s[row : row + 1], state)
            for first, stop in itertools.pairwise(sorted({0, *positions, length})):
                carried = layer.init_state(1) if reset[row, first] else carried
                y, carried = call(layer, "sequential", variables, x[row : row + 1, first:stop], carried)
                pieces.append(y)
            outputs.append(jnp.concatenate(pieces, axis=1))
            lasts.append(carried)
        return jnp.concatenate(outputs), jax.tree.map(lambda *s: jnp.concatenate(s), *lasts)

    return reset, compile_quickly(functools.partial(pull_back, separate))(variables, make_input(length), state)


@pytest.mark.parametrize(("name", "method"), EVERY_METHOD)
def test_reset_equals_separate_sequences_in_outputs_states_and_all_gradients(name, method):
    _, variables, state = prepare(name)
    reset, expected = run_separately(name)
    assert_near(backward(name, method)(variables, make_input(reset.shape[1]), state, jnp.asarray(reset)), expected)


@pytest.mark.parametrize("name", LAYERS)
def test_reset_at_every_position_and_nowhere(name):
    _, variables, state = prepare(name)
    x, run = make_input(7), forward(name)
    y, last = run(variables, x, state, jnp.ones((BATCH, 7), bool))
    alone, states = run(variables, x.reshape(BATCH * 7, 1, WIDTH), None, None)
    assert_near(y, alone.reshape(y.shape))
    assert_near(last, jax.tree.map(lambda s: s.reshape(BATCH, 7, *s.shape[1:])[:, -1], states))
    assert_near(run(variables, x, state, jnp.zeros((BATCH, 7), bool)), run(variables, x, state, None), 1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_long_bfloat16_sequences_stay_finite_and_near_float32(name):
    low, exact = make_layer(name, jnp.bfloat16), make_layer(name)
    variables = compile_quickly(exact.init)(jax.random.key(0), make_input(2))
    x = make_input(16384, batch=1)

    @jax.jit
    def run(variables, x):
        def loss(variables, x):
            y, state = call(low, "auto", variables, x, None)
            return jnp.mean(y.astype(jnp.float32) ** 2), (y, state)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(variables, x)

    (_, (y, state)), gradients = run(variables, x.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in jax.tree.leaves((y, state, gradients)))
    assert all(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(gradients))
    expected = np.asarray(jax.jit(lambda x: call(exact, "auto", variables, x, None)[0])(x))
    error = np.asarray(y, np.float64) - expected
    assert np.sqrt(np.mean(error**2)) < 0.05 * np.sqrt(np.mean(expected**2))


@pytest.mark.parametrize("name", LAYERS)
def test_bfloat16_layers_carry_states_without_rounding_them(name):
    _, variables, start = prepare(name)
    run = compile_quickly(functools.partial(call, make_layer(name, jnp.bfloat16), "sequential"))
    x = make_input(7, dtype=jnp.bfloat16)
    _, whole = run(variables, x, start, None)
    _, state = run(variables, x[:, :3], start, None)
    assert_near(run(variables, x[:, 3:], state, None)[1], whole, 1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "method"), EVERY_METHOD)
def test_state_is_float32_and_as_large_for_any_length(name, method, dtype):
    layer = make_layer(name, dtype)
    start = layer.init_state(BATCH)
    assert all(leaf.dtype == jnp.float32 and leaf.shape[0] == BATCH for leaf in jax.tree.leaves(start))
    variables = jax.eval_shape(layer.init, jax.random.key(0), make_input(2))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    for length in (1, 2, 300):
        x = jax.ShapeDtypeStruct((BATCH, length, WIDTH), dtype)
        y, state = jax.eval_shape(functools.partial(call, layer, method), variables, x, None)
        assert (y.shape, y.dtype) == (x.shape, dtype)
        assert jax.tree.map(lambda s: (s.shape, s.dtype), state) == jax.tree.map(lambda s: (s.shape, s.dtype), start)


@pytest.mark.parametrize("width", [8, 24])
@pytest.mark.parametrize("small", [False, True], ids=["default", "small"])
@pytest.mark.parametrize(("name", "flags"), VARIANTS)
def test_parameter_count_is_the_closed_formula(name, flags, small, width):
    layer = load_layer(name)(width=width, **flags, **(SMALL.get(name, {}) if small else {}))
    variables = jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros((1, 2, width)))
    assert layer.parameter_count() == sum(leaf.size for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize("width", [8, 24])
@pytest.mark.parametrize("small", [False, True], ids=["default", "small"])
@pytest.mark.parametrize(("name", "flags"), VARIANTS)
def test_state_count_is_the_closed_formula(name, flags, small, width):
    layer = load_layer(name)(width=width, **flags, **(SMALL.get(name, {}) if small else {}))
    state = jax.eval_shape(lambda: layer.init_state(3))
    assert 3 * layer.state_count() == sum(leaf.size for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("name", LAYERS)
def test_vmapped_seeds_equal_separate_seeds(name):
    layer, x = make_layer(name), make_input(7)

    def train(key):
        variables = layer.init(key, x)
        return variables, pull_back(lambda *args: call(layer, "auto", *args, None), variables, x)

    keys = jax.random.split(jax.random.key(3), 3)
    together, alone = compile_quickly(jax.vmap(train))(keys), compile_quickly(train)
    for i in range(3):
        assert_near(jax.tree.map(lambda leaf, i=i: leaf[i], together), alone(keys[i]), 3e-6)
    assert any(np.ptp(np.asarray(leaf), axis=0).max() > 0 for leaf in jax.tree.leaves(together[0]))


@pytest.mark.parametrize(("name", "flags"), VARIANTS)
def test_every_parameter_is_in_exactly_one_group_and_every_group_is_used(name, flags):
    layer = make_layer(name, **flags)
    variables = jax.eval_shape(layer.init, jax.random.key(0), make_input(2))
    paths = list(traverse_util.flatten_dict(variables["params"], sep="/"))
    matches = {path: [pattern for pattern in layer.PARAM_GROUPS if re.search(pattern, path)] for path in paths}
    assert all(len(found) == 1 for found in matches.values()), matches
    assert {pattern for found in matches.values() for pattern in found} == set(layer.PARAM_GROUPS)
    for multipliers in layer.PARAM_GROUPS.values():
        assert set(multipliers) == {"lr", "wd"}
        assert all(isinstance(value, float) and value >= 0 for value in multipliers.values())


def eigenvalues(layer, a):
    """A transition is given as square matrices on its last two axes, or as its eigenvalues."""
    return a if layer.DIAGONAL else np.linalg.eigvals(a)


def transition(layer, variables, x):
    return np.asarray(compile_quickly(functools.partial(layer.apply, method="transition"))(variables, x))


@pytest.mark.parametrize("name", LAYERS)
def test_transition_is_finite_and_does_not_expand(name):
    layer, variables, _ = prepare(name)
    a = transition(layer, variables, make_input(20))
    assert np.isfinite(a).all()
    # a layer that is exempt must need it
    assert (np.abs(eigenvalues(layer, a)).max() > 1 + 1e-6) == layer.MAY_EXPAND


@pytest.mark.parametrize("negative", [False, True], ids=["positive", "negative"])
@pytest.mark.parametrize("name", [name for name in LAYERS if "negative_eigenvalues" in own_fields(load_layer(name))])
def test_eigenvalues_lie_in_the_range_that_the_layer_promises(name, negative):
    chosen = load_layer(name).VARIANTS["negative" if negative else "positive"]
    layer = make_layer(name, **chosen, **REAL.get(name, {}))
    scales = np.repeat(np.float32([1e-2, 0.1, 1, 10, 100, 1000]), 8)  # from tiny to saturating inputs
    x = make_input(48) * scales[None, :, None]
    values = eigenvalues(layer, transition(layer, initialise(layer), x))
    assert np.abs(values.imag).max() < 1e-6
    assert values.real.max() <= 1 + 1e-6
    if negative:
        assert -1 - 1e-6 <= values.real.min() < -0.9
    else:
        assert -1e-6 <= values.real.min() < 0.1


@pytest.mark.parametrize("name", LAYERS)
def test_an_unknown_method_is_refused(name):
    layer, variables, _ = prepare(name)
    with pytest.raises(ValueError, match="'chunky' is not one of"):
        call(layer, "chunky", variables, make_input(2), None)


@pytest.mark.parametrize("name", LAYERS)
def test_a_state_of_another_shape_is_refused_before_compilation(name):
    layer, variables, _ = prepare(name)
    run = functools.partial(call, layer, "auto")
    other = rf"^state.*: shape \({BATCH + 1},.* is not \({BATCH},.*init_state\(batch={BATCH}\)"
    for state, message in (
        (layer.init_state(BATCH + 1), other),
        ([layer.init_state(BATCH)], r"^state: .* is not .*init_state"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(run, variables, make_input(2), state)  # compiles nothing


@pytest.mark.parametrize("name", LAYERS)
def test_layer_is_labelled_and_documented(name):
    cls = load_layer(name)
    assert cls.SOURCE
    assert "sequential" in cls.METHODS
    assert set(cls.METHODS) <= {"sequential", "associative", "chunked", "pallas"}
    assert len(set(cls.METHODS)) == len(cls.METHODS)
    text = inspect.cleandoc(cls.__dict__["__doc__"])
    assert "Source: " in text
    for field in own_fields(cls):
        assert re.search(rf"^  {field}: ", text, re.MULTILINE), field
    variables = jax.eval_shape(make_layer(name).init, jax.random.key(0), make_input(2))
    for path in traverse_util.flatten_dict(variables["params"], sep="/"):
        assert f"``{path}``" in text, path


@pytest.mark.parametrize("name", LAYERS)
def test_the_default_fields_are_accepted(name):
    cls = load_layer(name)
    cls.check({"width": WIDTH, **own_fields(cls), **SMALL.get(name, {})})
