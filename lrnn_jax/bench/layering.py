"""`lrnn bench layer` and `lrnn bench decode`: whole layers, over a sequence and token by token."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from lrnn_jax.bench.grids import Grid, Point, Row
from lrnn_jax.bench.measuring import Candidate, prepare, take_turns
from lrnn_jax.bench.scanning import find_auto
from lrnn_jax.errors import UserError
from lrnn_jax.parts.layer import RecurrentLayer
from lrnn_jax.registry import load_layer

Tree = Any

# The fields that --block_size sets, and those that follow so that the state keeps as many numbers as the width.
BLOCK_FIELDS = {"block_size": "blocks", "order": "channels"}


def own_blocks(names: tuple[str, ...]) -> dict[str, int | None]:
    """Returns the default block size or order of each layer, None where it has neither."""
    sizes = {name: _block_fields(name) for name in names}
    return {name: getattr(load_layer(name), size[0]) if size else None for name, size in sizes.items()}


def _block_fields(name: str) -> tuple[str, str] | None:
    """The layer's fields for the size of a block and their number; None where it has no such two."""
    fields = {field.name for field in dataclasses.fields(load_layer(name))}
    return next((pair for pair in BLOCK_FIELDS.items() if fields.issuperset(pair)), None)


def make_layer(point: Point) -> RecurrentLayer:
    """Returns the layer of a point with its default fields; blocks and channels are as many as make a state of the width."""
    cls = load_layer(point.what)
    fields: dict[str, Any] = {"width": point.width, "dtype": jnp.dtype(point.dtype)}
    if (pair := _block_fields(point.what)) and point.block_size is not None:
        size, count = pair
        if point.width % point.block_size:
            raise UserError(f"--block_size={point.block_size} does not divide --width={point.width}, as {point.what} needs it")
        fields |= {size: point.block_size, count: point.width // point.block_size}
    return cls(**fields)


def bench_layers(grid: Grid) -> Iterator[list[Row]]:
    """Checks all points, then returns every method of a layer at one after the other.

    Raises:
      UserError: fields that do not fit together, or a method that a layer does not have.
    """
    points = list(grid.points(own_blocks(grid.names)))
    for point in points:
        layer = make_layer(point)
        for method in grid.methods:
            if method not in layer.METHODS:
                raise UserError(f"--method={method!r} is not one of {', '.join(layer.METHODS)}, which {point.what} has")
    return (_measure_layer(point, grid.methods, grid.rounds) for point in points)


def _measure_layer(point: Point, methods: tuple[str, ...], rounds: int) -> list[Row]:
    layer = make_layer(point)
    x = jax.random.normal(jax.random.key(1), (point.batch, point.length, point.width), layer.dtype)
    variables = jax.jit(layer.init)(jax.random.key(0), x[:, :1])
    candidates = {name: prepare(_program(layer, name, point), (variables, x)) for name in methods or layer.METHODS}
    chosen = find_auto(candidates, jax.jit(_program(layer, "auto", point)).lower(variables, x))
    if chosen is None:
        candidates["auto"], chosen = prepare(_program(layer, "auto", point), (variables, x)), "auto"
    timed = take_turns(candidates, rounds)
    return [Row(point, name, "auto" if name == chosen else "method", timed[name]) for name in candidates]


def _program(layer: RecurrentLayer, method: str, point: Point) -> Callable[[Tree, jax.Array], Tree]:
    def run(variables: Tree, x: jax.Array) -> jax.Array:
        return layer.apply(variables, x, scan=method)[0]

    def compute_loss(variables: Tree, x: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(run(variables, x).astype(jnp.float32)))

    return run if point.passes == "forward" else jax.grad(compute_loss, argnums=(0, 1))


def bench_decoding(grid: Grid) -> Iterator[list[Row]]:
    """Checks all points, then measures at each a layer's call with T = 1 and a state, ``length`` times inside one program.

    Raises:
      UserError: fields that do not fit together, or a layer that does not decode.
    """
    points = list(grid.points(own_blocks(grid.names)))
    for point in points:
        if not make_layer(point).causal:
            raise UserError(f"{point.what} is not causal and does not decode")
    return (_measure_decoding(point, grid.rounds) for point in points)


def _measure_decoding(point: Point, rounds: int) -> list[Row]:
    timed = take_turns({"": prepare_decoding(point)}, rounds)[""]
    # of the bytes that a program moves, those of a token are not known: parameters may stay in a cache
    return [Row(point, "decode", "auto", timed._replace(moved=None))]


def prepare_decoding(point: Point) -> Candidate:
    """Compiles the decoding of ``length`` tokens of every row; times are those of one token."""
    layer = make_layer(point)
    x = jax.random.normal(jax.random.key(1), (point.length, point.batch, 1, point.width), layer.dtype)
    variables = jax.jit(layer.init)(jax.random.key(0), x[0])

    def decode(variables: Tree, state: Tree, x: jax.Array) -> tuple[Tree, jax.Array]:
        def step(state: Tree, now: jax.Array) -> tuple[Tree, jax.Array]:
            y, state = layer.apply(variables, now, state=state)
            return state, y

        return jax.lax.scan(step, state, x)

    return prepare(decode, (variables, layer.init_state(point.batch), x), repeats=point.length)
