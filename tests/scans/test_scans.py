"""Every scan and method against a float64 NumPy loop (values) and a float64 `lax.scan` under autodiff (gradients).

A scan's cases of one size share one program, which takes state, resets and cotangents as arguments.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scans.families import (
    BATCH,
    EVERY_METHOD,
    FAMILIES,
    WITH_RESETS,
    assert_near,
    call,
    compile_scan,
    count_steps,
    draw_cotangents,
    float32,
    loop_numpy,
    make_case,
    polar,
    reference_gradients,
    run_scan,
)

from lrnn_jax import scans
from lrnn_jax.scans import attention, outer

REVERSIBLE = [(name, method) for name, method in EVERY_METHOD if name in ("diagonal", "complex", "time_invariant")]


@pytest.fixture(autouse=True)
def blocks_are_small(monkeypatch):
    """So that a few positions are several of them."""
    monkeypatch.setattr(attention, "BLOCK", 16)
    monkeypatch.setattr(outer, "BLOCK", 128)


def check(name, method, case, rounding=0.0, **options):
    """Compares outputs, last state and every gradient with the two references."""
    cotangents = draw_cotangents(name, count_steps(case[1]))
    outputs, gradients = compile_scan(name, method, **options)(*case, cotangents)
    tolerance = FAMILIES[name].tolerance + rounding
    assert_near(outputs, loop_numpy(name, *case, **options), tolerance)
    assert_near(gradients, reference_gradients(name, *case, cotangents, **options), tolerance)


def test_every_public_scan_is_tested_here():
    assert {getattr(scans, name) for name in scans.__all__} == {family.scan for family in FAMILIES.values()}


@pytest.mark.parametrize(("name", "method"), EVERY_METHOD)
def test_values_and_all_gradients_equal_the_references(name, method):
    check(name, method, make_case(name, method=method))


@pytest.mark.parametrize(("name", "method"), REVERSIBLE)
def test_values_and_all_gradients_equal_the_references_in_reverse(name, method):
    check(name, method, make_case(name, method=method), reverse=True)


# What else the numbers may be: nearly no decay and nearly none left, where a quotient of products would overflow, and exactly
# 0, 1 and -1. Each draws arrays in place of a random case's, from their shapes.
REGIMES = {
    "diagonal": {
        "near_0": {"a": [1e-30, -1e-6, 1e-3]},
        "near_1": {"a": [1 - 1e-6, 1 - 1e-4, -1 + 1e-6]},
        "exact": {"a": [0, 1, -1]},
    },
    "complex": {
        "near_0": {"lam": polar(np.array([1e-30, 1e-6, 1e-3]), np.array([0.1, 1e-4, 3]))},
        "near_1": {"lam": polar(1 - np.array([1e-6, 1e-4, 1e-3]), np.array([0.1, 1e-4, 3]))},
        "exact": {"lam": polar(np.array([0, 1, 1]), np.array([0, 0, np.pi]))},
    },
    "delta_rule": {
        "near_0": {"beta": [1e-6, 1 - 1e-6]},
        "near_1": {"beta": [2 - 1e-6, 1e-3]},
        "exact": {"beta": [0.0, 1.0, 2.0]},
    },
    "gated_delta_rule": {
        "weak": {"log_gate": [-1e-3, -1e-6, 0.0]},
        "strong": {"log_gate": [np.log(0.01), np.log(0.004)]},
        "mixed": {"log_gate": [-5000.0, *[-0.02, -0.01, -1e-4] * 3]},
    },
    "dplr": {"any": {"log_w": [0.0, -1e-6, -1.0, -30.0, -1e4]}},
    "outer_rows": {
        "strong": {"a": [np.exp(-20), -np.exp(-20), 1e-3, 1 - 1e-4]},
        "weak": {"a": [1 - 1e-6, 1 - 1e-4, -1 + 1e-6]},
        "exact": {"a": [0, 1, -1]},
    },
    "time_invariant": {
        "near_0": {"a": polar(np.full((3, 4), 1e-30), np.full((3, 4), 0.1))},
        "near_1": {"a": polar(1 - np.tile([1e-6, 1e-4, 1e-3, 0], (3, 1)), np.tile([0.1, 1e-4, 3, 0], (3, 1)))},
        "exact": {"a": (np.tile([0.0, 1.0, -1.0, 0.0], (3, 1)), np.tile([0.0, 0.0, 0.0, 1.0], (3, 1)))},
    },
    "selective_positive": {"near_0": {"dt": [30.0, 60.0]}, "near_1": {"dt": [1e-8, 1e-6]}, "exact": {"dt": [0.0, 200.0]}},
}
REGIMES |= {
    "gated_delta_product": REGIMES["gated_delta_rule"],
    "outer_heads": REGIMES["outer_rows"],
    "selective_negative": REGIMES["selective_positive"],
}


@pytest.mark.parametrize(
    ("name", "method", "regime"), [(*each, regime) for each in EVERY_METHOD for regime in REGIMES.get(each[0], ())]
)
def test_stiff_transitions_equal_the_references(name, method, regime):
    constants, xs, h0, reset = make_case(name, method=method)
    rng = np.random.default_rng(5)
    for argument, values in REGIMES[name][regime].items():
        if argument in constants:
            constants = constants | {argument: float32(values)}
        else:
            xs = xs | {argument: np.float32(rng.choice(values, xs[argument].shape))}
    # A decay made from dt is rounded to float32 the same way at every step: up to 2^-24 of the state for each of them.
    rounding = 80 * 2**-24 if name.startswith("selective") and regime == "near_1" else 0.0
    check(name, method, (constants, xs, h0, reset if reset is None else np.zeros_like(reset)), rounding)


def draw_integers(name):
    """Transitions by 0, 1 and -1, and small integers for all else; reflections are along the axes."""
    constants, xs, h0, reset = make_case(name)
    rng = np.random.default_rng(0)
    xs = {argument: rng.integers(-3, 4, x.shape) for argument, x in xs.items()}
    if "beta" in xs:
        xs["k"], xs["beta"] = np.eye(4)[rng.integers(0, 4, xs["k"].shape[:-1])], rng.integers(0, 3, xs["beta"].shape)
    elif "log_w" in xs:
        xs["b"] = np.eye(3)[rng.integers(0, 3, xs["b"].shape[:-1])]
        xs["a"], xs["log_w"] = -xs["b"] * rng.integers(0, 3, (*xs["b"].shape[:-1], 1)), np.zeros(xs["log_w"].shape)
    else:
        xs["a"] = rng.choice([-1, 0, 1], xs["a"].shape, p=[0.45, 0.1, 0.45])
    if "log_gate" in xs:
        xs["log_gate"] = rng.choice([0.0, -np.inf], xs["log_gate"].shape, p=[0.9, 0.1])
    return (*float32((constants, xs, np.round(9 * h0))), reset)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        each
        for each in EVERY_METHOD
        if each[0] not in ("complex", "product", "attention", "time_invariant") and each[0][:5] not in ("selec", "dense")
    ],
)
def test_integers_with_reflections_projections_and_identities_are_exact(name, method):
    """A gate of zero included: its gradient is then 0, and every other one finite."""
    case = draw_integers(name)
    outputs, gradients = compile_scan(name, method)(*case, draw_cotangents(name, count_steps(case[1])))
    jax.tree.map(np.testing.assert_array_equal, outputs, loop_numpy(name, *case))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
    if "log_gate" in case[1]:
        np.testing.assert_array_equal(gradients[1]["log_gate"][np.isinf(case[1]["log_gate"])], 0)


@pytest.mark.parametrize("method", FAMILIES["selective_negative"].methods)
def test_selective_negative_flips_the_sign_exactly_when_the_decay_underflows(method):
    _, xs, h0, reset = make_case("selective_negative", 80)
    xs = xs | {"u": np.zeros_like(xs["u"]), "dt": np.full_like(xs["dt"], 128)}
    constants = {"a": np.full((3, 2), -1, np.float32)}
    starts = np.zeros_like(reset)
    (_, last), _ = compile_scan("selective_negative", method)(
        constants, xs, h0, starts, draw_cotangents("selective_negative", 80)
    )
    np.testing.assert_array_equal(last, h0)  # 80 changes of sign


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        *((*x, {}) for x in WITH_RESETS),
        *((*x, {"reverse": True}) for x in REVERSIBLE if x in WITH_RESETS),
    ],
)
def test_reset_equals_separate_sequences(name, method, options):
    """In reverse, the state that reaches the start of a sequence goes no further, so a reset at 0 cuts nothing there."""
    constants, xs, h0, reset = make_case(name)
    length = count_steps(xs)
    starts = (0, 3, 4, 20, length - 1)
    reset = np.zeros_like(reset)
    reset[:, starts] = True
    (ys, last), _ = compile_scan(name, method, **options)(constants, xs, h0, reset, draw_cotangents(name, length))
    pieces, lasts = [], []
    for first, stop in zip(starts, (*starts[1:], length), strict=True):
        piece = jax.tree.map(lambda x, first=first, stop=stop: x[:, first:stop], xs)
        y, h = loop_numpy(name, constants, piece, h0 if options and stop == length else None, **options)
        pieces.append(y)
        lasts.append(h)
    tolerance = FAMILIES[name].tolerance
    assert_near(ys, jax.tree.map(lambda *y: np.concatenate(y, axis=1), *pieces), tolerance)
    assert_near(last, lasts[0] if options else lasts[-1], tolerance)


@pytest.mark.parametrize(("name", "method"), EVERY_METHOD)
def test_state_and_reset_are_optional(name, method):
    """Over a length, at that, which needs no filling up."""
    constants, xs, _, _ = make_case(name, 64 if method == "chunked" else 16)
    outputs = jax.jit(functools.partial(call, name, method))(constants, xs)
    assert_near(outputs, loop_numpy(name, constants, xs), FAMILIES[name].tolerance)


@pytest.mark.parametrize(("name", "method"), EVERY_METHOD)
def test_one_position_with_a_state_is_a_step(name, method):
    constants, xs, h0, _ = make_case(name, 1)
    reset = np.array([[False], [True]]) if (name, method) in WITH_RESETS else None
    run = jax.jit(lambda constants, xs, h0, reset: call(name, method, constants, xs, h0=h0, reset=reset))
    assert_near(run(constants, xs, h0, reset), loop_numpy(name, constants, xs, h0, reset), FAMILIES[name].tolerance)


@pytest.mark.parametrize(("name", "method"), EVERY_METHOD)
def test_no_positions_give_no_outputs_and_leave_the_state(name, method):
    constants, xs, h0, reset = make_case(name, 0, method)
    ys, d_last = draw_cotangents(name, 0)
    (outputs, last), (_, dxs, dh0) = compile_scan(name, method)(constants, xs, h0, reset, (ys, d_last))
    jax.tree.map(np.testing.assert_array_equal, (outputs, last, dxs, dh0), (ys, h0, xs, d_last))


# Each gradient that is written by hand: of the shared loop with and without states as outputs, and of single scans.
BY_HAND = [
    ("complex", "sequential"),
    ("selective_negative", "sequential"),
    ("diagonal", "associative"),
    ("delta_product", "sequential"),
    ("delta_rule", "chunked"),
    ("outer_heads", "sequential"),
    ("time_invariant", "chunked"),
]


@pytest.mark.parametrize(("name", "method"), BY_HAND)
def test_vmap_equals_separate_calls(name, method):
    first = make_case(name, method=method)
    cases = [first, jax.tree.map(lambda x: x[::-1] if x.ndim > 1 else x / np.float32(2), first)]
    cotangents = draw_cotangents(name, count_steps(first[1]))
    run = functools.partial(run_scan, name, method)
    together = jax.jit(jax.vmap(run, in_axes=(0, 0, 0, 0, None)))(*jax.tree.map(lambda *x: np.stack(x), *cases), cotangents)
    for i, case in enumerate(cases):
        tolerance = FAMILIES[name].tolerance
        outputs, gradients = jax.tree.map(lambda x, i=i: x[i], together)
        assert_near(outputs, loop_numpy(name, *case), tolerance)
        assert_near(gradients, reference_gradients(name, *case, cotangents), tolerance)


MOVES = ("convert_element_type", "reshape", "broadcast_in_dim", "squeeze", "slice", "transpose", "concatenate")


def arithmetic_in_bfloat16(jaxpr):
    """Names of the operations that make bfloat16 numbers, but for those that only move or convert them."""
    for equation in jaxpr.eqns:
        inner = [getattr(x, "jaxpr", x) for x in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns"))]
        inner = [x for x in inner if hasattr(x, "eqns")]
        for part in inner:
            yield from arithmetic_in_bfloat16(part)
        name, results = equation.primitive.name, [variable.aval for variable in equation.outvars]
        drops_axis = name == "reduce_sum" and equation.invars[0].aval.size == results[0].size
        if not inner and name not in MOVES and not drops_axis and any(x.dtype == jnp.bfloat16 for x in results):
            yield name


@pytest.mark.parametrize(("name", "method"), EVERY_METHOD)
def test_bfloat16_inputs_are_computed_in_float32(name, method):
    """Read from the program, forward and backward: attention alone multiplies in its inputs' dtype."""
    *arrays, reset = make_case(name, 11, method)
    low = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), arrays)
    run, cotangents = functools.partial(run_scan, name, method), draw_cotangents(name, 11)
    trace, (outputs, gradients) = jax.make_jaxpr(run, return_shape=True)(*low, reset, cotangents)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(outputs))
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(gradients))
    assert name == "attention" or not set(arithmetic_in_bfloat16(trace.jaxpr))


