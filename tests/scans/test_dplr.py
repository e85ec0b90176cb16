"""The diagonal-plus-low-rank scan against a float64 NumPy loop (values) and a float64 `lax.scan` (gradients)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lrnn_jax.scans import dplr, scan_dplr

BATCH, HEADS, KEY, VALUE = 2, 2, 3, 5
TOLERANCE = 3e-6
compile_quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def step(xp, s, x):
    """The docstring's formula, with the transition written out as a matrix."""
    q, k, v, log_w, a, b = x
    transition = xp.exp(log_w)[..., None] * xp.eye(KEY)[None, None] + a[..., :, None] * b[..., None, :]
    s = xp.einsum("bhij,bhjv->bhiv", transition, s) + k[..., :, None] * v[..., None, :]
    return s, xp.einsum("bhkv,bhk->bhv", s, q)


def make_case(steps, seed=0):
    rng = np.random.default_rng(seed)
    q, k, a, b = rng.normal(size=(4, BATCH, steps, HEADS, KEY))
    v = rng.normal(size=(BATCH, steps, HEADS, VALUE))
    log_w = -rng.exponential(size=k.shape)
    b /= np.linalg.norm(b, axis=-1, keepdims=True)
    a = -b * rng.uniform(0, 1, a.shape) + 0.1 * a
    xs = tuple(np.float32(x) for x in (q, k, v, log_w, a, b))
    return xs, np.float32(rng.normal(size=(BATCH, HEADS, KEY, VALUE))), rng.random((BATCH, steps)) < 0.1


def survives(reset, reverse):
    """Whether the state that enters position t is kept: forward it dies where t starts, reverse where t + 1 starts."""
    cut = np.concatenate([reset[:, 1:], np.zeros((BATCH, 1), bool)], axis=1) if reverse else reset
    return 1.0 - cut


def loop_numpy(xs, h0, reset, reverse=False):
    xs, s, keep = [np.float64(x) for x in xs], np.float64(h0), survives(reset, reverse)
    outputs = np.zeros(xs[2].shape)
    order = range(xs[0].shape[1])
    for t in reversed(order) if reverse else order:
        s, outputs[:, t] = step(np, s * keep[:, t, None, None, None], [x[:, t] for x in xs])
    return outputs, s


def reference_gradients(xs, h0, reset, reverse, cotangents):
    def turn(x):
        return x[:, ::-1] if reverse else x

    def run(xs, h0):
        def advance(s, now):
            return step(jnp, s * now[1][:, None, None, None], now[0])

        inputs = jax.tree.map(lambda x: jnp.moveaxis(turn(x), 1, 0), (tuple(xs), jnp.asarray(survives(reset, reverse))))
        s, o = lax.scan(advance, h0, inputs)
        return turn(jnp.moveaxis(o, 0, 1)), s

    with jax.enable_x64(True):
        xs, h0, cotangents = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (xs, h0, cotangents))
        gradients = compile_quickly(lambda xs, h0, c: jax.vjp(run, xs, h0)[1](c))(xs, h0, cotangents)
        return jax.tree.map(np.asarray, gradients)


@functools.cache
def compile_scan(method, reverse=False):
    @compile_quickly
    def run(xs, h0, reset, cotangents):
        scan = functools.partial(scan_dplr, reset=reset, method=method, reverse=reverse)
        outputs, pull_back = jax.vjp(lambda xs, h0: scan(*xs, h0=h0), xs, h0)
        return outputs, pull_back(cotangents)

    return run


def assert_near(actual, expected, tolerance=TOLERANCE):
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(np.float64(x), y, rtol=0, atol=tolerance * np.abs(y).max())


def check(method, xs, h0, reset, reverse=False, tolerance=TOLERANCE):
    expected = loop_numpy(xs, h0, reset, reverse)
    rng = np.random.default_rng(1)
    cotangents = jax.tree.map(lambda y: np.float32(rng.normal(size=y.shape)), expected)
    outputs, gradients = compile_scan(method, reverse)(xs, h0, reset, cotangents)
    assert_near(outputs, expected, tolerance)
    assert_near(gradients, reference_gradients(xs, h0, reset, reverse, cotangents), tolerance)


@pytest.mark.parametrize(("steps", "reverse"), [(1, False), (32, False), (70, False), (70, True)])
@pytest.mark.parametrize("method", dplr.METHODS)
def test_values_and_all_gradients_equal_the_references(method, steps, reverse):
    check(method, *make_case(steps), reverse)


@pytest.mark.parametrize("method", dplr.METHODS)
def test_decays_between_none_and_total_equal_the_references(method):
    xs, h0, reset = make_case(70)
    log_w = np.float32(np.random.default_rng(2).choice([0.0, -1e-6, -1.0, -30.0, -1e4], xs[3].shape))
    check(method, (*xs[:3], log_w, *xs[4:]), h0, reset)


@pytest.mark.parametrize("method", dplr.METHODS)
def test_state_and_reset_are_optional(method):
    xs, h0, reset = make_case(70)
    outputs = compile_quickly(functools.partial(scan_dplr, method=method))(*xs)
    assert_near(outputs, loop_numpy(xs, np.zeros_like(h0), np.zeros_like(reset)))


@pytest.mark.parametrize("method", dplr.METHODS)
def test_is_exact_on_integers_with_reflections_projections_and_identities(method):
    rng = np.random.default_rng(3)
    xs, _, reset = make_case(70)
    b = np.eye(KEY)[rng.integers(0, KEY, xs[5].shape[:3])]
    a = -b * rng.integers(0, 3, (*b.shape[:3], 1))
    integers = [rng.integers(-3, 4, x.shape) for x in xs[:3]]
    xs = tuple(np.float32(x) for x in (*integers, np.zeros_like(b), a, b))
    h0 = np.float32(rng.integers(-9, 10, (BATCH, HEADS, KEY, VALUE)))
    outputs = compile_quickly(functools.partial(scan_dplr, method=method))(*xs, h0=h0, reset=reset)
    for ours, expected in zip(outputs, loop_numpy(xs, h0, reset), strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("method", dplr.METHODS)
def test_bfloat16_inputs_are_computed_in_float32(method):
    xs, h0, reset = jax.tree.map(jnp.asarray, make_case(20))
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), xs)
    outputs = compile_quickly(functools.partial(scan_dplr, method=method))(*low, h0=h0, reset=reset)
    assert all(x.dtype == jnp.float32 for x in outputs)
    assert_near(outputs, loop_numpy([x.astype(jnp.float32) for x in low], h0, np.asarray(reset)))


@pytest.mark.parametrize(("platform", "method"), [("cpu", "sequential"), ("gpu", "chunked"), ("tpu", "chunked")])
def test_auto_takes_the_loop_on_a_cpu_and_chunks_elsewhere(monkeypatch, platform, method):
    xs, _, _ = make_case(2)
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    trace = jax.make_jaxpr(lambda *xs: scan_dplr(*xs))(*xs)  # a new function each time: traces are kept by function
    assert ("triangular_solve" in str(trace)) == (method == "chunked")


def test_unknown_method_is_refused_by_name():
    xs, _, _ = jax.tree.map(jnp.asarray, make_case(2))
    with pytest.raises(ValueError, match="'chunky' is not one of auto, sequential, chunked"):
        scan_dplr(*xs, method="chunky")
