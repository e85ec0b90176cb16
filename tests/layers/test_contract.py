"""What every layer of the registry must do. A new layer is tested here without an edit.

Compiling is what takes the time. So a layer has one forward and one backward program per method, of 19 positions in small
chunks, and one of a single position. States, resets and cotangents are arguments, and each test asks these programs something
else. All arrays are NumPy's, for every slice of one of JAX's compiles a program.
"""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import add_noise, assert_near, make_layer, shrink_chunks, to_numpy, trace_in_float64
from lrnn_jax.config.fields import own_fields
from lrnn_jax.registry import LAYERS, load_layer

WIDTH, BATCH, STEPS = 8, 2, 19
# Where a sequence starts: nowhere, at places of each row (the first forgets the state at once), everywhere.
RESETS = np.zeros((3, BATCH, STEPS), bool)
RESETS[1, 0, [0, 6, 7, 16]] = RESETS[1, 1, [2, 11]] = RESETS[2] = True
# Positions over which a gradient must not vanish; a window or a decay may forget what is further away.
NEAR = 6
# Fields with which a layer's transitions have real eigenvalues: a product of two reflections is a rotation.
REAL = {"deltaproduct": {"householders": 1}}


def call(layer, scan, variables, x, state=None, reset=None):
    return nn.apply(lambda m, x, state, reset: m(x, state=state, reset=reset, scan=scan), layer)(variables, x, state, reset)


def pull_back(layer, scan, variables, x, state, reset, cotangents):
    """Outputs and gradients of parameters, input and initial state."""
    outputs, vjp = jax.vjp(lambda variables, x, state: call(layer, scan, variables, x, state, reset), variables, x, state)
    return outputs, vjp(cotangents)


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class Programs:
    """A layer's compiled programs, each made when it is first asked for, and what goes into them."""

    def __init__(self, name):
        name, _, field = name.partition(" ")
        self.layer = make_layer(name, **{field: True} if field else {})
        serving = {name: all(serves) for name, serves in self.layer.METHODS.items()}
        self.methods = [name for name, every in serving.items() if every]  # these take states and resets
        self.others = [name for name, every in serving.items() if not every]
        self.x = draw(0, BATCH, STEPS, WIDTH)
        self.start = to_numpy(jax.jit(lambda: self.layer.init_state(BATCH))())
        self.state = add_noise(self.start, 2, 0.5)
        self.cotangents = draw(3, BATCH, STEPS, WIDTH), jax.tree.map(lambda s: draw(4, *s.shape), self.start)
        self.chains = {}

    @functools.cached_property
    def initialise(self):
        run = jax.jit(lambda seed, x: self.layer.init(jax.random.key(seed), x))
        return lambda seed: to_numpy(run(seed, self.x))

    @functools.cached_property
    def variables(self):
        return add_noise(self.initialise(0), 1, 0.2)

    @functools.cache  # noqa: B019 - gone with the layer's tests
    def forward(self, method, dtype=jnp.float32):
        run = jax.jit(functools.partial(call, self.layer.clone(dtype=dtype), method))
        return lambda *args: to_numpy(run(*args))

    @functools.cache  # noqa: B019
    def backward(self, method, dtype=jnp.float32):
        run = jax.jit(functools.partial(pull_back, self.layer.clone(dtype=dtype), method))
        return lambda *args: to_numpy(run(*args))

    @functools.cached_property
    def exact(self):
        """The first method's backward program, the sequential one, in float64."""
        run = functools.partial(pull_back, self.layer.clone(dtype=jnp.float64), self.methods[0])
        return trace_in_float64(run, self.variables, self.x, self.state, RESETS[0], self.cotangents)

    def chain(self, which):
        """Outputs and gradients, one position per call; the initial state goes in where `RESETS[which]` says so."""
        if which not in self.chains:
            self.chains[which] = self._run_chain(RESETS[which])
        return self.chains[which]

    def _run_chain(self, reset):
        step, never = self.backward("auto"), np.zeros((BATCH, 1), bool)
        dy, dlast = self.cotangents

        def choose(flags, where, otherwise):
            return jax.tree.map(lambda a, b: np.where(flags.reshape(-1, *[1] * (a.ndim - 1)), a, b), where, otherwise)

        state, before, outputs = self.state, [], []
        for t in range(STEPS):
            before.append(choose(reset[:, t], self.start, state))
            zeros = jax.tree.map(np.zeros_like, (dy[:, :1], dlast))
            (y, state), _ = step(self.variables, self.x[:, t : t + 1], before[-1], never, zeros)
            outputs.append(y)
        dvariables, dx, dstate, last = jax.tree.map(np.zeros_like, self.variables), np.zeros_like(self.x), dlast, state
        for t in reversed(range(STEPS)):
            arguments = self.x[:, t : t + 1], before[t], never, (dy[:, t : t + 1], dstate)
            _, (more, dx[:, t : t + 1], dstate) = step(self.variables, *arguments)
            dvariables = jax.tree.map(np.add, dvariables, more)
            dstate = choose(reset[:, t], jax.tree.map(np.zeros_like, dstate), dstate)
        return (np.concatenate(outputs, axis=1), last), (dvariables, dx, dstate)


