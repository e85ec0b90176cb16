"""Every scan against a float64 NumPy loop (values) and a float64 `lax.scan` under autodiff (gradients)."""

import collections
import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lrnn_jax.scans import delta, diagonal, scan_delta_rule, scan_diagonal, scan_diagonal_complex, scan_selective, selective
from lrnn_jax.scans.method import choose_method

BATCH = 2
# Error allowed, relative to the largest entry of the array that is compared; about ten float32 roundings.
TOLERANCE = 3e-6
# Compiling takes most of the time here, so XLA optimises little.
compile_quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# `methods` are what the scan has; `scan` calls ours; `step` is the docstring's formula, in NumPy (`xp=np`) and in JAX
# (`xp=jnp`); `constants`, `xs` and `h0` map a random generator (and T) to arrays.
Family = collections.namedtuple("Family", "methods scan step constants xs h0")


def diagonal_step(xp, constants, h, x):
    a, b = x
    h = a * h + b
    return h, h


def complex_step(xp, lam, h, x):
    re = lam[0][None] * h[0] - lam[1][None] * h[1] + x[0]
    im = lam[0][None] * h[1] + lam[1][None] * h[0] + x[1]
    return (re, im), (re, im)


def delta_step(xp, constants, s, x):
    q, k, v, beta = x
    identity = xp.eye(k.shape[-1], dtype=k.dtype)[None, None]
    a = identity - beta[..., None, None] * k[..., :, None] * k[..., None, :]
    s = xp.einsum("bhij,bhjv->bhiv", a, s) + beta[..., None, None] * k[..., :, None] * v[..., None, :]
    return s, xp.einsum("bhkv,bhk->bhv", s, q)


def selective_step(negative, xp, a, h, x):
    u, dt, b, c = x
    abar = xp.exp(dt[:, :, None] * a[None])
    if negative:
        abar = 2 * abar - 1
    h = abar * h + (dt * u)[:, :, None] * b[:, None, :]
    return h, xp.einsum("ben,bn->be", h, c)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def delta_inputs(rng, steps):
    q, k = rng.normal(size=(BATCH, steps, 2, 3)), unit(rng.normal(size=(BATCH, steps, 2, 3)))
    return q, k, rng.normal(size=(BATCH, steps, 2, 5)), rng.uniform(0, 2, (BATCH, steps, 2))


def selective_inputs(rng, steps):
    dt = np.exp(rng.uniform(-3, 1, (BATCH, steps, 3)))
    return rng.normal(size=(BATCH, steps, 3)), dt, rng.normal(size=(BATCH, steps, 2)), rng.normal(size=(BATCH, steps, 2))


def make_selective(negative):
    return Family(
        selective.METHODS,
        lambda a, xs, **kw: scan_selective(*xs[:2], a, *xs[2:], negative_eigenvalues=negative, **kw),
        functools.partial(selective_step, negative),
        lambda rng: -np.exp(rng.normal(size=(3, 2))),
        selective_inputs,
        lambda rng: rng.normal(size=(BATCH, 3, 2)),
    )


FAMILIES = {
    "diagonal": Family(
        diagonal.METHODS,
        lambda _, xs, **kw: scan_diagonal(*xs, **kw),
        diagonal_step,
        lambda rng: (),
        lambda rng, steps: (rng.uniform(-1, 1, (BATCH, steps, 3)), rng.normal(size=(BATCH, steps, 3))),
        lambda rng: rng.normal(size=(BATCH, 3)),
    ),
    "complex": Family(
        diagonal.METHODS,
        lambda lam, xs, **kw: scan_diagonal_complex(lam, xs, **kw),
        complex_step,
        lambda rng: polar(rng.uniform(0.5, 0.99, 3), rng.uniform(0, 2 * np.pi, 3)),
        lambda rng, steps: tuple(rng.normal(size=(2, BATCH, steps, 3))),
        lambda rng: tuple(rng.normal(size=(2, BATCH, 3))),
    ),
    "delta": Family(
        delta.METHODS,
        lambda _, xs, **kw: scan_delta_rule(*xs, **kw),
        delta_step,
        lambda rng: (),
        delta_inputs,
        lambda rng: rng.normal(size=(BATCH, 2, 3, 5)),
    ),
    "selective": make_selective(False),
    "selective_negative": make_selective(True),
}
EVERY_METHOD = [(name, method) for name, family in FAMILIES.items() for method in family.methods]
# "selective" differs from "selective_negative" in one line: where compiling costs more than it tells, one stands for both.
DISTINCT = [(name, method) for name, method in EVERY_METHOD if name != "selective"]


def polar(radius, phase):
    return radius * np.cos(phase), radius * np.sin(phase)


def float32(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float32), tree)


