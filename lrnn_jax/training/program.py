"""What is compiled: one program for one run, or for many runs that differ in seeds and float fields only."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lrnn_jax.config.durations import interval_steps, train_steps
from lrnn_jax.config.identity import structure_key, traced_values
from lrnn_jax.errors import UserError, suggest
from lrnn_jax.models.backbone import Backbone
from lrnn_jax.registry import build_model, build_task, load_layer
from lrnn_jax.runs.weights import check_fit, read_weights
from lrnn_jax.tasks.base import Batch, EvaluationSet, FileTask, Sums, SyntheticTask, Task
from lrnn_jax.training.feeding import Feed
from lrnn_jax.training.measuring import Measured, average
from lrnn_jax.training.memory import refuse_too_large
from lrnn_jax.training.optimizer import AdamW, Group, Hyper, assign_groups, parameter_paths
from lrnn_jax.training.profiling import profiled_steps
from lrnn_jax.training.steps import STREAMS, Part, Place, TrainState, TrainStep, Tree, init_variables, metric_names
from lrnn_jax.training.task_check import check_batches

# Compiled programs that are kept at a time. Each takes memory maps, of which Linux allows a process 65,530; a long sweep would
# use them up.
COMPILED = 24
# Batches of an evaluation set inside one compiled call.
BATCHES_PER_CALL = 64


@dataclasses.dataclass
class Program:
    """Everything made from the configs alone, before any step is taken.

    Attributes:
      configs: one per member, resolved; they differ in hyper-parameters only.
      step: what to compile.
      hyper: the hyper-parameters by path: scalars for one member, else ``[S]``.
      model: with the first member's hyper-parameters, for use outside of the training.
      total: optimiser steps.
      every: optimiser steps between logs, validations and checkpoints.
      sets: what an evaluation measures.
      feed: reads the batches of a file task; None where they are made inside the compiled calls.
    """

    configs: list[ConfigDict]
    step: TrainStep
    hyper: Hyper
    model: Backbone
    total: int
    every: dict[str, int]
    sets: tuple[EvaluationSet, ...]
    feed: Feed | None = None

    @property
    def config(self) -> ConfigDict:
        """The first member's config; the others have the same fields but for the hyper-parameters."""
        return self.configs[0]

    @property
    def task(self) -> Task:
        """The task of all members."""
        return self.step.task

    @property
    def members(self) -> int:
        """S, the number of runs."""
        return len(self.configs)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The parameter groups."""
        return self.step.optimizer.groups

    @property
    def state_shapes(self) -> TrainState:
        """Shapes and dtypes of the training state, with a leading axis S where there are several members."""
        return _state_shapes(self.step, self.members)

    def with_members(self, configs: Sequence[ConfigDict]) -> "Program":
        """Returns the program for other members.

        Raises:
          ValueError: one of them shapes another program.
        """
        _check_shared(self.config, *configs)
        feed = Feed(self.task, configs) if isinstance(self.task, FileTask) else None
        model = build_model(configs[0].model, self.task)
        return dataclasses.replace(self, configs=list(configs), hyper=stack_hyper(configs), model=model, feed=feed)

    def init(self) -> TrainState:
        """Returns the state before the first step, with the parameters that ``train.init_from`` names."""
        state = _compile_init(self.step, self.members)(self.hyper)
        start = self.read_start()
        if start is None:
            return state

        def copy(new: Any, old: jax.Array) -> jax.Array:
            """The state is given away to the first call, and every member has its own."""
            return jnp.array(np.broadcast_to(new, old.shape))

        return state._replace(**jax.tree.map(copy, start, state.variables))

    def read_start(self) -> dict[str, Tree] | None:
        """Returns the parameters and statistics that ``train.init_from`` names, or None where it names none.

        Raises:
          UserError: there are none, or those of another model.
        """
        source = self.config.train.init_from
        if not source:
            return None
        try:
            start = read_weights(Path(source).expanduser()).variables
        except UserError as error:
            raise UserError(f"train.init_from: {error}") from error  # which names the folder
        check_fit(start, _state_shapes(self.step, 1).variables, source=f"train.init_from={source}")
        return start

    def steps_from(self, step: int) -> int:
        """Returns how many steps the next compiled call takes: the config's, or up to where something is due before."""
        due = [n - step % n for n in self.every.values()]
        due += [end - step for end in profiled_steps(self.config.log.profile) if end > step]
        return min(self.config.train.steps_per_dispatch, self.total - step, *due)

    def advance(self, state: TrainState, count: int, *, start: int) -> tuple[TrainState, Sums]:
        """Takes ``count`` optimiser steps in one compiled call; ``state``, ``start`` steps old, is given away."""
        given = None
        if self.feed is not None:
            after = start + count
            following = self.steps_from(after) if after < self.total else 0
            given = self.feed.take(start, count, following=following)
        run = compile_steps(self.step, self.members, self.feed.shape if self.feed else None)
        return run(self.hyper, state, np.int32(count), given)

    def batch_at(self, member: int, step: int) -> Batch | None:
        """Returns one member's training batch of a step where it is read from files."""
        return self.feed.batch_at(member, step) if self.feed else None

    def evaluate(self, params: Tree, batch_stats: Tree, stream: str) -> list[Measured]:
        """Returns each member's metrics per evaluation set (``accuracy/40-64``) and over the headline lengths (``accuracy``).

        The headline weighs each set by the lengths it spans: lengths are uniform over the whole range.
        """
        variables = {"params": params, "batch_stats": batch_stats}
        sums = {each: self._measure(each, variables, stream) for each in self.sets}
        return average(self.task, sums, self.members, tuple(self.config.eval.headline))

    def _measure(self, evaluation_set: EvaluationSet, variables: Tree, stream: str) -> Sums:
        """Streams one set through compiled calls of equally many batches; what is beyond the last example weighs nothing."""
        part, calls, examples = self._part(evaluation_set, stream)
        total: Sums | None = None
        for first in range(0, calls * part.batches, part.batches):
            given = self.feed.evaluation(stream, part, first) if self.feed else None
            run = compile_part(self.step, self.members, part, _shapes(given))
            place = Place(*map(np.int32, (STREAMS[stream], first, examples)))
            sums = run(self.hyper, variables, place, given)
            total = sums if total is None else jax.tree.map(jnp.add, total, sums)
        assert total is not None
        return total

    def _part(self, evaluation_set: EvaluationSet, stream: str) -> tuple[Part, int, int]:
        """Returns what one compiled call works on, how many calls there are, and the examples of the set."""
        examples = self.config.eval.examples
        if self.feed is not None and not examples:
            examples = self.feed.held(stream, evaluation_set)
        size = min(self.config.eval.batch_size, examples)
        batches = -(-examples // size)
        calls = -(-batches // BATCHES_PER_CALL)
        differ = isinstance(self.task, SyntheticTask) and self.task.SPLITS_DIFFER
        return Part(evaluation_set, stream if differ else "test", -(-batches // calls), size), calls, examples

    def find_nonfinite(self, member: int, state: TrainState) -> tuple[bool, list[str]]:
        """Repeats the step that stopped a member; returns whether its loss was finite, and whose gradients were not."""
        batch = self.batch_at(member, int(state.step))
        hyper = take_member(self.hyper, member, self.members)
        loss, grads = _compile_check(self.step)(hyper, state, batch)
        paths = zip(parameter_paths(grads), jax.tree.leaves(grads), strict=True)
        return bool(loss), [path for path, good in paths if not good]

    def records(self) -> dict[str, str]:
        """Returns what each run's folder keeps beside its config (`lrnn_jax.tasks.base.Task.records`)."""
        return self.task.records()

    def memory(self) -> int:
        """Returns the bytes that the largest compiled call needs, by the compiler's own account, and copies of the state."""
        part, _, _ = self._part(max(self.sets, key=lambda each: each.length[1]), "validation")
        given = self.feed.evaluation("validation", part, 0) if self.feed else None
        train = compile_steps(self.step, self.members, self.feed.shape if self.feed else None)
        calls = (train, compile_part(self.step, self.members, part, _shapes(given)))
        # a checkpoint copies the state, and the best parameters are kept beside it
        copies = 2 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.state_shapes))
        return max(bytes_needed(call) for call in calls) + copies


def make_program(*configs: ConfigDict) -> Program:
    """Builds task, model, parameter groups and optimiser; compiles nothing.

    Args:
      *configs: one per member, which `lrnn_jax.config.checks.validate_config` has accepted; they differ in the
        hyper-parameters alone, which `lrnn_jax.config.identity.traced_values` names.

    Raises:
      UserError: what only the task's data or the parameters can show: batches that are not as the task says, groups that
        miss a parameter, an unknown metric.
    """
    config = configs[0]
    _check_shared(*configs)
    task = build_task(config.task)
    if not config.eval.examples and not isinstance(task, FileTask):
        raise UserError("eval.examples=0 takes all that files hold, and this task makes its examples: say how many")
    sets = task.evaluation_sets(config.eval.lengths)
    check_batches(config.task.name, task, config.train.length, sets, min(config.train.batch_size, config.eval.batch_size))
    hyper = stack_hyper(configs)
    model = build_model(config.model, task)
    step = make_step(config, task, model, hyper)
    every = {section: interval_steps(config, f"{section}.every") for section in ("log", "eval", "checkpoint")}
    feed = Feed(task, configs) if isinstance(task, FileTask) else None
    program = Program(list(configs), step, hyper, model, step.optimizer.total_steps, every, sets, feed)
    _check_best_metric(program)
    refuse_too_large(_least_memory(program))
    return program


def _least_memory(program: Program) -> dict[str, int]:
    """What one member's state and gradients take, and one activation of a batch's widest positions."""
    config, model = program.config, program.config.model
    state = _state_shapes(program.step, 1)
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((state, state.params)))
    widest = 4 * max(model.width, program.task.outputs)

    def batch(examples: int, length: int) -> int:
        example = program.task.example_spec(length)
        return examples * example.rows * example.steps * widest

    longest = max(each.length[1] for each in program.sets)
    training = batch(config.train.batch_size // config.train.microbatches, config.train.length[1])
    evaluated = min(config.eval.batch_size, config.eval.examples or config.eval.batch_size)
    fields = f"model.width={model.width}, model.depth={model.depth} and the fields of model.layer"
    return {
        fields: kept,
        f"train.batch_size={config.train.batch_size}, train.length={list(config.train.length)}": training,
        f"eval.batch_size={config.eval.batch_size}, eval.lengths up to {longest}": max(0, batch(evaluated, longest) - training),
    }


def make_step(config: ConfigDict, task: Task, model: Backbone, hyper: Hyper) -> TrainStep:
    """Returns the training step of a checked config; reads no data."""
    # hyper-parameters of the layer stand at their defaults in what is compiled: its arguments bring their values
    own = tuple((name, value) for name, value in model.layer_fields if f"model.layer.{name}" not in hyper)
    model = model.clone(layer_fields=own)
    params = jax.eval_shape(functools.partial(init_variables, model, task), _hyper_shapes(hyper, members=1))["params"]
    layer = load_layer(config.model.layer.name)
    groups = assign_groups(
        params,
        config_rules=config.optim.groups,
        layer_name=layer.__name__,
        layer_rules=layer.PARAM_GROUPS,
        backbone_rules=model.PARAM_GROUPS,
    )
    optim = config.optim
    fixed = {name: optim[name] for name in ("schedule", "beta1", "beta2", "eps", "clip_norm")}
    warmup = interval_steps(config, "optim.warmup", least=0)
    optimizer = AdamW(tuple(groups), warmup_steps=warmup, total_steps=train_steps(config), **fixed)
    train = config.train
    lengths = tuple(train.length)
    return TrainStep(
        task, model, optimizer, tuple(hyper), train.batch_size, lengths, train.microbatches, group_norms=config.log.grad_norms
    )


def take_member(tree: Tree, member: int, members: int) -> Tree:
    """Returns one member's part of a tree, which for a single member is the tree."""
    return tree if members == 1 else jax.tree.map(lambda x: x[member], tree)


@functools.lru_cache(maxsize=COMPILED)
def compile_steps(step: TrainStep, members: int, given: Batch | None = None) -> Any:
    """Returns the compiled ``(hyper, state, count, given) -> (state, sums)``; the state is given away.

    ``given`` are the shapes of what a file task reads; None where each batch is made inside.
    """
    run = _over_members(step.run, members, "SS.S")
    count = jax.ShapeDtypeStruct((), jnp.int32)
    shapes = (_hyper_shapes(step.hyper, members), _state_shapes(step, members), count, given)
    return jax.jit(run, donate_argnums=1).lower(*shapes).compile()


@functools.lru_cache(maxsize=COMPILED)
def compile_part(step: TrainStep, members: int, part: Part, given: Batch | None = None) -> Any:
    """Returns the compiled ``(hyper, variables, place, given) -> sums``; all members are measured on the same given batches."""
    run = _over_members(functools.partial(step.measure, part), members, "SS..")
    number = jax.ShapeDtypeStruct((), jnp.int32)
    place = Place(number, number, number)
    return (
        jax.jit(run).lower(_hyper_shapes(step.hyper, members), _state_shapes(step, members).variables, place, given).compile()
    )


@functools.lru_cache(maxsize=COMPILED)
def _compile_check(step: TrainStep) -> Any:
    """Compiled once for all members: in a wide sweep many may die."""
    return jax.jit(step.check_finite)


@functools.lru_cache(maxsize=COMPILED)
def _compile_init(step: TrainStep, members: int) -> Any:
    return jax.jit(_over_members(step.init, members, "S")).lower(_hyper_shapes(step.hyper, members)).compile()


@functools.lru_cache(maxsize=COMPILED)
def _state_shapes(step: TrainStep, members: int) -> TrainState:
    return jax.eval_shape(_over_members(step.init, members, "S"), _hyper_shapes(step.hyper, members))


def _over_members(function: Callable[..., Any], members: int, axes: str) -> Callable[..., Any]:
    """Maps over the arguments marked S; a single run has no such axis, since vmap over one member would only slow it down."""
    return function if members == 1 else jax.vmap(function, in_axes=tuple(0 if axis == "S" else None for axis in axes))


def _hyper_shapes(names: Iterable[str], members: int) -> dict[str, Any]:
    shape = () if members == 1 else (members,)
    return {path: jax.ShapeDtypeStruct(shape, _dtype(path)) for path in names}


def _dtype(path: str) -> Any:
    return jnp.uint32 if path == "seed" else jnp.float32


def _check_shared(*configs: ConfigDict) -> None:
    if len({structure_key(config) for config in configs}) > 1:
        raise ValueError("these configs cannot share a program")


def stack_hyper(configs: Sequence[ConfigDict]) -> Hyper:
    """Returns the hyper-parameters of a program's members, stacked where there are several."""
    values = [traced_values(config) for config in configs]
    return {path: _stack(path, [own[path] for own in values]) for path in values[0]}


def _stack(path: str, numbers: Sequence[float]) -> jax.Array:
    return jnp.asarray(numbers[0] if len(numbers) == 1 else numbers, _dtype(path))


def _shapes(tree: Tree) -> Tree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def bytes_needed(compiled: Any) -> int:
    """Returns what a call takes of memory by XLA's account: arguments, results and what is temporary."""
    account = compiled.memory_analysis()
    sizes = (account.argument_size_in_bytes, account.output_size_in_bytes, account.temp_size_in_bytes)
    return sum(sizes) - account.alias_size_in_bytes


def _check_best_metric(program: Program) -> None:
    name = program.config.eval.best_metric
    if not name:
        return
    plain = [metric for metric in metric_names(program.step) if metric in program.task.METRICS]
    names = [*plain, *(f"{metric}/{each.name}" for metric in plain for each in program.sets)]
    if name not in names:
        raise UserError(f"eval.best_metric={name!r} is not one of {', '.join(names)}{suggest(name, names)}")
