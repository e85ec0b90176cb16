"""Every public scan as a recurrence written out: `step` is its docstring's formula, in NumPy (``xp=np``) and in JAX."""

import functools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lrnn_jax import scans
from lrnn_jax.scans import attention, blocks, delta, dense, diagonal, dplr, outer, product, selective, time_invariant

BATCH, HEADS = 2, 2
# Error allowed, relative to the largest entry of the array that is compared; about ten float32 roundings.
TOLERANCE = 3e-6


def zeros_like(h):
    return jax.tree.map(np.zeros_like, h)


def multiply(xp, h, keep):
    return jax.tree.map(lambda z: z * keep.reshape(-1, *[1] * (z.ndim - 1)), h)


class Family(NamedTuple):
    """One scan with one choice of its static arguments; all arrays are passed by name.

    ``constants``, ``xs`` and ``h0`` map a random generator, and ``xs`` also T, to arrays; ``start`` makes the state at the
    start from one like it, ``cut`` puts it where ``keep`` is 0; ``steps`` are a few chunks, the last of them not full.
    """

    scan: Callable
    methods: Any
    steps: int
    step: Callable
    xs: Callable
    h0: Callable
    constants: Callable = lambda rng: {}
    options: dict = {}
    start: Callable = zeros_like
    cut: Callable = multiply
    tolerance: float = TOLERANCE


def step_diagonal(xp, _, h, x):
    h = x["a"] * h + x["b"]
    return h, h


def draw_diagonal(rng, steps):
    return {"a": rng.uniform(-1, 1, (BATCH, steps, 3)), "b": rng.normal(size=(BATCH, steps, 3))}


def step_complex(xp, constants, h, x):
    (re, im), (b_re, b_im) = constants["lam"], x["b"]
    h = re[None] * h[0] - im[None] * h[1] + b_re, re[None] * h[1] + im[None] * h[0] + b_im
    return h, h


def polar(radius, phase):
    return radius * np.cos(phase), radius * np.sin(phase)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def step_delta(xp, _, s, x):
    """Writes are ``[B J H ...]``, or ``[B H ...]`` for the rule with one of them."""
    if "log_gate" in x:
        s = xp.exp(x["log_gate"])[..., None, None] * s
    k, v, beta = (z if x["k"].ndim == 4 else z[:, None] for z in (x["k"], x["v"], x["beta"]))
    identity = xp.eye(k.shape[-1], dtype=k.dtype)[None, None]
    for j in range(k.shape[1]):
        a = identity - beta[:, j, :, None, None] * k[:, j, :, :, None] * k[:, j, :, None, :]
        write = beta[:, j, :, None, None] * k[:, j, :, :, None] * v[:, j, :, None, :]
        s = xp.einsum("bhij,bhjv->bhiv", a, s) + write
    return s, xp.einsum("bhkv,bhk->bhv", s, x["q"])


def draw_delta(writes, has_gate, rng, steps):
    shape = (BATCH, steps, *writes, HEADS)
    xs = {"q": rng.normal(size=(BATCH, steps, HEADS, 4)), "k": unit(rng.normal(size=(*shape, 4)))}
    xs |= {"v": rng.normal(size=(*shape, 3)), "beta": rng.uniform(0, 2, shape)}
    return xs | ({"log_gate": -rng.exponential(0.1, (BATCH, steps, HEADS))} if has_gate else {})


def make_delta(scan, writes, has_gate):
    return Family(
        scan, delta.METHODS, 80, step_delta, functools.partial(draw_delta, writes, has_gate),
        lambda rng: rng.normal(size=(BATCH, HEADS, 4, 3)), tolerance=5e-6,
    )  # fmt: skip


def step_dplr(xp, _, s, x):
    transition = xp.exp(x["log_w"])[..., None] * xp.eye(3, dtype=s.dtype)[None, None]
    transition = transition + x["a"][..., :, None] * x["b"][..., None, :]
    s = xp.einsum("bhij,bhjv->bhiv", transition, s) + x["k"][..., :, None] * x["v"][..., None, :]
    return s, xp.einsum("bhkv,bhk->bhv", s, x["q"])


def draw_dplr(rng, steps):
    q, k, a, b = rng.normal(size=(4, BATCH, steps, HEADS, 3))
    b = unit(b)
    a = -b * rng.uniform(0, 1, a.shape) + 0.1 * a
    v = rng.normal(size=(BATCH, steps, HEADS, 5))
    return {"q": q, "k": k, "v": v, "log_w": -rng.exponential(size=k.shape), "a": a, "b": b}