@pytest.mark.parametrize(("name", "method"), [x for x in REVERSIBLE if x[0] != "time_invariant"])
def test_diagonal_scans_take_any_number_of_feature_axes(name, method):
    rng = np.random.default_rng(3)
    a, b, h0 = (float32(rng.normal(size=(2, *axes, 2, 1, 3))) / 2 for axes in ((), (BATCH, 9), (BATCH,)))
    constants, xs = ({"lam": tuple(a)}, {"b": tuple(b)}) if name == "complex" else ({}, {"a": b[0], "b": b[1]})
    h0, reset = tuple(h0) if name == "complex" else h0[0], rng.random((BATCH, 9)) < 0.3
    run = jax.jit(lambda constants, xs, h0, reset: call(name, method, constants, xs, h0=h0, reset=reset))
    assert_near(run(constants, xs, h0, reset), loop_numpy(name, constants, xs, h0, reset))


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if len(family.methods) == 2])
def test_auto_takes_the_loop_on_a_cpu_and_the_parallel_method_elsewhere(name, platform, monkeypatch):
    """But where the parallel one is faster on a CPU too: attention, and outer products with one decay per head."""
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    constants, xs, h0, reset = make_case(name, 40)
    sequential, parallel = FAMILIES[name].methods
    expected = sequential if platform == "cpu" and name not in ("attention", "outer_heads") else parallel
    programs = {
        method: str(jax.make_jaxpr(lambda xs, method=method: call(name, method, constants, xs, h0=h0, reset=reset))(xs))
        for method in ("auto", sequential, parallel)
    }
    assert programs["auto"] == programs[expected]
    assert programs[sequential] != programs[parallel]


def test_auto_takes_the_loop_for_a_few_outer_products_on_a_cpu(monkeypatch):
    assert outer.choose_outer_method("auto", 16, per_head=True) == "sequential"
    assert outer.choose_outer_method("auto", 17, per_head=True) == "chunked"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert outer.choose_outer_method("auto", 16, per_head=True) == "chunked"


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("has_reset", [False, True], ids=["no_reset", "resets"])
def test_auto_takes_chunks_of_a_time_invariant_scan_unless_there_are_resets(platform, has_reset, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    constants, xs, h0, reset = make_case("time_invariant", 40)
    expected = {"cpu": "sequential", "gpu": "associative"}[platform] if has_reset else "chunked"

    def trace(method):
        run = functools.partial(call, "time_invariant", method, constants, h0=h0, reset=reset if has_reset else None)
        return str(jax.make_jaxpr(run)(xs))

    assert trace("auto") == trace(expected)
    for method in ("chunked", "convolution"):
        with pytest.raises(ValueError, match=f"method '{method}' takes no reset; use one of auto, sequential, associative"):
            call("time_invariant", method, constants, xs, reset=reset)