# A layer with the field once more, reading both ways.
BOTH_WAYS = [f"{name} bidirectional" for name in LAYERS if "bidirectional" in own_fields(load_layer(name))]


@pytest.fixture(scope="module", params=[*LAYERS, *BOTH_WAYS, "outside_layers:Leaky", "outside_layers:BothWays"])
def programs(request):
    """Of module scope, so that all tests of one layer follow each other, and in one process."""
    with pytest.MonkeyPatch.context() as patch:
        shrink_chunks(patch)
        yield Programs(request.param)


@pytest.fixture
def causal(programs):
    """Only layers with a state to go on from."""
    if not programs.layer.causal:
        pytest.skip("the layer is not causal")
    return programs


@pytest.mark.parametrize("which", range(len(RESETS)), ids=["no_reset", "resets", "only_resets"])
def test_methods_agree_with_float64_in_outputs_states_and_all_gradients(programs, which):
    p = programs
    args = p.variables, p.x, p.state, RESETS[which], p.cotangents
    expected = p.exact(*args)
    for method in p.methods:
        assert_near(p.backward(method)(*args), expected, message=method)


@pytest.mark.parametrize("which", range(len(RESETS)), ids=["no_reset", "resets", "only_resets"])
def test_all_at_once_equals_token_by_token_and_a_reset_equals_a_sequence_of_its_own(causal, which):
    """In outputs, states and all gradients."""
    p = causal
    for method in p.methods:
        found = p.backward(method)(p.variables, p.x, p.state, RESETS[which], p.cotangents)
        assert_near(found, p.chain(which), message=method)


def test_without_state_and_resets_equals_the_initial_state_and_no_resets(programs):
    p = programs
    for method in p.methods + p.others:
        full = method if method in p.methods else p.methods[0]
        expected, _ = p.backward(full)(p.variables, p.x, p.start, RESETS[0], p.cotangents)
        assert_near(p.forward(method)(p.variables, p.x), expected, 2e-6 if full == method else 1e-5, method)


def test_cut_anywhere_and_carry_the_state(causal):
    """Some positions one by one, then all others at once, then some more one by one."""
    p = causal
    zeros, never = jax.tree.map(np.zeros_like, p.cotangents), np.zeros((BATCH, 1), bool)
    step = functools.partial(p.backward("auto"), p.variables)
    one = zeros[0][:, :1], zeros[1]
    x = np.concatenate([p.x, draw(5, *p.x.shape)], axis=1)
    outputs, states = [], [p.state]
    for t in range(2 * STEPS):
        (y, state), _ = step(x[:, t : t + 1], states[-1], never, one)
        outputs.append(y)
        states.append(state)
    for method, cut in itertools.product(p.methods, range(STEPS + 1)):
        found, _ = p.backward(method)(p.variables, x[:, cut : cut + STEPS], states[cut], RESETS[0], zeros)
        expected = np.concatenate(outputs[cut : cut + STEPS], axis=1), states[cut + STEPS]
        assert_near(found, expected, message=f"{method} {cut}")


def test_outputs_depend_on_the_past_of_their_own_row_only(programs):
    """And on what is to come where the layer is not causal."""
    p = programs
    weights, zeros = p.cotangents[0], jax.tree.map(np.zeros_like, p.cotangents)

    def reach(method, at):
        cotangent = zeros[0].copy()
        cotangent[at] = weights[at]
        _, (_, dx, _) = p.backward(method)(p.variables, p.x, p.state, RESETS[0], (cotangent, zeros[1]))
        return np.abs(dx).max(axis=2)  # [row, position]

    for method in p.methods:
        for t in range(STEPS):
            found = reach(method, np.s_[:, t])
            if p.layer.causal:
                assert not found[:, t + 1 :].any(), (method, t)
            else:
                assert found[:, t : t + NEAR].all(), (method, t)
            assert found[:, max(t - NEAR + 1, 0) : t + 1].all(), (method, t)
        for row in range(BATCH):
            others = np.delete(reach(method, np.s_[row]), row, axis=0)
            assert not others.any(), (method, row)


