"""What is compiled: one program for one run, or for many runs that differ in seeds and float fields only."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lrnn_jax.config.checks import validate_config
from lrnn_jax.config.durations import interval_steps, train_steps
from lrnn_jax.config.identity import structure_key, traced_values, with_values
from lrnn_jax.errors import UserError, suggest
from lrnn_jax.registry import build_model, build_task, load_layer
from lrnn_jax.tasks.base import Batch, FileTask, Sums
from lrnn_jax.training.feeding import Feed
from lrnn_jax.training.optimizer import Group, assign_groups, make_optimizer, make_schedule, parameter_paths
from lrnn_jax.training.steps import (
    STREAMS,
    Trainable,
    TrainState,
    Tree,
    check_finite,
    init_state,
    init_variables,
    run_bucket,
    run_steps,
)

Values = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Blueprint:
    """A `Trainable` but for the values of the traced config fields: equal blueprints share their compiled programs.

    Attributes:
      key: what distinguishes it: everything in the config that shapes the program, and the classes of task and layer.
      traced: names of the traced fields.
      build: makes the trainable from the traced values, inside or outside of a compiled function.
    """

    key: tuple[Any, ...]
    traced: tuple[str, ...]
    build: Callable[[Mapping[str, Any]], Trainable] = dataclasses.field(compare=False)


class Measured(NamedTuple):
    """One member's evaluation.

    Attributes:
      metrics: means by name, per length bucket and over the headline lengths.
      curves: means by position of each length bucket, of what the task has curves of; None where nothing was weighed.
    """

    metrics: dict[str, float]
    curves: dict[str, list[float | None]]


@dataclasses.dataclass
class Program:
    """Everything made from the configs alone, before any step is taken.

    Attributes:
      configs: one per member, resolved and validated; they differ in traced fields only.
      blueprint: what to compile.
      values: the traced fields: scalars for one member, else ``[S]``.
      groups: parameter groups.
      total: optimiser steps.
      every: optimiser steps between logs, validations and checkpoints.
      per_dispatch: optimiser steps inside one compiled call: the most, up to the config's, that divides all of ``every``.
      feed: reads the batches of a file task; None where they are made inside the compiled calls.
    """

    configs: list[ConfigDict]
    blueprint: Blueprint
    values: Values
    groups: list[Group]
    total: int
    every: dict[str, int]
    per_dispatch: int
    feed: Feed | None = None

    @property
    def config(self) -> ConfigDict:
        """The first member's config; the others have the same fields but for the traced ones."""
        return self.configs[0]

    @property
    def members(self) -> int:
        """S, the number of runs."""
        return len(self.configs)

    def trainable(self, member: int = 0) -> Trainable:
        """Returns one member's trainable with its own values."""
        return self.blueprint.build(traced_values(self.configs[member]))

    @property
    def state_shapes(self) -> TrainState:
        """Shapes and dtypes of the training state, with a leading axis S where there are several members."""
        return _state_shapes(self.blueprint, self.members)

    def init(self) -> TrainState:
        """Returns the state before the first step."""
        return _compile_init(self.blueprint, self.members)(self.values)

    def advance(self, state: TrainState, steps: int, *, start: int) -> tuple[TrainState, Sums]:
        """Takes ``steps`` optimiser steps in one compiled call; ``state``, ``start`` steps old, is given away."""
        run = self._compiled_steps(steps)
        if self.feed is None:
            return run(state, self.values, None)
        following = min(self.per_dispatch, max(0, self.total - start - steps))
        return run(state, self.values, self.feed.take(start, steps, following=following))

    def batch_at(self, member: int, step: int) -> Batch | None:
        """Returns one member's training batch of a step where it is read from files."""
        return self.feed.batch_at(member, step) if self.feed else None

    def _compiled_steps(self, steps: int) -> Any:
        return compile_steps(self.blueprint, self.members, steps, self.feed.shape(steps) if self.feed else None)

    def evaluate(self, params: Tree, batch_stats: Tree, stream: str) -> list[Measured]:
        """Returns each member's metrics per length bucket (``accuracy/40-64``) and over the headline lengths (``accuracy``).

        The headline weighs each bucket by the lengths it spans: lengths are uniform over the whole range.
        """
        settings = self.config.eval
        low, high = settings.headline
        derive = self.trainable().task.derive
        metrics: list[dict[str, float]] = [{} for _ in range(self.members)]
        curves: list[dict[str, list[float | None]]] = [{} for _ in range(self.members)]
        parts: list[dict[str, list[tuple[float, int]]]] = [{} for _ in range(self.members)]
        for shortest, longest in settings.lengths:
            given = self.feed.evaluation(stream, (shortest, longest)) if self.feed else None
            run = self._compiled_bucket((shortest, longest), given)
            sums = run(params, batch_stats, self.values, np.int32(STREAMS[stream]), given)
            for member, means in enumerate(member_means(sums, self.members)):
                for name, value in {**means, **derive(means)}.items():
                    if isinstance(value, list):
                        curves[member][f"{name}/{shortest}-{longest}"] = value
                        continue
                    metrics[member][f"{name}/{shortest}-{longest}"] = value
                    if low <= shortest and longest <= high and name in means:
                        parts[member].setdefault(name, []).append((value, longest - shortest + 1))
        for member, headline in enumerate(parts):
            for name, found in headline.items():
                metrics[member][name] = sum(value * span for value, span in found) / sum(span for _, span in found)
            metrics[member] |= derive({name: metrics[member][name] for name in headline})
        return [Measured(*pair) for pair in zip(metrics, curves, strict=True)]

    def find_nonfinite(self, member: int, state: TrainState) -> tuple[bool, list[str]]:
        """Repeats the step that stopped a member; returns whether its loss was finite, and whose gradients were not."""
        batch = self.batch_at(member, int(state.step))
        loss, grads = _compile_check(self.blueprint)(state, take_member(self.values, member, self.members), batch)
        paths = zip(parameter_paths(grads), jax.tree.leaves(grads), strict=True)
        return bool(loss), [path for path, good in paths if not good]

    def records(self) -> dict[str, str]:
        """Returns what each run's folder keeps beside its config (`lrnn_jax.tasks.base.Task.records`)."""
        return self.trainable().task.records()

    def memory(self) -> int:
        """Returns the bytes that the largest compiled call needs, by the compiler's own account, and copies of the state."""
        shortest, longest = max(self.config.eval.lengths, key=lambda bucket: bucket[1])
        given = self.feed.evaluation("validation", (shortest, longest)) if self.feed else None
        calls = (self._compiled_steps(self.per_dispatch), self._compiled_bucket((shortest, longest), given))
        # a checkpoint copies the state, and the best parameters are kept beside it
        copies = 2 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.state_shapes))
        return max(_bytes_needed(call) for call in calls) + copies

    def _compiled_bucket(self, bucket: tuple[int, int], given: Batch | None) -> Any:
        shape = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), given)
        return compile_bucket(self.blueprint, self.members, bucket, *_batches(self.config.eval), shape)


