"""The scans that ours are compared with, written as the papers' own listings write them, with gradients by JAX."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lrnn_jax.bench.cases import Case
from lrnn_jax.scans.pairs import Pair, multiply

Tree = Any


class Peer(NamedTuple):
    """Another way to the same outputs.

    Attributes:
      run: ``(constants, xs) -> ys``.
      is_complex: it takes and returns complex64 arrays where ours take and return (real, imaginary) pairs; they are converted
        outside of what is timed.
    """

    run: Callable[[Tree, Tree], Tree]
    is_complex: bool = False


def list_peers(family: str, case: Case) -> dict[str, Peer]:
    """Returns the peers of a family by name, the one that ratios are about first."""
    loop = {"lax.scan": Peer(functools.partial(scan_naively, case))}
    first = {
        "diagonal": {"associative_scan": Peer(scan_real)},
        "diagonal_complex": {
            "complex64 associative_scan": Peer(scan_complex64, is_complex=True),
            "time-major loop": Peer(scan_time_major),
        },
        "blocks": {"einsum associative_scan": Peer(scan_einsum)},
        "time_invariant": {"complex64 associative_scan": Peer(scan_states_complex64)},
        "companion": {"dense associative_scan": Peer(scan_dense_companion)},
    }
    return {**first.get(family, {}), **loop}


def scan_real(_: Tree, xs: Tree) -> jax.Array:
    """The real diagonal recurrence by `lax.associative_scan`."""
    a, b = (x.astype(jnp.float32) for x in xs)
    return lax.associative_scan(lambda x, y: (x[0] * y[0], y[0] * x[1] + y[1]), (a, b), axis=1)[1]


def scan_complex64(lam: jax.Array, b: jax.Array) -> jax.Array:
    """The LRU's, as minimal-LRU and S5 write it: one row at a time under vmap, the eigenvalues repeated over time."""

    def compose(x: tuple[jax.Array, jax.Array], y: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return y[0] * x[0], y[0] * x[1] + y[1]

    repeated = jnp.repeat(lam[None, ...], b.shape[1], axis=0)
    return jax.vmap(lambda row: lax.associative_scan(compose, (repeated, row))[1])(b)


def scan_time_major(lam: Pair, b: Pair) -> Pair:
    """The LRU's, by a loop over time-major arrays whose reverse loop gives both gradients: the best plain form for a CPU."""
    lam, b = jax.tree.map(lambda x: x.astype(jnp.float32), (lam, b))
    h = _loop_over_time((lam[0][None], lam[1][None]), (jnp.swapaxes(b[0], 0, 1), jnp.swapaxes(b[1], 0, 1)))
    return jnp.swapaxes(h[0], 0, 1), jnp.swapaxes(h[1], 0, 1)


@jax.custom_vjp
def _loop_over_time(lam: Pair, b: Pair) -> Pair:
    def advance(h: Pair, now: Pair) -> tuple[Pair, Pair]:
        h = jax.tree.map(jnp.add, multiply(lam, h), now)
        return h, h

    return lax.scan(advance, (jnp.zeros_like(b[0][0]), jnp.zeros_like(b[1][0])), b)[1]


def _loop_forward(lam: Pair, b: Pair) -> tuple[Pair, tuple[Pair, Pair]]:
    h = _loop_over_time(lam, b)
    return h, (lam, h)


def _loop_backward(kept: tuple[Pair, Pair], dh: Pair) -> tuple[Pair, Pair]:
    lam, h = kept
    start = (jnp.zeros_like(h[0][:1]), jnp.zeros_like(h[1][:1]))
    before = jax.tree.map(lambda first, each: jnp.concatenate([first, each[:-1]]), start, h)

    def retreat(carry: tuple[Pair, Pair], now: tuple[Pair, Pair]) -> tuple[tuple[Pair, Pair], Pair]:
        g, total = carry
        last, own = now
        g = jax.tree.map(jnp.add, multiply((lam[0], -lam[1]), g), own)
        return (g, jax.tree.map(jnp.add, total, multiply((last[0], -last[1]), g))), g

    zero = (jnp.zeros_like(h[0][0]), jnp.zeros_like(h[1][0]))
    (_, total), db = lax.scan(retreat, (zero, zero), (before, dh), reverse=True)
    return (total[0].sum(0, keepdims=True), total[1].sum(0, keepdims=True)), db


_loop_over_time.defvjp(_loop_forward, _loop_backward)


def scan_states_complex64(abc: Tree, x: jax.Array) -> jax.Array:
    """S4D's recurrence likewise, every state of every channel held and then read out."""
    a, b, c = (lax.complex(re.astype(jnp.float32), im.astype(jnp.float32)) for re, im in abc)
    states = scan_complex64(a, b[None, None] * x.astype(jnp.complex64)[..., None])
    return jnp.sum(c[None, None] * states, axis=-1).real


def scan_einsum(_: Tree, xs: Tree) -> jax.Array:
    """Blocks composed by einsum under `lax.associative_scan`."""
    a, b = (x.astype(jnp.float32) for x in xs)

    def compose(x: tuple[jax.Array, jax.Array], y: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return jnp.einsum("...ij,...jk->...ik", y[0], x[0]), jnp.einsum("...ij,...j->...i", y[0], x[1]) + y[1]

    return lax.associative_scan(compose, (a, b), axis=1)[1]


def scan_dense_companion(_: Tree, xs: Tree) -> jax.Array:
    """A recurrence of order M as blocks of M, which its companion matrices fill."""
    a, b = (x.astype(jnp.float32) for x in xs)
    size = a.shape[-1]
    below = jnp.broadcast_to(jnp.eye(size - 1, size), (*a.shape[:-1], size - 1, size))
    inputs = jnp.pad(b[..., None], [(0, 0)] * b.ndim + [(0, size - 1)])
    return scan_einsum((), (jnp.concatenate([a[..., None, :], below], axis=-2), inputs))


def scan_naively(case: Case, constants: Tree, xs: Tree) -> Tree:
    """One step of the formula after the other in `lax.scan`, time first."""
    constants, xs = jax.tree.map(lambda x: x.astype(jnp.float32), (constants, xs))
    batch = jax.tree.leaves(xs)[0].shape[0]
    shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, case.h0(np.random.default_rng(0), batch)))
    h0 = case.origin(jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes))
    ys = lax.scan(functools.partial(case.step, constants), h0, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), xs))[1]
    return jax.tree.map(lambda y: jnp.swapaxes(y, 0, 1), ys)


def convert(tree: Tree, *, cotangent: bool = False) -> Tree:
    """Turns every (real, imaginary) pair into a complex64 array; JAX's cotangents of complex arrays are the conjugates."""
    sign = -1.0 if cotangent else 1.0
    return jax.tree.map(
        lambda pair: np.complex64(np.asarray(pair[0], np.float32) + sign * 1j * np.asarray(pair[1], np.float32)),
        tree,
        is_leaf=_is_pair,
    )


def convert_back(tree: Tree, *, cotangent: bool = False) -> Tree:
    """The reverse of `convert`."""
    sign = -1.0 if cotangent else 1.0
    return jax.tree.map(lambda z: (np.real(z), sign * np.imag(z)), jax.tree.map(np.asarray, tree))


def _is_pair(tree: Tree) -> bool:
    return isinstance(tree, tuple) and len(tree) == 2 and all(hasattr(x, "dtype") for x in tree)