def test_nothing_crosses_a_reset_in_either_direction(programs):
    p = programs
    sequence = np.cumsum(RESETS[1], axis=1)  # the number of each position's sequence within its row
    for method, which in itertools.product(p.methods, range(sequence.max() + 1)):
        cotangent = np.where((sequence == which)[..., None], p.cotangents[0], np.float32(0))
        zeros = jax.tree.map(np.zeros_like, p.cotangents[1])
        _, (_, dx, _) = p.backward(method)(p.variables, p.x, p.state, RESETS[1], (cotangent, zeros))
        assert not dx[sequence != which].any(), (method, which)
        assert dx[sequence == which].all(), (method, which)


def test_state_is_float32_and_as_large_for_any_length(programs):
    p = programs
    shapes = jax.tree.map(lambda s: (s.shape, s.dtype), p.start)
    assert all(leaf.dtype == np.float32 and leaf.shape[0] == BATCH for leaf in jax.tree.leaves(p.start))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(p.variables))
    for method, length in itertools.product(p.methods, (2, 300)):
        layer = p.layer.clone(dtype=jnp.bfloat16)
        x = jax.ShapeDtypeStruct((BATCH, length, WIDTH), jnp.bfloat16)
        y, state = jax.eval_shape(functools.partial(call, layer, method), p.variables, x)
        assert (y.shape, y.dtype) == (x.shape, jnp.bfloat16)
        assert jax.tree.map(lambda s: (s.shape, s.dtype), state) == shapes
    for method in p.methods:
        _, state = p.forward(method)(p.variables, p.x)
        assert jax.tree.map(lambda s: (s.shape, s.dtype), state) == shapes


def test_parameters_are_float32_where_jax_draws_float64_by_itself(programs):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        made = jax.eval_shape(lambda: programs.layer.init(jax.random.key(0), jnp.zeros((1, 3, WIDTH), jnp.float32)))
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype("float32")}


def test_without_positions_there_is_no_output_and_the_state_stays(programs):
    p = programs
    program = jax.make_jaxpr(functools.partial(call, p.layer, "auto"))(p.variables, p.x[:, :0], p.state)
    y, *last = program.jaxpr.outvars
    assert y.aval.shape == (BATCH, 0, WIDTH)
    assert last == program.jaxpr.invars[len(program.jaxpr.invars) - len(last) :]
    assert len(last) == len(jax.tree.leaves(p.state))


def test_bfloat16_stays_finite_and_near_float32_and_does_not_round_states(programs):
    p = programs
    x = p.x.astype(jnp.bfloat16)
    variables = p.initialise(0)
    args = variables, x, p.state, RESETS[0], (p.cotangents[0].astype(jnp.bfloat16), p.cotangents[1])
    (y, last), gradients = p.backward("auto", jnp.bfloat16)(*args)
    assert y.dtype == jnp.bfloat16
    assert all(np.isfinite(leaf.astype(np.float32)).all() for leaf in jax.tree.leaves((y, last, gradients)))
    assert all(leaf.any() for leaf in jax.tree.leaves(gradients[:2]))
    (expected, _), _ = p.exact(variables, x.astype(np.float32), p.state, RESETS[0], p.cotangents)
    error = y.astype(np.float64) - expected
    assert np.sqrt(np.mean(error**2)) < 0.05 * np.sqrt(np.mean(expected**2))
    state = p.state
    for t in range(STEPS if p.layer.causal else 0):
        _, state = p.forward("auto", jnp.bfloat16)(variables, x[:, t : t + 1], state)
    assert_near(state, last, 1e-4)


