"""`lrnn bench train`: whole training steps, as the trainer runs them, beside their matrix products alone."""

import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lrnn_jax.bench.grids import Grid, Point, Row
from lrnn_jax.bench.layering import make_layer, own_blocks
from lrnn_jax.bench.measuring import Candidate, prepare, take_turns
from lrnn_jax.bench.products import draw_factors, list_products, run_products
from lrnn_jax.config.checks import validate_config
from lrnn_jax.config.fields import base_config, layer_config, set_field, task_config
from lrnn_jax.config.files import load_config
from lrnn_jax.config.identity import split_seeds
from lrnn_jax.registry import load_layer
from lrnn_jax.training.program import Program, compile_steps, make_program
from lrnn_jax.training.steps import stream_key

# One answer per position out of 120, and any number of positions.
TASK, DEPTH, STEPS = "word_problem", 2, 5
PRODUCTS = "its matrix products"


class Steps:
    """A call takes a number of training steps and goes on from there: what `take_turns` calls in place of a program."""

    def __init__(self, program: Program, count: int) -> None:
        self.program, self.count, self.at = program, count, 0
        self.state = jax.block_until_ready(program.init())
        self.compiled = compile_steps(program.step, program.members, program.feed.shape if program.feed else None)

    def __call__(self) -> Any:
        if self.at + self.count > self.program.total:
            self.at = 0
        self.state, sums = self.program.advance(self.state, self.count, start=self.at)
        self.at += self.count
        return sums

    def memory_analysis(self) -> Any:
        """XLA's account of the program."""
        return self.compiled.memory_analysis()


def prepare_steps(program: Program, count: int) -> Candidate:
    """Compiles ``count`` training steps in one call; times are those of one."""
    began = time.perf_counter()
    compile_steps(program.step, program.members, program.feed.shape if program.feed else None)
    return Candidate(Steps(program, count), (), time.perf_counter() - began, repeats=count)


def bench_training(grid: Grid) -> Iterator[list[Row]]:
    """Checks all points, then measures at each a step of two blocks, as the layer's paper has them, and its products alone.

    Raises:
      UserError: fields that do not fit together.
    """
    points = list(grid.points(own_blocks(grid.names)))
    configs = [make_config(point) for point in points]
    return (_measure_training(*pair, grid.rounds) for pair in zip(points, configs, strict=True))


def _measure_training(point: Point, config: ConfigDict, rounds: int) -> list[Row]:
    program = make_program(config)
    candidates = {"step": prepare_steps(program, STEPS), PRODUCTS: prepare_products(program)}
    timed = take_turns(candidates, rounds)
    # of a call of many steps arguments and results say nothing about what moves in one
    step = Row(point, "step", "auto", timed["step"]._replace(moved=None))
    return [step, Row(point, PRODUCTS, "bound", timed[PRODUCTS])]


def bench_configs(specs: Sequence[str], rounds: int) -> Iterator[list[Row]]:
    """Checks all configs ``FILE[:ARG]``, then measures a step of each's training, as many to a call as it says.

    Raises:
      UserError: no such config, or one that cannot run.
    """
    configs = [load_config(spec) for spec in specs]
    for config in configs:
        validate_config(config)
    return (_measure_config(*pair, rounds) for pair in zip(specs, configs, strict=True))


def _measure_config(spec: str, config: ConfigDict, rounds: int) -> list[Row]:
    train, model = config.train, config.model
    point = Point(spec, train.batch_size, train.length[1], model.width, None, model.dtype, "step")
    candidate = prepare_steps(make_program(*split_seeds(config)), train.steps_per_dispatch)
    return [Row(point, "step", "auto", take_turns({"step": candidate}, rounds)["step"]._replace(moved=None))]


def make_config(point: Point) -> ConfigDict:
    """Returns a checked config of two blocks of a layer on rows of one length."""
    layer = make_layer(point)
    own = {field: getattr(layer, field) for field in layer_config(point.what) if field != "name"}
    config = base_config()
    config.task, config.model.layer = task_config(TASK), layer_config(point.what, **own)
    fields: dict[str, Any] = {"model.width": point.width, "model.depth": DEPTH, "model.head": "token"}
    fields |= {f"model.{field}": value for field, value in load_layer(point.what).BLOCK.items()}
    if fields.get("model.mixer") in ("mlp", "swiglu", "geglu"):
        fields.setdefault("model.mixer_hidden", 2 * point.width)
    fields |= {"model.dtype": point.dtype, "train.batch_size": point.batch, "train.length": [point.length, point.length]}
    for field, value in fields.items():
        set_field(config, field, value)
    validate_config(config)
    return config


def prepare_products(program: Program) -> Candidate:
    """Compiles the matrix products of the loss's gradients on random arrays."""
    products = step_products(program)
    return prepare(functools.partial(run_products, products=products), (draw_factors(products),))


def step_products(program: Program) -> list[Any]:
    """Returns the matrix products of one step outside of loops."""
    step, hyper = program.step, program.hyper
    state = program.state_shapes
    batch = jax.eval_shape(lambda: step.batch_at(hyper, jnp.int32(0)))
    dropout = jax.eval_shape(lambda: stream_key(0, "dropout"))
    return list_products(step.value_and_grad, state.params, hyper, state.batch_stats, dropout, batch)
