"""Every scan family as a case: inputs of any size, our scan, and one step as the scan's docstring writes it."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lrnn_jax import scans
from lrnn_jax.scans import attention, blocks, companion, delta, dense, diagonal, dplr, outer, product, selective, time_invariant
from lrnn_jax.scans.method import Serves

Tree = Any
Rng = np.random.Generator


class Sizes(NamedTuple):
    """Sizes of the cases, with the letters of `lrnn_jax.shapes`."""

    width: int  # channels of the diagonal scans, E of the selective one, H M of the block-diagonal one and of higher order
    heads: int  # H
    key: int  # K
    value: int  # V
    states: int  # N of the selective and of the time-invariant scan
    matrix: int  # N of the products of matrices
    window: int  # of attention
    block: int = 4  # M


class Case(NamedTuple):
    """One family, for some `Sizes`.

    Attributes:
      methods: what the scan has, each with what it can take.
      scan: ``(constants, xs, h0, reset, method) -> (ys, h_last)``, ours.
      step: ``(constants, h, x) -> (h, y)``, the formula.
      constants: what every step reads, drawn from a generator.
      xs: ``[B T ...]`` arrays, drawn from a generator for the given (B, T).
      h0: a state, drawn from a generator for the given B.
      origin: the state where a sequence starts, from a state of the same shape.
      exact: products are in full float32; else they follow JAX's default precision, TF32 on a GPU.
    """

    methods: Mapping[str, Serves]
    scan: Callable[..., tuple[Tree, Tree]]
    step: Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]
    constants: Callable[[Rng], Tree]
    xs: Callable[[Rng, tuple[int, int]], Tree]
    h0: Callable[[Rng, int], Tree]
    origin: Callable[[Tree], Tree] = functools.partial(jax.tree.map, jnp.zeros_like)
    exact: bool = True


def run_reference(case: Case, constants: Tree, xs: Tree, h0: Tree, reset: jax.Array) -> tuple[Tree, Tree]:
    """The specification: one step after the other, in the dtype of the arguments."""

    def advance(h: Tree, now: tuple[Tree, jax.Array]) -> tuple[Tree, Tree]:
        x, starts = now
        h = jax.tree.map(lambda new, old: jnp.where(starts.reshape(-1, *[1] * (old.ndim - 1)), new, old), case.origin(h), h)
        return case.step(constants, h, x)

    h, ys = lax.scan(advance, h0, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (xs, reset)))
    return jax.tree.map(lambda y: jnp.moveaxis(y, 0, 1), ys), h


def make_cases(sizes: Sizes) -> dict[str, Case]:
    """Returns every public scan family by name; the delta rule and the outer products with and without what is optional."""
    return {
        "diagonal": Case(
            diagonal.METHODS,
            lambda _, xs, h0, reset, method: scans.scan_diagonal(*xs, h0=h0, reset=reset, method=method),
            lambda _, h, x: (x[0] * h + x[1],) * 2,
            lambda rng: (),
            lambda rng, lead: (rng.uniform(-1, 1, (*lead, sizes.width)), rng.normal(size=(*lead, sizes.width))),
            lambda rng, batch: rng.normal(size=(batch, sizes.width)),
        ),
        "diagonal_complex": Case(
            diagonal.METHODS,
            lambda lam, xs, h0, reset, method: scans.scan_diagonal_complex(lam, xs, h0=h0, reset=reset, method=method),
            _step_complex,
            lambda rng: _polar(rng.uniform(0.5, 0.99, sizes.width), rng.uniform(0, 2 * np.pi, sizes.width)),
            lambda rng, lead: tuple(rng.normal(size=(2, *lead, sizes.width))),
            lambda rng, batch: tuple(rng.normal(size=(2, batch, sizes.width))),
        ),
        "blocks": Case(
            blocks.METHODS,
            lambda _, xs, h0, reset, method: scans.scan_blocks(*xs, h0=h0, reset=reset, method=method),
            lambda _, h, x: (jnp.einsum("bhij,bhj->bhi", x[0], h) + x[1],) * 2,
            lambda rng: (),
            lambda rng, lead: (_draw_rows(sizes, rng, lead, sizes.block), rng.normal(size=(*lead, *_channels(sizes)))),
            lambda rng, batch: rng.normal(size=(batch, *_channels(sizes))),
        ),
        "companion": Case(
            companion.METHODS,
            lambda _, xs, h0, reset, method: scans.scan_companion(*xs, h0=h0, reset=reset, method=method),
            _step_companion,
            lambda rng: (),
            lambda rng, lead: (_draw_rows(sizes, rng, lead), rng.normal(size=(*lead, sizes.width // sizes.block))),
            lambda rng, batch: rng.normal(size=(batch, *_channels(sizes))),
        ),
        "dense": Case(
            dense.METHODS,
            lambda a, b, h0, reset, method: scans.scan_dense(a, b, h0=h0, reset=reset, method=method),
            lambda a, h, b: (jnp.tanh(jnp.einsum("ij,bj->bi", a, h) + b),) * 2,
            lambda rng: rng.normal(size=(sizes.width,) * 2) * sizes.width**-0.5,
            lambda rng, lead: rng.normal(size=(*lead, sizes.width)),
            lambda rng, batch: rng.normal(size=(batch, sizes.width)),
        ),
        "delta_rule": _delta(sizes, writes=1, gated=False),
        "delta_rule_gated": _delta(sizes, writes=1, gated=True),
        "delta_product": _delta(sizes, writes=2, gated=False),
        "delta_product_gated": _delta(sizes, writes=2, gated=True),
        "selective": Case(
            selective.METHODS,
            _scan_selective,
            _step_selective,
            lambda rng: -np.exp(rng.normal(size=(sizes.width, sizes.states))),
            functools.partial(_draw_selective, sizes),
            lambda rng, batch: rng.normal(size=(batch, sizes.width, sizes.states)),
        ),
        "time_invariant": Case(
            time_invariant.METHODS,
            _scan_time_invariant,
            _step_time_invariant,
            functools.partial(_draw_system, sizes),
            lambda rng, lead: rng.normal(size=(*lead, sizes.width)),
            lambda rng, batch: tuple(rng.normal(size=(2, batch, sizes.width, sizes.states))),
        ),
        "gated_outer_rows": _outer(sizes, groups=sizes.heads, per_head=False),
        "gated_outer_heads": _outer(sizes, groups=1, per_head=True),
        "dplr": Case(
            dplr.METHODS,
            lambda _, xs, h0, reset, method: scans.scan_dplr(*xs, h0=h0, reset=reset, method=method),
            _step_dplr,
            lambda rng: (),
            functools.partial(_draw_dplr, sizes),
            functools.partial(_draw_matrix_state, sizes),
        ),
        "product": Case(
            product.METHODS,
            lambda _, a, h0, reset, method: scans.scan_product(a, h0=h0, reset=reset, method=method),
            _step_product,
            lambda rng: (),
            lambda rng, lead: np.eye(sizes.matrix) + 0.5 * sizes.matrix**-0.5 * rng.normal(size=(*lead, *[sizes.matrix] * 2)),
            lambda rng, batch: (rng.normal(size=(batch, *[sizes.matrix] * 2)), rng.normal(size=batch)),
            _start_product,
        ),
        "attention": Case(
            attention.METHODS,
            lambda _, xs, h0, reset, method: scans.scan_attention(*xs, window=sizes.window, h0=h0, reset=reset, method=method),
            functools.partial(_step_attention, sizes.window),
            lambda rng: (),
            lambda rng, lead: tuple(rng.normal(size=(3, *lead, sizes.heads, sizes.key))),
            functools.partial(_draw_cache, sizes),
            exact=False,
        ),
    }


def _polar(radius: np.ndarray, phase: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return radius * np.cos(phase), radius * np.sin(phase)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _draw_matrix_state(sizes: Sizes, rng: Rng, batch: int) -> np.ndarray:
    return rng.normal(size=(batch, sizes.heads, sizes.key, sizes.value))


def _step_complex(lam: Tree, h: Tree, x: Tree) -> tuple[Tree, Tree]:
    re, im = (z[None] for z in lam)
    h = re * h[0] - im * h[1] + x[0], re * h[1] + im * h[0] + x[1]
    return h, h


def _channels(sizes: Sizes) -> tuple[int, int]:
    """H, M."""
    return sizes.width // sizes.block, sizes.block


def _draw_rows(sizes: Sizes, rng: Rng, lead: tuple[int, int], *rows: int) -> np.ndarray:
    """Rows of M gates whose magnitudes add up to less than 1, ``[B T H M]`` or several for each block."""
    channels, size = _channels(sizes)
    return rng.uniform(-1, 1, (*lead, channels, *rows, size)) / size


def _step_companion(_: Tree, s: jax.Array, x: Tree) -> tuple[jax.Array, jax.Array]:
    a, b = x
    s = jnp.concatenate([jnp.sum(a * s, axis=-1, keepdims=True) + b[..., None], s[..., :-1]], axis=-1)
    return s, s


def _delta(sizes: Sizes, *, writes: int, gated: bool) -> Case:
    def scan(_: Tree, xs: Tree, h0: Tree, reset: Tree, method: str) -> tuple[Tree, Tree]:
        *arrays, gate = xs if gated else (*xs, None)
        if writes > 1:
            return scans.scan_delta_product(*arrays, log_gate=gate, h0=h0, reset=reset, method=method)
        q, *rest = arrays
        return scans.scan_delta_rule(q, *(x[:, :, 0] for x in rest), log_gate=gate, h0=h0, reset=reset, method=method)

    def draw(rng: Rng, lead: tuple[int, int]) -> Tree:
        q, k = rng.normal(size=(*lead, sizes.heads, sizes.key)), rng.normal(size=(*lead, writes, sizes.heads, sizes.key))
        v, beta = rng.normal(size=(*lead, writes, sizes.heads, sizes.value)), rng.uniform(0, 2, (*lead, writes, sizes.heads))
        gate = (-rng.exponential(0.1, (*lead, sizes.heads)),) if gated else ()
        return (q * sizes.key**-0.5, _unit(k), v, beta, *gate)

    return Case(delta.METHODS, scan, _step_delta, lambda rng: (), draw, functools.partial(_draw_matrix_state, sizes))


def _step_delta(_: Tree, s: jax.Array, x: Tree) -> tuple[jax.Array, jax.Array]:
    q, k, v, beta, *gate = x
    if gate:
        s = jnp.exp(gate[0])[..., None, None] * s
    for j in range(k.shape[1]):
        error = beta[:, j, :, None] * (v[:, j] - jnp.einsum("bhkv,bhk->bhv", s, k[:, j]))
        s = s + k[:, j, :, :, None] * error[:, :, None]
    return s, jnp.einsum("bhkv,bhk->bhv", s, q)


def _draw_selective(sizes: Sizes, rng: Rng, lead: tuple[int, int]) -> Tree:
    u, dt = rng.normal(size=(*lead, sizes.width)), np.exp(rng.uniform(-4, 0, (*lead, sizes.width)))
    b, c = rng.normal(size=(2, *lead, sizes.states))
    return u, dt, b, c


def _scan_selective(a: Tree, xs: Tree, h0: Tree, reset: Tree, method: str) -> tuple[Tree, Tree]:
    u, dt, b, c = xs
    return scans.scan_selective(u, dt, a, b, c, negative_eigenvalues=True, h0=h0, reset=reset, method=method)


def _step_selective(a: Tree, h: Tree, x: Tree) -> tuple[Tree, Tree]:
    u, dt, b, c = x
    abar = 2 * jnp.exp(dt[:, :, None] * a[None]) - 1
    h = abar * h + (dt * u)[:, :, None] * b[:, None, :]
    return h, jnp.einsum("ben,bn->be", h, c)


def _draw_system(sizes: Sizes, rng: Rng) -> Tree:
    shape = sizes.width, sizes.states
    a = _polar(rng.uniform(0.5, 0.99, shape), rng.uniform(0, 2 * np.pi, shape))
    return a, tuple(rng.normal(size=(2, *shape))), tuple(rng.normal(size=(2, *shape)))


def _scan_time_invariant(abc: Tree, x: jax.Array, h0: Tree, reset: Tree, method: str) -> tuple[Tree, Tree]:
    a, b, c = abc
    return scans.scan_time_invariant(a, b, c, x, h0=h0, reset=reset, method=method)


def _step_time_invariant(abc: Tree, h: Tree, x: jax.Array) -> tuple[Tree, jax.Array]:
    a, b, c = jax.tree.map(lambda z: z[None], abc)
    h = a[0] * h[0] - a[1] * h[1] + b[0] * x[..., None], a[0] * h[1] + a[1] * h[0] + b[1] * x[..., None]
    return h, jnp.sum(c[0] * h[0] - c[1] * h[1], axis=-1)


def _outer(sizes: Sizes, *, groups: int, per_head: bool) -> Case:
    def step(_: Tree, s: Tree, x: Tree) -> tuple[Tree, Tree]:
        q, k, v, a = x
        q, k = (jnp.repeat(z, sizes.heads // groups, axis=1) for z in (q, k))
        s = (a[..., None, None] if per_head else a[..., None]) * s + k[..., :, None] * v[..., None, :]
        return s, jnp.einsum("bhkv,bhk->bhv", s, q)

    def draw(rng: Rng, lead: tuple[int, int]) -> Tree:
        q, k = rng.normal(size=(2, *lead, groups, sizes.key))
        a = rng.uniform(-1, 1, (*lead, sizes.heads, *([] if per_head else [sizes.key])))
        return q, k, rng.normal(size=(*lead, sizes.heads, sizes.value)), a

    return Case(
        outer.METHODS,
        lambda _, xs, h0, reset, method: scans.scan_gated_outer(*xs, h0=h0, reset=reset, method=method),
        step,
        lambda rng: (),
        draw,
        functools.partial(_draw_matrix_state, sizes),
    )


def _draw_dplr(sizes: Sizes, rng: Rng, lead: tuple[int, int]) -> Tree:
    q, k, b, change = rng.normal(size=(4, *lead, sizes.heads, sizes.key))
    v, b = rng.normal(size=(*lead, sizes.heads, sizes.value)), _unit(b)
    a = -b * rng.uniform(0, 1, b.shape) + 0.02 * change
    return q, k, v, -rng.exponential(0.2, k.shape), a, b


def _step_dplr(_: Tree, s: Tree, x: Tree) -> tuple[Tree, Tree]:
    q, k, v, log_w, a, b = x
    read = jnp.einsum("bhk,bhkv->bhv", b, s)
    s = jnp.exp(log_w)[..., None] * s + a[..., None] * read[..., None, :] + k[..., None] * v[..., None, :]
    return s, jnp.einsum("bhkv,bhk->bhv", s, q)


def _start_product(h: Tree) -> Tree:
    size = h[0].shape[-1]
    return jnp.broadcast_to(jnp.eye(size, dtype=h[0].dtype) * size**-0.5, h[0].shape), jnp.full_like(h[1], 0.5 * np.log(size))


def _step_product(_: Tree, h: Tree, a: Tree) -> tuple[Tree, Tree]:
    moved = jnp.einsum("bij,bjk->bik", a, h[0])
    norm = jnp.sqrt(jnp.sum(moved * moved, axis=(-2, -1)))
    h = moved / norm[:, None, None], h[1] + jnp.log(norm)
    return h, h


def _draw_cache(sizes: Sizes, rng: Rng, batch: int) -> Tree:
    k, v = rng.normal(size=(2, batch, sizes.window - 1, sizes.heads, sizes.key))
    return {"k": k, "v": v, "valid": np.ones((batch, sizes.window - 1))}


def _step_attention(window: int, _: Tree, cache: Tree, x: Tree) -> tuple[Tree, Tree]:
    q, k, v = x
    now = {"k": k, "v": v, "valid": jnp.ones(k.shape[0], k.dtype)}
    seen = {name: jnp.concatenate([cache[name], now[name][:, None]], axis=1) for name in now}
    q, k = _rotate(q[:, None], np.array([window - 1]))[:, 0], _rotate(seen["k"], np.arange(window))
    scores = jnp.einsum("bhk,bwhk->bhw", q, k) * q.shape[-1] ** -0.5
    weights = jax.nn.softmax(jnp.where(seen["valid"][:, None] > 0.5, scores, -jnp.inf), axis=-1)
    return {name: past[:, 1:] for name, past in seen.items()}, jnp.einsum("bhw,bwhk->bhk", weights, seen["v"])


def _rotate(x: jax.Array, positions: np.ndarray) -> jax.Array:
    angle = positions[:, None] * attention.BASE ** (-np.arange(0, x.shape[-1], 2) / x.shape[-1])[None]
    cos, sin = (jnp.asarray(f(angle), x.dtype)[None, :, None] for f in (np.cos, np.sin))
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)