def step_outer(xp, _, s, x):
    q, k = (xp.repeat(x[name], s.shape[1] // x[name].shape[1], axis=1) for name in "qk")
    a = x["a"][:, :, None, None] if x["a"].ndim == 2 else x["a"][..., None]
    s = a * s + k[..., :, None] * x["v"][..., None, :]
    return s, xp.einsum("bhkv,bhk->bhv", s, q)


def make_outer(groups, gate):
    """Heads are 4; ``gate`` are the axes of a decay behind [B T]."""

    def draw(rng, steps):
        q, k = rng.normal(size=(2, BATCH, steps, groups, 3))
        return {"q": q, "k": k, "v": rng.normal(size=(BATCH, steps, 4, 5)), "a": rng.uniform(-1, 1, (BATCH, steps, *gate))}

    h0 = lambda rng: rng.normal(size=(BATCH, 4, 3, 5))  # noqa: E731 - beside its neighbour
    return Family(scans.scan_gated_outer, outer.METHODS, 150, step_outer, draw, h0)


def step_product(xp, _, h, x):
    matrix = xp.einsum("bij,bjk->bik", x["a"], h[0])
    norm = xp.sqrt(xp.sum(matrix * matrix, axis=(-2, -1)))
    h = matrix / norm[:, None, None], h[1] + xp.log(norm)
    return h, h


def start_product(h):
    identity = np.broadcast_to(np.eye(3), h[0].shape)
    return (identity / np.sqrt(3)).astype(h[0].dtype), np.full_like(h[1], np.log(3) / 2)


def cut_product(xp, h, keep):
    matrix, log_norm = start_product(jax.tree.map(lambda z: np.zeros(z.shape), h))
    return xp.where(keep[:, None, None] > 0, h[0], matrix), xp.where(keep > 0, h[1], log_norm)


def step_blocks(xp, _, h, x):
    h = xp.einsum("bhij,bhj->bhi", x["a"], h) + x["b"]
    return h, h


def make_blocks(size):
    def draw(rng, steps):
        a = rng.uniform(-1, 1, (BATCH, steps, 3, size, size)) / size
        return {"a": a, "b": rng.normal(size=(BATCH, steps, 3, size))}

    return Family(
        scans.scan_blocks, blocks.METHODS, 27, step_blocks, draw, lambda rng: rng.normal(size=(BATCH, 3, size))
    )  # fmt: skip


def step_companion(xp, _, s, x):
    h = xp.sum(x["a"] * s, axis=-1) + x["b"]
    s = xp.concatenate([h[..., None], s[..., :-1]], axis=-1)
    return s, s


def step_observer(xp, _, s, x):
    above = xp.concatenate([s[..., 1:], 0 * s[..., :1]], axis=-1)
    s = x["a"] * s[..., :1] + above + x["b"][..., None] * np.eye(s.shape[-1])[:1, None]
    return s, s


def make_companion(size, observer):
    """The coefficients' magnitudes add up to less than 1."""

    def draw(rng, steps):
        a = rng.uniform(-1, 1, (BATCH, steps, 3, size)) / size
        return {"a": a, "b": rng.normal(size=(BATCH, steps, 3))}

    return Family(
        scans.scan_companion, blocks.METHODS, 27, step_observer if observer else step_companion, draw,
        lambda rng: rng.normal(size=(BATCH, 3, size)), options={"observer": observer},
    )  # fmt: skip


def step_selective(negative, xp, constants, h, x):
    abar = xp.exp(x["dt"][:, :, None] * constants["a"][None])
    abar = 2 * abar - 1 if negative else abar
    h = abar * h + (x["dt"] * x["u"])[:, :, None] * x["b"][:, None, :]
    return h, xp.einsum("ben,bn->be", h, x["c"])


def draw_selective(rng, steps):
    (b, c), shape = rng.normal(size=(2, BATCH, steps, 2)), (BATCH, steps, 3)
    return {"u": rng.normal(size=shape), "dt": np.exp(rng.uniform(-3, 1, shape)), "b": b, "c": c}


def make_selective(negative):
    return Family(
        scans.scan_selective, selective.METHODS, 80, functools.partial(step_selective, negative), draw_selective,
        lambda rng: rng.normal(size=(BATCH, 3, 2)), lambda rng: {"a": -np.exp(rng.normal(size=(3, 2)))},
        {"negative_eigenvalues": negative},
    )  # fmt: skip


def step_dense(activation, xp, constants, h, x):
    h = xp.einsum("ij,bj->bi", constants["a"], h) + x["b"]
    return ({"tanh": xp.tanh(h), "relu": xp.maximum(h, 0), "linear": h}[activation],) * 2


def step_time_invariant(xp, constants, h, x):
    a, b, c = ((re[None], im[None]) for re, im in (constants[name] for name in "abc"))
    u = x["x"][..., None]
    h = a[0] * h[0] - a[1] * h[1] + b[0] * u, a[0] * h[1] + a[1] * h[0] + b[1] * u
    return h, xp.sum(c[0] * h[0] - c[1] * h[1], axis=-1)


def draw_time_invariant(rng):
    b, c = (tuple(rng.normal(size=(2, 3, 4))) for _ in range(2))
    return {"a": polar(rng.uniform(0.5, 0.99, (3, 4)), rng.uniform(0, 2 * np.pi, (3, 4))), "b": b, "c": c}


def step_attention(xp, _, cache, x):
    """Keys are turned by minus their distance to the query, which is not turned."""
    now = {"k": x["k"], "v": x["v"], "valid": xp.ones(x["k"].shape[0], x["k"].dtype)}
    seen = {name: xp.concatenate([cache[name], now[name][:, None]], axis=1) for name in now}
    angle = -np.arange(seen["k"].shape[1])[::-1, None] * 10000.0 ** (-2 * np.arange(2) / 4)
    cos, sin = np.cos(angle)[None, :, None], np.sin(angle)[None, :, None]
    first, second = seen["k"][..., :2], seen["k"][..., 2:]
    keys = xp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)
    scores = xp.where(seen["valid"][:, None] > 0.5, xp.einsum("bhk,bthk->bht", x["q"], keys) / 2, -np.inf)
    weights = xp.exp(scores - scores.max(axis=-1, keepdims=True))
    o = xp.einsum("bht,bthk->bhk", weights / weights.sum(axis=-1, keepdims=True), seen["v"])
    return {name: z[:, 1:] for name, z in seen.items()}, o


def draw_cache(rng):
    k, v = rng.normal(size=(2, BATCH, 19, HEADS, 4))
    return {"k": k, "v": v, "valid": rng.random((BATCH, 19))}


FAMILIES = {
    "diagonal": Family(
        scans.scan_diagonal, diagonal.METHODS, 27, step_diagonal, draw_diagonal, lambda rng: rng.normal(size=(BATCH, 3))
    ),
    **{f"blocks_of_{m}": make_blocks(m) for m in (1, 2, 3, 4)},
    "companion": make_companion(4, False),
    "companion_of_1": make_companion(1, False),
    "observer": make_companion(4, True),
    "complex": Family(
        scans.scan_diagonal_complex, diagonal.METHODS, 27, step_complex,
        lambda rng, steps: {"b": tuple(rng.normal(size=(2, BATCH, steps, 3)))},
        lambda rng: tuple(rng.normal(size=(2, BATCH, 3))),
        lambda rng: {"lam": polar(rng.uniform(0.5, 0.99, 3), rng.uniform(0, 2 * np.pi, 3))},
    ),
    **{
        f"dense_{activation}": Family(
            scans.scan_dense, dense.METHODS, 27, functools.partial(step_dense, activation),
            lambda rng, steps: {"b": rng.normal(size=(BATCH, steps, 3))},
            lambda rng: rng.normal(size=(BATCH, 3)), lambda rng: {"a": 0.4 * rng.normal(size=(3, 3))},
            options={"activation": activation},
        )
        for activation in dense.ACTIVATIONS
    },
    "delta_rule": make_delta(scans.scan_delta_rule, (), False),
    "gated_delta_rule": make_delta(scans.scan_delta_rule, (), True),
    "delta_product": make_delta(scans.scan_delta_product, (3,), False),
    "gated_delta_product": make_delta(scans.scan_delta_product, (2,), True),
    "dplr": Family(
        scans.scan_dplr, dplr.METHODS, 80, step_dplr, draw_dplr, lambda rng: rng.normal(size=(BATCH, HEADS, 3, 5))
    ),
    "outer_rows": make_outer(4, (4, 3)),
    "outer_heads": make_outer(2, (4,)),
    "product": Family(
        scans.scan_product, product.METHODS, 27, step_product,
        lambda rng, steps: {"a": np.eye(3) + 0.3 * rng.normal(size=(BATCH, steps, 3, 3))},
        lambda rng: (rng.normal(size=(BATCH, 3, 3)), rng.normal(size=BATCH)), start=start_product, cut=cut_product,
    ),
    "selective_positive": make_selective(False),
    "selective_negative": make_selective(True),
    "time_invariant": Family(
        scans.scan_time_invariant, time_invariant.METHODS, 150, step_time_invariant,
        lambda rng, steps: {"x": rng.normal(size=(BATCH, steps, 3))},
        lambda rng: tuple(rng.normal(size=(2, BATCH, 3, 4))), draw_time_invariant,
    ),
    "attention": Family(
        scans.scan_attention, attention.METHODS, 40, step_attention,
        lambda rng, steps: dict(zip("qkv", rng.normal(size=(3, BATCH, steps, HEADS, 4)), strict=True)),
        draw_cache, options={"window": 20},
    ),
}  # fmt: skip
EVERY_METHOD = [(name, method) for name, family in FAMILIES.items() for method in family.methods]
WITH_RESETS = [(name, method) for name, method in EVERY_METHOD if FAMILIES[name].methods[method].reset]


def float32(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float32), tree)


