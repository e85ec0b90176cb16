"""Gated outer products against a float64 NumPy loop (values) and a float64 `lax.scan` under autodiff (gradients)."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lrnn_jax.scans import outer, scan_gated_outer

BATCH, HEADS, KEYS, VALUES = 2, 4, 3, 5
# Error allowed, relative to the largest entry of the array that is compared; about ten float32 roundings.
TOLERANCE = 3e-6
compile_quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# What a decay may be: anything; ever so near 0 and, beside it, almost 1, where a quotient of products would overflow.
DECAYS = {
    "any": None,
    "strong": [np.exp(-20), -np.exp(-20), 1e-3, 1 - 1e-4],
    "weak": [1 - 1e-6, 1 - 1e-4, -1 + 1e-6],
    "exact": [0, 1, -1],
}
SHAPES = ("rows", "heads")


def make_case(shape, steps, *, groups=HEADS, decays="any", h0=True, reset=True):
    """Returns ((q, k, v, a, h0), reset), float32, the same for the same arguments."""
    rng = np.random.default_rng([zlib.crc32(f"{shape}{decays}".encode()), steps, groups])
    q, k = rng.normal(size=(2, BATCH, steps, groups, KEYS))
    v = rng.normal(size=(BATCH, steps, HEADS, VALUES))
    size = (BATCH, steps, HEADS, KEYS)[: 4 if shape == "rows" else 3]
    a = rng.uniform(-1, 1, size) if DECAYS[decays] is None else rng.choice(DECAYS[decays], size)
    start = rng.normal(size=(BATCH, HEADS, KEYS, VALUES)) if h0 else np.zeros((BATCH, HEADS, KEYS, VALUES))
    flags = rng.random((BATCH, steps)) < 0.2 if reset else np.zeros((BATCH, steps), bool)
    return tuple(np.float32(x) for x in (q, k, v, a, start)), flags


def step(xp, s, x, kept):
    """The formula of the docstring, in NumPy (`xp=np`) or JAX (`xp=jnp`)."""
    q, k, v, a = x
    q, k = (xp.repeat(z, HEADS // z.shape[1], axis=1) for z in (q, k))
    a = a[:, :, None, None] if a.ndim == 2 else a[..., None]
    s = a * s * kept[:, None, None, None] + k[..., :, None] * v[..., None, :]
    return s, xp.einsum("bhkv,bhk->bhv", s, q)


def survival(reset):
    """1 where the state that enters a position is kept, in a forward scan."""
    return 1.0 - reset.astype(np.float64)


def loop_numpy(arrays, reset, reverse):
    """In reverse, the state that enters t comes from t + 1 and dies if t + 1 starts a sequence."""
    *xs, s = (np.float64(x) for x in arrays)
    steps = xs[0].shape[1]
    outputs = [None] * steps
    for t in reversed(range(steps)) if reverse else range(steps):
        start = t + 1 if reverse else t
        kept = survival(reset[:, start]) if start < steps else np.ones(BATCH)
        s, outputs[t] = step(np, s, [x[:, t] for x in xs], kept)
    return np.stack(outputs, axis=1), s


@compile_quickly
def pull_back_reference(arrays, kept, cotangents):
    def run(arrays):
        *xs, h0 = arrays
        sliced = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (xs, kept))
        last, o = lax.scan(lambda s, now: step(jnp, s, *now), h0, sliced)
        return jnp.moveaxis(o, 0, 1), last

    return jax.vjp(run, arrays)[1](cotangents)[0]


def reference_gradients(arrays, reset, reverse, cotangents):
    """A reverse scan is a forward scan of flipped arrays, cut one position later."""

    def turn(x):
        return x[:, ::-1] if reverse else x

    kept = survival(np.concatenate([reset[:, 1:], np.zeros((BATCH, 1), bool)], axis=1) if reverse else reset)
    with jax.enable_x64(True):
        *xs, h0 = (np.float64(x) for x in arrays)
        gradients = pull_back_reference(
            (*map(turn, xs), h0), turn(kept), (turn(np.float64(cotangents[0])), np.float64(cotangents[1]))
        )
        *dxs, dh0 = (np.asarray(x) for x in gradients)
    return (*map(turn, dxs), dh0)


@functools.cache
def compile_scan(method, reverse):
    @compile_quickly
    def run(arrays, reset, cotangents):
        def scan(arrays):
            *xs, h0 = arrays
            return scan_gated_outer(*xs, h0=h0, reset=reset, method=method, reverse=reverse)

        outputs, pull_back = jax.vjp(scan, arrays)
        return outputs, pull_back(cotangents)[0]

    return run


def draw_cotangents(steps):
    rng = np.random.default_rng(steps)
    sizes = (BATCH, steps, HEADS, VALUES), (BATCH, HEADS, KEYS, VALUES)
    return tuple(np.float32(rng.normal(size=size)) for size in sizes)


def assert_near(actual, expected):
    for x, y in zip(actual, expected, strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(np.asarray(x, np.float64), y, rtol=0, atol=TOLERANCE * max(np.abs(y).max(), 1e-30))


def check(method, arrays, reset, reverse=False):
    cotangents = draw_cotangents(reset.shape[1])
    outputs, gradients = compile_scan(method, reverse)(arrays, reset, cotangents)
    assert_near(outputs, loop_numpy(arrays, reset, reverse))
    assert_near(gradients, reference_gradients(arrays, reset, reverse, cotangents))


# 64 positions make a chunk, 512 a block: less than one, a whole one, more, and more than a block.
@pytest.mark.parametrize("steps", [1, 2, 63, 64, 150, 600])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", outer.METHODS)
def test_values_and_all_gradients_equal_the_references(method, shape, steps):
    check(method, *make_case(shape, steps))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", outer.METHODS)
def test_values_and_all_gradients_equal_the_references_in_reverse(method, shape):
    check(method, *make_case(shape, 63), reverse=True)


@pytest.mark.parametrize("decays", ["strong", "weak", "exact"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", outer.METHODS)
def test_extreme_decays_equal_the_references(method, shape, decays):
    check(method, *make_case(shape, 63, decays=decays, reset=False))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", outer.METHODS)
def test_groups_of_heads_share_queries_and_keys(method, shape, groups):
    check(method, *make_case(shape, 21, groups=groups))


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("method", outer.METHODS)
def test_state_and_reset_are_optional(method, reverse):
    arrays, reset = make_case("rows", 21, h0=False, reset=False)
    run = compile_quickly(functools.partial(scan_gated_outer, method=method, reverse=reverse))
    assert_near(run(*arrays[:4]), loop_numpy(arrays, reset, reverse))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", outer.METHODS)
def test_integers_with_decays_0_and_plus_minus_1_are_exact(method, shape):
    rng = np.random.default_rng(0)
    (q, k, v, a, h0), reset = make_case(shape, 300, decays="exact")
    arrays = (*(np.float32(rng.integers(-3, 4, x.shape)) for x in (q, k, v)), a, np.round(9 * h0))
    outputs, _ = compile_scan(method, False)(arrays, reset, draw_cotangents(300))
    for x, y in zip(outputs, loop_numpy(arrays, reset, False), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("method", outer.METHODS)
def test_bfloat16_inputs_are_computed_in_float32(method):
    arrays, reset = make_case("rows", 21)
    low = tuple(jnp.asarray(x, jnp.bfloat16) for x in arrays)
    outputs, gradients = compile_scan(method, False)(low, reset, draw_cotangents(21))
    assert all(x.dtype == jnp.float32 for x in outputs)
    assert all(x.dtype == jnp.bfloat16 for x in gradients)
    assert_near(outputs, loop_numpy(low, reset, False))


@pytest.mark.parametrize("method", outer.METHODS)
def test_vmap_equals_separate_calls(method):
    cases = [make_case("rows", 21, decays=decays) for decays in ("any", "exact")]
    stacked = jax.tree.map(lambda *x: np.stack(x), *cases)
    outputs, gradients = jax.vmap(compile_scan(method, False), in_axes=(0, 0, None))(*stacked, draw_cotangents(21))
    for i, case in enumerate(cases):
        assert_near([x[i] for x in outputs], loop_numpy(*case, False))
        assert_near([x[i] for x in gradients], reference_gradients(*case, False, draw_cotangents(21)))


@pytest.mark.parametrize(
    ("decays", "steps", "platform", "loops"),
    [("rows", 40, "cpu", True), ("heads", 16, "cpu", True), ("heads", 40, "cpu", False), ("heads", 16, "gpu", False)],
)
def test_auto_takes_chunks_where_they_pay(monkeypatch, decays, steps, platform, loops):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    taken, run_blocks = [], outer._run_blocks
    monkeypatch.setattr(outer, "_run_blocks", lambda run, *rest: taken.append(run) or run_blocks(run, *rest))
    arrays, _ = make_case(decays, steps)
    scan_gated_outer(*map(jnp.asarray, arrays[:4]))
    assert taken == [outer._run_steps if loops else outer._run_chunks]


def test_unknown_method_is_refused_by_name():
    arrays, _ = make_case("rows", 2)
    with pytest.raises(ValueError, match="'associative' is not one of auto, sequential, chunked"):
        scan_gated_outer(*map(jnp.asarray, arrays[:4]), method="associative")