def float64(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def random_case(name, steps, *, h0=True, reset=True):
    """Returns (constants, xs, h0, reset), float32, the same for the same arguments."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), steps])
    family = FAMILIES[name]
    case = float32((family.constants(rng), family.xs(rng, steps), family.h0(rng)))
    flags = rng.random((BATCH, steps)) < 0.2
    return case[0], case[1], case[2] if h0 else None, flags if reset else None


def survives(reset, length, reverse):
    """Whether the state that enters position t is kept: forward it dies where t starts, reverse where t + 1 starts."""
    keep = np.ones((BATCH, length), bool)
    for t in range(length if reset is not None else 0):
        start = t + 1 if reverse else t
        if start < length:
            keep[:, t] = ~reset[:, start]
    return keep


def loop_numpy(name, constants, xs, h0, reset, reverse):
    """The specification: one position after the other, in float64."""
    constants, xs = float64(constants), float64(xs)
    length = jax.tree.leaves(xs)[0].shape[1]
    h = jax.tree.map(np.zeros_like, float64(FAMILIES[name].h0(np.random.default_rng()))) if h0 is None else float64(h0)
    keep = survives(reset, length, reverse)
    ys = [None] * length
    for t in reversed(range(length)) if reverse else range(length):
        h = jax.tree.map(lambda z, t=t: z * keep[:, t].reshape(-1, *[1] * (z.ndim - 1)), h)
        h, ys[t] = FAMILIES[name].step(np, constants, h, jax.tree.map(lambda x, t=t: x[:, t], xs))
    return jax.tree.map(lambda *y: np.stack(y, axis=1), *ys), h


@functools.cache
def compile_reference(name):
    def run(constants, xs, h0, keep):
        def advance(h, now):
            x, kept = now
            h = jax.tree.map(lambda z: z * kept.reshape(-1, *[1] * (z.ndim - 1)), h)
            return FAMILIES[name].step(jnp, constants, h, x)

        h, ys = lax.scan(advance, h0, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (xs, keep)))
        return jax.tree.map(lambda y: jnp.moveaxis(y, 0, 1), ys), h

    @compile_quickly
    def pull_back(constants, xs, h0, keep, cotangents):
        return jax.vjp(lambda *args: run(*args, keep), constants, xs, h0)[1](cotangents)

    return pull_back


def reference_gradients(name, constants, xs, h0, reset, reverse, cotangents):
    """Float64 gradients of (constants, xs, h0); a reverse scan is a forward scan of flipped arrays."""

    def turn(tree):
        return jax.tree.map(lambda x: x[:, ::-1], tree) if reverse else tree

    length = jax.tree.leaves(xs)[0].shape[1]
    start = FAMILIES[name].h0(np.random.default_rng())
    start = jax.tree.map(np.zeros_like, float64(start)) if h0 is None else float64(h0)
    keep = survives(reset, length, reverse).astype(np.float64)
    with jax.enable_x64(True):
        gradients = compile_reference(name)(
            float64(constants),
            turn(float64(xs)),
            start,
            turn(keep),
            (turn(float64(cotangents[0])), float64(cotangents[1])),
        )
        dconstants, dxs, dh0 = jax.tree.map(np.asarray, gradients)
    return dconstants, turn(dxs), None if h0 is None else dh0


@functools.cache
def compile_scan(name, method, reverse):
    """Our scan with all its gradients, in one program."""

    @compile_quickly
    def run(constants, xs, h0, reset, cotangents):
        def scan(constants, xs, h0):
            return FAMILIES[name].scan(constants, xs, h0=h0, reset=reset, method=method, reverse=reverse)

        outputs, pull_back = jax.vjp(scan, constants, xs, h0)
        return outputs, pull_back(cotangents)

    return run


def draw_cotangents(name, steps):
    rng = np.random.default_rng([zlib.crc32(name.encode()), steps, 1])
    constants, xs, h0, _ = random_case(name, steps)
    ys = loop_numpy(name, constants, xs, h0, None, False)
    return float32(jax.tree.map(lambda y: rng.normal(size=y.shape), ys))


def assert_near(actual, expected, tolerance=TOLERANCE):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(np.asarray(x, np.float64), y, rtol=0, atol=tolerance * max(np.abs(y).max(), 1e-30))


def check(name, method, reverse, case, tolerance=TOLERANCE):
    """Compares outputs, last state and every gradient with the two references."""
    steps = jax.tree.leaves(case[1])[0].shape[1]
    cotangents = draw_cotangents(name, steps)
    outputs, gradients = compile_scan(name, method, reverse)(*case, cotangents)
    assert_near(outputs, loop_numpy(name, *case, reverse), tolerance)
    assert_near(gradients, reference_gradients(name, *case, reverse, cotangents), tolerance)


@pytest.mark.parametrize(
    ("name", "method", "steps"),
    [
        *((*case, steps) for case in DISTINCT for steps in (1, 2, 63, 128, 257)),
        *(("selective", method, steps) for method in selective.METHODS for steps in (63, 128)),
    ],
)
def test_values_and_all_gradients_equal_the_references(name, method, steps):
    check(name, method, False, random_case(name, steps))


@pytest.mark.parametrize("steps", [2, 63])
@pytest.mark.parametrize(("name", "method"), DISTINCT)
def test_values_and_all_gradients_equal_the_references_in_reverse(name, method, steps):
    check(name, method, True, random_case(name, steps))


@pytest.mark.parametrize(
    ("h0", "reset", "reverse"),
    [(False, False, False), (False, False, True), (True, False, True), (False, True, False)],
    ids=["plain", "plain-reverse", "h0-reverse", "reset"],
)
@pytest.mark.parametrize(("name", "method"), DISTINCT)
def test_state_and_reset_are_optional(name, method, h0, reset, reverse):
    check(name, method, reverse, random_case(name, 11, h0=h0, reset=reset))


def stiff_case(name, regime):
    constants, xs, h0, reset = random_case(name, 128)
    rng = np.random.default_rng(5)
    if name == "diagonal":
        values = {"near_0": [1e-30, -1e-6, 1e-3], "near_1": [1 - 1e-6, 1 - 1e-4, -1 + 1e-6], "exact": [0, 1, -1]}[regime]
        xs = (np.broadcast_to(np.float32(values), xs[0].shape).copy(), xs[1])
    if name == "complex":
        radius = {"near_0": [1e-30, 1e-6, 1e-3], "near_1": [1 - 1e-6, 1 - 1e-4, 1 - 1e-3], "exact": [0, 1, 1]}[regime]
        phase = [0, 0, np.pi] if regime == "exact" else [0.1, 1e-4, 3]
        constants = float32(polar(np.array(radius), np.array(phase)))
    if name == "delta":
        beta = {"near_0": [1e-6, 1 - 1e-6], "near_1": [2 - 1e-6, 1e-3], "exact": [0.0, 1.0, 2.0]}[regime]
        xs = (*xs[:3], np.float32(rng.choice(beta, xs[3].shape)))
    if name.startswith("selective"):
        dt = {"near_0": [30.0, 60.0], "near_1": [1e-8, 1e-6], "exact": [0.0, 200.0]}[regime]
        xs = (xs[0], np.float32(rng.choice(dt, xs[1].shape)), *xs[2:])
    return constants, xs, h0, np.zeros_like(reset)


@pytest.mark.parametrize("regime", ["near_0", "near_1", "exact"])
@pytest.mark.parametrize(("name", "method"), EVERY_METHOD)
def test_stiff_transitions_equal_the_references(name, method, regime):
    # A decay made from dt is rounded to float32 the same way at every step: up to 2^-24 of the state for each of them.
    rounding = 128 * 2**-24 if name.startswith("selective") and regime == "near_1" else 0.0
    if method == "chunked" and regime == "near_1":  # reflections damp no rounding, and a chunk sums in another order
        rounding = 2e-6
    check(name, method, False, stiff_case(name, regime), TOLERANCE + rounding)


@pytest.mark.parametrize("method", diagonal.METHODS)
def test_diagonal_is_exact_on_integers_with_decays_0_and_plus_minus_1(method):
    rng = np.random.default_rng(0)
    a, b = float32((rng.choice([-1, 0, 1], (BATCH, 257, 3), p=[0.45, 0.1, 0.45]), rng.integers(-9, 10, (BATCH, 257, 3))))
    no_reset = np.zeros((BATCH, 257), bool)
    h, _ = compile_scan("diagonal", method, False)((), (a, b), np.zeros((BATCH, 3), np.float32), no_reset, (b, b[:, 0]))[0]
    np.testing.assert_array_equal(h, loop_numpy("diagonal", (), (a, b), None, None, False)[0])


@pytest.mark.parametrize("method", delta.METHODS)
def test_delta_rule_is_exact_on_integers_with_reflections_projections_and_identities(method):
    rng = np.random.default_rng(1)
    q, v = rng.integers(-3, 4, (BATCH, 128, 2, 3)), rng.integers(-1, 2, (BATCH, 128, 2, 5))
    k = np.eye(3)[rng.integers(0, 3, (BATCH, 128, 2))]
    xs = float32((q, k, v, rng.integers(0, 3, (BATCH, 128, 2))))
    h0 = np.float32(rng.integers(-9, 10, (BATCH, 2, 3, 5)))
    outputs, _ = compile_scan("delta", method, False)((), xs, h0, np.zeros((BATCH, 128), bool), draw_cotangents("delta", 128))
    expected = loop_numpy("delta", (), xs, h0, None, False)
    np.testing.assert_array_equal(outputs[0], expected[0])
    np.testing.assert_array_equal(outputs[1], expected[1])


@pytest.mark.parametrize("method", selective.METHODS)
def test_selective_negative_flips_the_sign_exactly_when_the_decay_underflows(method):
    _, xs, h0, _ = random_case("selective_negative", 63)
    u, dt, b, c = np.zeros_like(xs[0]), np.full_like(xs[1], 128), xs[2], np.ones_like(xs[3])
    a = np.full((3, 2), -1, np.float32)
    cotangents = draw_cotangents("selective_negative", 63)
    (_, last), _ = compile_scan("selective_negative", method, False)(
        a, (u, dt, b, c), h0, np.zeros((BATCH, 63), bool), cotangents
    )
    np.testing.assert_array_equal(last, -h0)  # 63 sign changes


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize(("name", "method"), DISTINCT)
def test_reset_equals_separate_sequences(name, method, reverse):
    """In reverse the state that reaches the start of a sequence goes no further, so a reset at 0 cuts nothing there."""
    length, starts = 63, (0, 3, 4, 40, 62)
    constants, xs, h0, _ = random_case(name, length)
    reset = np.zeros((BATCH, length), bool)
    reset[:, starts] = True
    (ys, last), _ = compile_scan(name, method, reverse)(constants, xs, h0, reset, draw_cotangents(name, length))
    pieces, lasts = [], []
    for first, stop in zip(starts, (*starts[1:], length), strict=True):
        piece = jax.tree.map(lambda x, first=first, stop=stop: x[:, first:stop], xs)
        carried = h0 if reverse and stop == length else None
        y, h = loop_numpy(name, constants, piece, carried, None, reverse)
        pieces.append(y)
        lasts.append(h)
    assert_near(ys, jax.tree.map(lambda *y: np.concatenate(y, axis=1), *pieces))
    assert_near(last, lasts[0] if reverse else lasts[-1])


@pytest.mark.parametrize(("name", "method"), DISTINCT)
def test_bfloat16_inputs_are_computed_in_float32(name, method):
    constants, xs, h0, reset = random_case(name, 11)
    low = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), (constants, xs, h0))
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), low)
    outputs, gradients = compile_scan(name, method, False)(*low, reset, draw_cotangents(name, 11))
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(outputs))
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(gradients))
    assert_near(outputs, loop_numpy(name, *exact, reset, False))


@pytest.mark.parametrize(("platform", "method"), [("cpu", "sequential"), ("gpu", "associative"), ("tpu", "associative")])
def test_auto_takes_the_loop_on_a_cpu_and_the_parallel_method_elsewhere(monkeypatch, platform, method):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert choose_method("auto", diagonal.METHODS, accelerator="associative") == method


@pytest.mark.parametrize("name", FAMILIES)
def test_unknown_method_is_refused_by_name(name):
    constants, xs, h0, _ = jax.tree.map(jnp.asarray, random_case(name, 2))
    with pytest.raises(ValueError, match=f"'chunky' is not one of auto, {', '.join(FAMILIES[name].methods)}"):
        FAMILIES[name].scan(constants, xs, h0=h0, method="chunky")


@pytest.mark.parametrize(("name", "method"), DISTINCT)
def test_vmap_equals_separate_calls(name, method):
    first = random_case(name, 11)
    cases = [first, jax.tree.map(lambda x: x[::-1] if x.ndim > 1 else x / np.float32(2), first)]
    cotangents = draw_cotangents(name, 11)

    @compile_quickly
    @functools.partial(jax.vmap, in_axes=(0, 0, 0, 0, None))
    def run(constants, xs, h0, reset, cotangents):
        outputs, pull_back = jax.vjp(
            lambda c, x, h: FAMILIES[name].scan(c, x, h0=h, reset=reset, method=method), constants, xs, h0
        )
        return outputs, pull_back(cotangents)

    together = run(*jax.tree.map(lambda *x: np.stack(x), *cases), cotangents)
    for i, case in enumerate(cases):
        outputs, gradients = jax.tree.map(lambda x, i=i: x[i], together)
        assert_near(outputs, loop_numpy(name, *case, False))
        assert_near(gradients, reference_gradients(name, *case, False, cotangents))


@pytest.mark.parametrize("method", diagonal.METHODS)
@pytest.mark.parametrize("features", [(), (2, 3)], ids=["none", "two"])
def test_diagonal_takes_any_number_of_feature_axes(method, features):
    rng = np.random.default_rng(3)
    a, b = float32((rng.uniform(-1, 1, (BATCH, 9, *features)), rng.normal(size=(BATCH, 9, *features))))
    h0, reset = np.float32(rng.normal(size=(BATCH, *features))), rng.random((BATCH, 9)) < 0.3
    outputs = jax.jit(functools.partial(scan_diagonal, method=method))(a, b, h0=h0, reset=reset)
    assert_near(outputs, loop_numpy("diagonal", (), (a, b), h0, reset, False))