def float64(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def make_case(name, steps=None, method=None):
    """Returns (constants, xs, h0, reset), float32, the same for the same arguments; no resets if ``method`` takes none."""
    family = FAMILIES[name]
    steps = family.steps if steps is None else steps
    rng = np.random.default_rng([zlib.crc32(name.encode()), steps])
    arrays = float32((family.constants(rng), family.xs(rng, steps), family.h0(rng)))
    reset = rng.random((BATCH, steps)) < 0.1
    return *arrays, None if method and (name, method) not in WITH_RESETS else reset


def count_steps(xs):
    return jax.tree.leaves(xs)[0].shape[1]


def draw_cotangents(name, steps):
    rng = np.random.default_rng([zlib.crc32(name.encode()), steps, 1])
    constants, xs, h0, _ = make_case(name, 1)
    ys, last = loop_numpy(name, constants, xs, h0)
    return float32(
        (
            jax.tree.map(lambda y: rng.normal(size=(BATCH, steps, *y.shape[2:])), ys),
            jax.tree.map(lambda h: rng.normal(size=h.shape), last),
        )
    )


def survives(reset, reverse):
    """1 where the state that enters a position is kept: forward it dies where t starts, in reverse where t + 1 starts."""
    cut = np.concatenate([reset[:, 1:], np.zeros((BATCH, 1), bool)], axis=1) if reverse else reset
    return 1.0 - cut


def loop_numpy(name, constants, xs, h0=None, reset=None, reverse=False):
    """The specification: one position after the other, in float64."""
    family, steps = FAMILIES[name], count_steps(xs)
    constants, xs = float64(constants), float64(xs)
    h = family.start(float64(family.h0(np.random.default_rng(0)))) if h0 is None else float64(h0)
    keep = None if reset is None else survives(reset, reverse)
    ys = [None] * steps
    for t in reversed(range(steps)) if reverse else range(steps):
        h = h if keep is None else family.cut(np, h, keep[:, t])
        h, ys[t] = family.step(np, constants, h, jax.tree.map(lambda x, t=t: x[:, t], xs))
    return jax.tree.map(lambda *y: np.stack(y, axis=1), *ys), h


@functools.cache
def compile_reference(name):
    """Gradients of the same recurrence by automatic differentiation of a plain `lax.scan`."""
    family = FAMILIES[name]

    def run(constants, xs, h0, keep):
        def advance(h, now):
            return family.step(jnp, constants, family.cut(jnp, h, now[1]), now[0])

        h, ys = lax.scan(advance, h0, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (xs, keep)))
        return jax.tree.map(lambda y: jnp.moveaxis(y, 0, 1), ys), h

    @jax.jit
    def pull_back(constants, xs, h0, keep, cotangents):
        return jax.vjp(lambda *args: run(*args, keep), constants, xs, h0)[1](cotangents)

    return pull_back