def make_program(*configs: ConfigDict) -> Program:
    """Validates the configs and builds task, model, parameter groups and optimiser; compiles nothing.

    Args:
      *configs: one per member; equal but for seeds and float fields that `lrnn_jax.config.traced_values` names.

    Raises:
      UserError: a config cannot run.
    """
    for config in configs:
        validate_config(config)
    config = configs[0]
    if len({structure_key(c) for c in configs}) > 1:
        raise ValueError("these configs cannot share a program")
    task = build_task(config.task)
    total = train_steps(config)
    every = {section: interval_steps(config, f"{section}.every") for section in ("log", "eval", "checkpoint")}
    warmup = interval_steps(config, "optim.warmup", least=0)
    params = jax.eval_shape(lambda: init_variables(build_model(config.model, task), 0))["params"]
    layer = load_layer(config.model.layer.name)
    groups = assign_groups(
        params,
        config_rules=config.optim.groups,
        layer_name=layer.__name__,
        layer_rules=layer.PARAM_GROUPS,
        backbone_rules=build_model(config.model, task).PARAM_GROUPS,
    )

    def build(values: Mapping[str, Any]) -> Trainable:
        own = with_values(config, values)
        schedule = make_schedule(own.optim, warmup_steps=warmup, total_steps=total)
        optimizer = make_optimizer(own.optim, params, groups, schedule)
        length, parts = tuple(config.train.length), config.train.microbatches
        return Trainable(task, build_model(own.model, task), optimizer, config.train.batch_size, length, parts)

    key = (structure_key(config), task, layer)
    values = [traced_values(c) for c in configs]
    stacked = {name: _stack(name, [v[name] for v in values]) for name in values[0]}
    blueprint = Blueprint(key, tuple(stacked), build)
    feed = Feed(task, configs) if isinstance(task, FileTask) else None
    program = Program(list(configs), blueprint, stacked, groups, total, every, _steps_per_dispatch(config, every), feed)
    _check_best_metric(program)
    return program


def metric_names(program: Program) -> list[str]:
    """Returns the names of everything that `Program.evaluate` measures, from shapes alone."""
    trainable = program.trainable()
    make = functools.partial(trainable.task.batch, size=1, length=trainable.length)
    names = trainable.metric_names(program.batch_at(0, 0) or jax.eval_shape(make, jax.random.key(0)))
    return [*names, *(f"{name}/{low}-{high}" for name in names for low, high in program.config.eval.lengths)]


def member_means(sums: Sums, members: int) -> list[dict[str, Any]]:
    """Returns each member's means: floats of scalar sums and weights, lists of vectors, where None stands for no weight.

    Several members are stacked.
    """
    host = {name: [np.asarray(x) for x in pair] for name, pair in sums.items()}
    if members == 1:
        host = {name: [x[None] for x in pair] for name, pair in host.items()}
    return [{name: _mean(total[i], weight[i]) for name, (total, weight) in host.items()} for i in range(members)]


def _mean(total: np.ndarray, weight: np.ndarray) -> Any:
    mean = (total / np.maximum(weight, 1e-30)).tolist()
    return [value if some else None for value, some in zip(mean, weight, strict=True)] if weight.ndim else mean


