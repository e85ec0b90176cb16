"""`lrnn bench scan`: every method of a family and its peers, forward and with all gradients."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.bench.cases import Case, Sizes, make_cases
from lrnn_jax.bench.grids import Grid, Point, Row
from lrnn_jax.bench.measuring import Candidate, Timed, describe, first_line, hash_program, largest_error, prepare, take_turns
from lrnn_jax.bench.peers import Peer, convert, convert_back, list_peers
from lrnn_jax.errors import UserError

Tree = Any

# Every family's size of a block: M, the order, N of the selective and time-invariant scans and of a product of matrices, else
# K = V of a head.
BLOCKS: dict[str, int | None] = {
    "diagonal": None,
    "diagonal_complex": None,
    "blocks": 4,
    "companion": 4,
    "delta_rule": 64,
    "delta_rule_gated": 64,
    "delta_product": 64,
    "delta_product_gated": 64,
    "selective": 16,
    "time_invariant": 32,
    "gated_outer_rows": 64,
    "gated_outer_heads": 64,
    "dplr": 64,
    "product": 16,
    "attention": 64,
}
# These have N channels or no width at all, not width / block of something.
UNDIVIDED = ("selective", "time_invariant", "product")
WINDOW = 256
# Relative to the largest entry of each array, between two orders of summing up.
TOLERANCE = {"float32": 1e-3, "bfloat16": 3e-2, "float16": 1e-2}


def bench_scans(grid: Grid) -> Iterator[list[Row]]:
    """Checks all points, then returns the rows of one point after the other.

    Raises:
      UserError: a block that does not divide the width, or a method that a family does not have.
    """
    points = list(grid.points(BLOCKS))
    for point in points:
        _check(point, grid.methods)
    return (measure_scan(point, grid.methods, grid.rounds) for point in points)


def make_case(point: Point) -> Case:
    """Returns the family's case with the sizes of a point."""
    block = point.block_size or 1
    heads = max(1, point.width // block)
    sizes = {"heads": heads, "key": block, "value": block, "states": block, "matrix": block, "block": block}
    return make_cases(Sizes(width=point.width, window=WINDOW, **sizes))[point.what]


def draw_arguments(case: Case, batch: int, length: int, dtype: str) -> tuple[Tree, Tree]:
    """Returns (constants, xs) in ``dtype``. A stretch of numbers is repeated over rows and time."""
    rng = np.random.default_rng(0)
    stretch = min(length, 256)
    times = -(-length // stretch)

    def repeat(x: np.ndarray) -> np.ndarray:
        return np.tile(x, (batch, times, *[1] * (x.ndim - 2)))[:, :length]

    constants, xs = case.constants(rng), jax.tree.map(np.float32, case.xs(rng, (1, stretch)))
    return jax.tree.map(lambda x: np.asarray(x, jnp.dtype(dtype)), (constants, jax.tree.map(repeat, xs)))


def make_cotangents(function: Callable[..., Tree], *arguments: Tree) -> Tree:
    """Returns float32 cotangents for a function's outputs."""
    return jax.tree.map(lambda y: np.full(y.shape, 0.5, np.float32), jax.eval_shape(function, *arguments))


def pull_back(function: Callable[..., Tree], constants: Tree, xs: Tree, cotangents: Tree) -> tuple[Tree, tuple[Tree, Tree]]:
    """Returns the outputs and the gradients of constants and inputs."""
    outputs, back = jax.vjp(function, constants, xs)
    return outputs, back(cotangents)


def measure_scan(point: Point, methods: tuple[str, ...], rounds: int) -> list[Row]:
    """Measures the methods of a family, all if none are named, and its peers, which must agree with ours to be timed."""
    case = make_case(point)
    arrays = draw_arguments(case, point.batch, point.length, point.dtype)
    given = (*arrays, make_cotangents(_ours(case, "auto"), *arrays)) if point.passes == "gradients" else arrays
    device = jax.device_put(given)
    tried = methods or tuple(case.methods)
    candidates = {name: prepare(_program(_ours(case, name), point), device) for name in tried}
    chosen = find_auto(candidates, jax.jit(_program(_ours(case, "auto"), point)).lower(*device))
    if chosen is None:
        candidates["auto"], chosen = prepare(_program(_ours(case, "auto"), point), device), "auto"
    peers = list_peers(point.what, case)
    refused: dict[str, Timed] = {}
    for name, peer in peers.items():
        made = _prepare_peer(peer, point, given, device)
        said = "" if not rounds else _disagreement(peer, made, candidates[chosen], point)
        if said:
            refused[name] = describe(made, [], said)
        else:
            candidates[name] = made
    timed = {**take_turns(candidates, rounds), **refused}
    kinds = {name: "peer" if name in peers else "auto" if name == chosen else "method" for name in timed}
    return [Row(point, name, kinds[name], timed[name]) for name in [*candidates, *refused]]


def find_auto(candidates: dict[str, Candidate], auto: Any) -> str | None:
    """Returns the candidate that is the same program as ``auto`` when it is lowered, None if there is none."""
    program = hash_program(auto)
    return next((name for name, candidate in candidates.items() if candidate.program == program), None)


def _ours(case: Case, method: str) -> Callable[[Tree, Tree], Tree]:
    return lambda constants, xs: case.scan(constants, xs, None, None, method)[0]


def _program(run: Callable[[Tree, Tree], Tree], point: Point) -> Callable[..., Tree]:
    return functools.partial(pull_back, run) if point.passes == "gradients" else run


def _prepare_peer(peer: Peer, point: Point, given: tuple[Tree, ...], device: tuple[Tree, ...]) -> Candidate:
    if peer.is_complex:
        constants, xs, *cotangents = given
        given = (convert(constants), convert(xs), *(convert(tree, cotangent=True) for tree in cotangents))
        device = jax.device_put(given)
    return prepare(_program(peer.run, point), device)


def _disagreement(peer: Peer, made: Candidate, ours: Candidate, point: Point) -> str:
    """Says how far a peer's results are from ours, or why it does not run; nothing if they agree."""
    try:
        expected, actual = ours.call(*ours.arguments), made.call(*made.arguments)
    except Exception as error:  # noqa: BLE001 - whatever a device refuses, the others are still to be measured
        return first_line(error)
    if peer.is_complex:
        if point.passes == "gradients":
            actual = convert_back(actual[0]), convert_back(actual[1], cotangent=True)
        else:
            actual = convert_back(actual)
    largest = largest_error(actual, expected)
    return "" if largest <= TOLERANCE[point.dtype] else f"not timed: differs from ours by {largest:.1g}"


def _check(point: Point, methods: tuple[str, ...]) -> None:
    size = point.block_size
    if size and point.what not in UNDIVIDED and point.width % size:
        raise UserError(f"--block_size={size} does not divide --width={point.width}, as {point.what} needs it")
    if point.what == "attention" and size and size % 2:
        raise UserError(f"--block_size={size}: attention rotates pairs of features, so it must be even")
    known = make_case(point).methods
    for method in methods:
        if method not in known:
            raise UserError(f"--method={method!r} is not one of {', '.join(known)}, which {point.what} has")