def reference_gradients(name, constants, xs, h0, reset, cotangents, reverse=False):
    """Float64 gradients of (constants, xs, h0); a reverse scan is a forward scan of flipped arrays."""

    def turn(tree):
        return jax.tree.map(lambda x: np.flip(x, 1), tree) if reverse else tree

    reset = np.zeros((BATCH, count_steps(xs)), bool) if reset is None else reset
    with jax.enable_x64(True):
        arguments = float64((constants, turn(xs), h0, turn(survives(reset, reverse)), (turn(cotangents[0]), cotangents[1])))
        dconstants, dxs, dh0 = jax.tree.map(np.asarray, compile_reference(name)(*arguments))
    return dconstants, turn(dxs), dh0


def call(name, method, constants, xs, **arguments):
    return FAMILIES[name].scan(**constants, **xs, **FAMILIES[name].options, **arguments, method=method)


def run_scan(name, method, constants, xs, h0, reset, cotangents, **options):
    """Our scan with all its gradients."""

    def scan(constants, xs, h0):
        return call(name, method, constants, xs, h0=h0, reset=reset, **options)

    outputs, pull_back = jax.vjp(scan, constants, xs, h0)
    return outputs, pull_back(cotangents)


@functools.cache
def compile_scan(name, method, **options):
    """`run_scan` as one program for every case of the same size."""
    return jax.jit(functools.partial(run_scan, name, method, **options))


def assert_near(actual, expected, tolerance=TOLERANCE):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(np.float64(x), y, rtol=0, atol=tolerance * max(np.abs(y).max(), 1e-30))