def test_vmapped_seeds_equal_separate_seeds(programs):
    p = programs
    arguments = p.x, p.state, RESETS[1], p.cotangents

    def train(seed, x, *rest):
        variables = p.layer.init(jax.random.key(seed), x)
        return variables, pull_back(p.layer, "auto", variables, x, *rest)

    together = jax.jit(jax.vmap(train, in_axes=(0, None, None, None, None)))(np.arange(3), *arguments)
    together = to_numpy(together)
    for seed in range(3):
        variables = p.initialise(seed)
        alone = variables, p.backward("auto")(variables, *arguments)
        assert_near(jax.tree.map(lambda leaf, seed=seed: leaf[seed], together), alone, 5e-5)
    assert any(np.ptp(leaf, axis=0).max() > 0 for leaf in jax.tree.leaves(together[0]))


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_long_bfloat16_sequences_stay_finite_and_near_float32(name):
    low, exact = make_layer(name, dtype=jnp.bfloat16), make_layer(name)
    variables = jax.jit(exact.init)(jax.random.key(0), draw(0, BATCH, 2, WIDTH))
    x = draw(0, 1, 16384, WIDTH)

    @jax.jit
    def run(variables, x):
        def loss(variables, x):
            y, state = call(low, "auto", variables, x)
            return jnp.mean(y.astype(jnp.float32) ** 2), (y, state)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(variables, x)

    (_, (y, state)), gradients = to_numpy(run(variables, x.astype(jnp.bfloat16)))
    assert y.dtype == jnp.bfloat16
    assert all(np.isfinite(leaf.astype(np.float32)).all() for leaf in jax.tree.leaves((y, state, gradients)))
    assert all(leaf.any() for leaf in jax.tree.leaves(gradients))
    expected = np.asarray(jax.jit(lambda x: call(exact, "auto", variables, x)[0])(x))
    error = np.asarray(y, np.float64) - expected
    assert np.sqrt(np.mean(error**2)) < 0.05 * np.sqrt(np.mean(expected**2))


def eigenvalues(layer, a):
    """A transition is given as square matrices on its last two axes, or as its eigenvalues."""
    return a if layer.DIAGONAL else np.linalg.eigvals(a)


def transitions(layer, variables, x):
    return to_numpy(jax.jit(functools.partial(layer.apply, method="transition"))(variables, x))


def test_transition_is_finite_and_does_not_expand(programs):
    p = programs
    run = jax.jit(functools.partial(p.layer.apply, method="transition"))

    def expands(variables):
        a = np.asarray(run(variables, p.x))
        assert np.isfinite(a).all()
        return np.abs(eigenvalues(p.layer, a)).max() > 1 + 1e-6

    if p.layer.may_expand:
        # a layer that is exempt must need it
        assert any(expands(add_noise(p.initialise(0), 1, scale)) for scale in (0.2, 0.5, 1.0, 2.0))
    else:
        assert not expands(p.variables)


@pytest.mark.parametrize("name", [name for name in LAYERS if "negative" in load_layer(name).VARIANTS])
def test_eigenvalues_lie_in_the_range_that_the_variant_promises(name):
    scales = np.repeat(np.float32([1e-2, 0.1, 1, 10, 100, 1000]), 8)  # from tiny to saturating inputs
    x = draw(0, BATCH, 48, WIDTH) * scales[None, :, None]
    variables = None
    for variant, lowest in (("negative", (-1 - 1e-6, -0.9)), ("positive", (-1e-6, 0.1))):
        layer = make_layer(name, **load_layer(name).VARIANTS[variant], **REAL.get(name, {}))
        if variables is None:  # parameters of both variants are alike
            variables = add_noise(jax.jit(layer.init)(jax.random.key(0), x[:, :2]), 1, 0.2)
        values = eigenvalues(layer, transitions(layer, variables, x))
        assert np.abs(values.imag).max() < 1e-6
        assert values.real.max() <= 1 + 1e-6
        assert lowest[0] <= values.real.min() < lowest[1], variant


def test_what_a_call_cannot_be_given_is_refused_before_compilation(programs):
    p = programs
    other = jax.tree.map(lambda s: np.concatenate([s, s[:1]]), p.start)
    wrong = (
        ({"scan": "chunky"}, "'chunky' is not one of"),
        ({"x": p.x[0]}, rf"^x: shape \({STEPS}, {WIDTH}\) has no batch axis"),
        ({"x": p.x[..., :-1]}, rf"^x: shape .* is not \[B T D\] with D = width = {WIDTH}"),
        ({"x": np.zeros(p.x.shape, np.int32)}, "^x: dtype int32 is not floating"),
        ({"reset": RESETS[0][:, 1:]}, rf"^reset: .*{STEPS - 1}\) is not bool of shape \({BATCH}, {STEPS}\)"),
        ({"reset": np.zeros((BATCH, STEPS), np.int32)}, "^reset: int32"),
        *([({"state": other}, rf"^state.*: shape \({BATCH + 1},.* is not \({BATCH},.*init_state")] if p.layer.causal else []),
        ({"state": [p.start]}, r"^state: .* is not .*init_state"),
    )
    for arguments, message in wrong:
        run = functools.partial(call, p.layer, arguments.pop("scan", "auto"), p.variables)
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(run, arguments.pop("x", p.x), *(arguments.get(part) for part in ("state", "reset")))