def take_member(tree: Tree, member: int, members: int) -> Tree:
    """Returns one member's part of a tree, which for a single member is the tree."""
    return tree if members == 1 else jax.tree.map(lambda x: x[member], tree)


@functools.cache
def compile_steps(blueprint: Blueprint, members: int, steps: int, batches: Batch | None = None) -> Any:
    """Returns the compiled ``(state, values, batches) -> (state, sums)``; the state is given away.

    ``batches`` are the shapes of what a file task reads; None where each batch is made inside.
    """

    def train(values: Values, state: TrainState, batches: Batch | None) -> tuple[TrainState, Sums]:
        return run_steps(blueprint.build(values), state, values["seed"], steps, batches)

    function = jax.jit(lambda state, values, batches: _over_members(train, values, state, batches), donate_argnums=0)
    return function.lower(_state_shapes(blueprint, members), _value_shapes(blueprint, members), batches).compile()


@functools.cache
def compile_bucket(
    blueprint: Blueprint,
    members: int,
    bucket: tuple[int, int],
    batches: int,
    batch_size: int,
    given: Batch | None = None,
) -> Any:
    """Returns the compiled ``(params, batch_stats, values, stream, given) -> sums``; ``given`` as in `compile_steps`."""

    def evaluate(values: Values, params: Tree, batch_stats: Tree, stream: jax.Array, given: Batch | None) -> Sums:
        key = jax.random.fold_in(jax.random.key(values["seed"]), stream)
        return run_bucket(blueprint.build(values), params, batch_stats, key, bucket, batches, batch_size, given)

    def function(params: Tree, batch_stats: Tree, values: Values, stream: jax.Array, given: Batch | None) -> Sums:
        # all members are measured on the same given batches
        return _over_members(functools.partial(evaluate, stream=stream, given=given), values, params, batch_stats)

    state = _state_shapes(blueprint, members)
    stream = jax.ShapeDtypeStruct((), jnp.int32)
    shapes = _value_shapes(blueprint, members)
    return jax.jit(function).lower(state.params, state.batch_stats, shapes, stream, given).compile()


@functools.cache
def _compile_check(blueprint: Blueprint) -> Any:
    """Compiled once for all members: in a wide sweep many may die."""

    def check(state: TrainState, values: Values, batch: Batch | None) -> tuple[jax.Array, Tree]:
        trainable, seed = blueprint.build(values), values["seed"]
        made = trainable.batch_at(seed, state.step) if batch is None else batch
        return check_finite(trainable, state, seed, made)

    return jax.jit(check)


def _over_members(function: Callable[..., Any], values: Values, *trees: Tree) -> Any:
    """A single run has no leading axis: vmap over one member would only slow it down."""
    return jax.vmap(function)(values, *trees) if values["seed"].ndim else function(values, *trees)


def _initialise(blueprint: Blueprint, values: Values) -> TrainState:
    def one(values: Values) -> TrainState:
        trainable = blueprint.build(values)
        return init_state(trainable.model, trainable.optimizer, values["seed"])

    return _over_members(one, values)


@functools.cache
def _compile_init(blueprint: Blueprint, members: int) -> Any:
    return jax.jit(functools.partial(_initialise, blueprint)).lower(_value_shapes(blueprint, members)).compile()


@functools.cache
def _state_shapes(blueprint: Blueprint, members: int) -> TrainState:
    return jax.eval_shape(functools.partial(_initialise, blueprint), _value_shapes(blueprint, members))


def _value_shapes(blueprint: Blueprint, members: int) -> dict[str, Any]:
    shape = () if members == 1 else (members,)
    return {name: jax.ShapeDtypeStruct(shape, _dtype(name)) for name in blueprint.traced}


def _dtype(name: str) -> Any:
    return jnp.uint32 if name == "seed" else jnp.float32


def _stack(name: str, numbers: Sequence[float]) -> jax.Array:
    return jnp.asarray(numbers[0] if len(numbers) == 1 else numbers, _dtype(name))


def _batches(settings: ConfigDict) -> tuple[int, int]:
    """Batches per bucket and their size; the config's check made sure that they come out even."""
    size = min(settings.batch_size, settings.examples)
    return settings.examples // size, size


def _steps_per_dispatch(config: ConfigDict, every: Mapping[str, int]) -> int:
    """A dispatch ends wherever a log, validation or checkpoint is due."""
    common = math.gcd(*every.values())
    return max(n for n in range(1, min(config.train.steps_per_dispatch, common) + 1) if common % n == 0)


def _bytes_needed(compiled: Any) -> int:
    account = compiled.memory_analysis()
    sizes = (account.argument_size_in_bytes, account.output_size_in_bytes, account.temp_size_in_bytes)
    return sum(sizes) - account.alias_size_in_bytes


def _check_best_metric(program: Program) -> None:
    name = program.config.eval.best_metric
    names = metric_names(program) if name else []
    if name and name not in names:
        raise UserError(f"eval.best_metric={name!r} is not one of {', '.join(names)}{suggest(name, names)}")
