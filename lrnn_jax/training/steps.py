"""What one run computes: initialisation, training steps and evaluation, as pure functions of hyper-parameters and arrays."""

import dataclasses
import functools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lrnn_jax.models.backbone import Backbone
from lrnn_jax.runs.parameters import parameter_paths
from lrnn_jax.tasks.base import Batch, EvaluationSet, Length, Sums, SyntheticTask, Task
from lrnn_jax.training.optimizer import AdamW, Hyper, Tree

# Every use of randomness has its own stream: fold_in(fold_in(key(seed), stream), step).
STREAMS = {"train": 0, "validation": 1, "test": 2, "init": 3, "dropout": 4}


class TrainState(NamedTuple):
    """Everything that training carries from step to step; a checkpoint is this and nothing else.

    Attributes:
      step: optimiser steps taken, int32.
      alive: False once a loss, gradient or update was not finite; nothing changes any more then, so the state stays the
        last good one.
      params: parameters.
      batch_stats: BatchNorm's running statistics; empty without BatchNorm.
      opt_state: the optimiser's state.
    """

    step: jax.Array
    alive: jax.Array
    params: Tree
    batch_stats: Tree
    opt_state: Tree

    @property
    def variables(self) -> dict[str, Tree]:
        """Parameters and BatchNorm's statistics, as `Backbone.apply` takes them."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def stream_key(seed: jax.Array | int, stream: str) -> jax.Array:
    """Returns the random key of one of `STREAMS` for a seed."""
    return jax.random.fold_in(jax.random.key(seed), STREAMS[stream])


def set_key(key: jax.Array, evaluation_set: EvaluationSet) -> jax.Array:
    """Returns the key of a stream's evaluation set, which holds the same examples whichever others are evaluated beside it."""
    shortest, longest = evaluation_set.length
    key = jax.random.fold_in(jax.random.fold_in(key, shortest), longest)
    if evaluation_set.name == f"{shortest}-{longest}":
        return key
    # sets of one length and another name hold other examples
    return jax.random.fold_in(key, zlib.crc32(evaluation_set.name.encode()))


def init_variables(model: Backbone, task: Task, hyper: Hyper) -> dict[str, Tree]:
    """Initialises parameters and BatchNorm statistics; their shapes do not depend on the length used here."""
    inputs = task.example_spec(task.MIN_LENGTH).inputs
    key = stream_key(hyper["seed"], "init")
    return dict(model.init(key, jnp.zeros((1, *inputs.shape), inputs.dtype), layer_values=layer_values(hyper)))


def layer_values(hyper: Hyper) -> dict[str, Any]:
    """Returns the hyper-parameters that are fields of the layer, by the fields' own names."""
    prefix = "model.layer."
    return {path.removeprefix(prefix): value for path, value in hyper.items() if path.startswith(prefix)}


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """The static part of a training program: equal ones share what is compiled. Hyper-parameters are arguments of its methods.

    Attributes:
      task: makes batches, loss and metrics.
      model: maps batches to outputs; the layer's fields that are hyper-parameters stand at their defaults in it.
      optimizer: maps gradients to updates.
      hyper: names of the hyper-parameters.
      batch_size: examples per step.
      length: (shortest, longest) training sequence.
      microbatches: equal parts of a batch that are worked on one after the other.
      group_norms: the metric sums have the gradients' norm of each parameter group.
    """

    task: Task
    model: Backbone
    optimizer: AdamW
    hyper: tuple[str, ...]
    batch_size: int
    length: Length
    microbatches: int = 1
    group_norms: bool = False

    def init(self, hyper: Hyper) -> TrainState:
        """Returns the state before the first step."""
        variables = init_variables(self.model, self.task, hyper)
        params = variables["params"]
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            alive=jnp.ones((), bool),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=self.optimizer.transformation(hyper).init(params),
        )

    def run(self, hyper: Hyper, state: TrainState, count: jax.Array, given: Batch | None = None) -> tuple[TrainState, Sums]:
        """Takes ``count`` steps inside one loop; metric sums run over all of them.

        ``given`` are their batches, stacked, where the task reads them from files; a synthetic task makes each inside the loop.
        """
        step = functools.partial(self.step, hyper, given)
        _, shapes = jax.eval_shape(step, 0, (state, {}))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.fori_loop(0, count, step, (state, zeros))

    def step(self, hyper: Hyper, given: Batch | None, i: jax.Array, carry: tuple[TrainState, Sums]) -> tuple[TrainState, Sums]:
        """Takes one optimiser step and adds its metric sums, or none at all where loss, gradient or update is not finite."""
        state, before = carry
        batch = self.batch_at(hyper, state.step) if given is None else jax.tree.map(lambda x: x[i], given)
        dropout = jax.random.fold_in(stream_key(hyper["seed"], "dropout"), state.step)
        (loss, (batch_stats, sums)), grads = self.value_and_grad(state.params, hyper, state.batch_stats, dropout, batch)
        grad_norm = optax.tree.norm(grads)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes its integer step counter with floats
            updates, opt_state = self.optimizer.transformation(hyper).update(grads, state.opt_state, state.params)
        good = state.alive & jnp.isfinite(loss) & jnp.isfinite(grad_norm) & jnp.isfinite(optax.tree.norm(updates))
        new = TrainState(state.step + 1, good, optax.apply_updates(state.params, updates), batch_stats, opt_state)
        state = jax.tree.map(lambda n, o: jnp.where(good, n, o), new, state._replace(alive=good))
        norms = {"grad_norm": grad_norm, **(self.measure_groups(grads) if self.group_norms else {})}
        sums |= {name: (norm, jnp.ones((), jnp.float32)) for name, norm in norms.items()}
        sums = jax.tree.map(lambda x: jnp.where(good, x, jnp.zeros_like(x)), sums)
        return state, jax.tree.map(jnp.add, before, sums) if before else sums

    def measure_groups(self, grads: Tree) -> dict[str, jax.Array]:
        """Returns the norm of each parameter group's gradients, before any clipping, as ``grad_norm/SOURCE: PATTERN``."""
        leaves = dict(zip(parameter_paths(grads), jax.tree.leaves(grads), strict=True))
        return {
            f"grad_norm/{group.source}: {group.pattern}": optax.tree.norm([leaves[path] for path in group.paths])
            for group in self.optimizer.groups
        }

    def batch_at(self, hyper: Hyper, step: jax.Array) -> Batch:
        """Returns the training batch of a step: a pure function of seed and step."""
        assert isinstance(self.task, SyntheticTask)
        return self.task.train_batch(stream_key(hyper["seed"], "train"), step, self.batch_size, self.length)

    @property
    def value_and_grad(self) -> Callable[..., tuple[tuple[jax.Array, tuple[Tree, Sums]], Tree]]:
        """Maps (params, hyper, batch_stats, dropout key, batch) to (loss, (new statistics, metric sums)) and gradients."""
        whole = jax.value_and_grad(functools.partial(self.lose, mean=True), has_aux=True)
        return whole if self.microbatches == 1 else self._value_and_grad_in_parts

    def lose(
        self, params: Tree, hyper: Hyper, batch_stats: Tree, dropout: jax.Array, batch: Batch, *, mean: bool
    ) -> tuple[jax.Array, tuple[Tree, Sums]]:
        """Returns the loss's mean or sum over a batch, with BatchNorm's new statistics and the metric sums."""
        (outputs, _), updated = self.model.apply(
            {"params": params, "batch_stats": batch_stats},
            batch.inputs,
            lengths=batch.lengths,
            reset=batch.reset,
            train=True,
            layer_values=layer_values(hyper),
            rngs={"dropout": dropout},
            mutable=["batch_stats"],
        )
        total, weight = self.task.loss(outputs, batch)
        sums = {"loss": (total, weight), **self.task.metrics(outputs, batch)}
        return total / weight if mean else total, (updated.get("batch_stats", {}), sums)

    def _value_and_grad_in_parts(
        self, params: Tree, hyper: Hyper, batch_stats: Tree, dropout: jax.Array, batch: Batch
    ) -> tuple[tuple[jax.Array, tuple[Tree, Sums]], Tree]:
        """The same, a microbatch at a time: the parts' sums are added up and divided once, so the mean is over the whole batch.

        Dropout draws its masks for each part.
        """

        def add(total: Tree, x: tuple[jax.Array, Batch]) -> tuple[Tree, Sums]:
            i, part = x
            lose = jax.value_and_grad(functools.partial(self.lose, mean=False), has_aux=True)
            (_, (_, sums)), grads = lose(params, hyper, batch_stats, jax.random.fold_in(dropout, i), part)
            return jax.tree.map(jnp.add, total, grads), sums

        parts = jax.tree.map(lambda x: x.reshape(self.microbatches, -1, *x.shape[1:]), batch)
        total, stacked = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), (jnp.arange(self.microbatches), parts))
        sums = jax.tree.map(lambda x: jnp.sum(x, axis=0), stacked)
        loss, weight = sums["loss"]
        return (loss / weight, (batch_stats, sums)), jax.tree.map(lambda g: g / weight, total)

    def check_finite(self, hyper: Hyper, state: TrainState, batch: Batch | None) -> tuple[jax.Array, Tree]:
        """Repeats the step that stopped training; returns whether its loss was finite, and for every parameter the gradient."""
        batch = self.batch_at(hyper, state.step) if batch is None else batch
        dropout = jax.random.fold_in(stream_key(hyper["seed"], "dropout"), state.step)
        (loss, _), grads = self.value_and_grad(state.params, hyper, state.batch_stats, dropout, batch)
        return jnp.isfinite(loss), jax.tree.map(lambda leaf: jnp.all(jnp.isfinite(leaf)), grads)

    def measure(self, part: "Part", hyper: Hyper, variables: Tree, where: "Place", given: Batch | None = None) -> Sums:
        """Returns the sums over some batches of an evaluation set: scalars or vectors of metrics, vectors of curves.

        Examples beyond the set's last one weigh nothing. The batches are ``given``, stacked, where the task reads files.
        """
        key = set_key(jax.random.fold_in(jax.random.key(hyper["seed"]), where.stream), part.set)

        def body(carry: None, x: tuple[jax.Array, Batch | None]) -> tuple[None, Sums]:
            i, batch = x
            if batch is None:
                assert isinstance(self.task, SyntheticTask)
                batch = self.task.evaluation_batch(key, i, part.batch_size, part.set, part.split)
            batch = batch.keep(where.examples - i * part.batch_size)
            outputs, _ = self.model.apply(
                variables, batch.inputs, lengths=batch.lengths, reset=batch.reset, layer_values=layer_values(hyper)
            )
            measured = {"loss": self.task.loss(outputs, batch), **self.task.metrics(outputs, batch)}
            return carry, {**measured, **self.task.curves(outputs, batch)}

        _, sums = jax.lax.scan(body, None, (where.first + jnp.arange(part.batches), given))
        return jax.tree.map(lambda x: jnp.sum(x, axis=0), sums)


class Part(NamedTuple):
    """What one compiled call of an evaluation works on: the static side.

    Attributes:
      set: the evaluation set.
      split: "validation" or "test" where the task draws them from different distributions, else always "test".
      batches: batches of one call.
      batch_size: examples of each.
    """

    set: EvaluationSet
    split: str
    batches: int
    batch_size: int


class Place(NamedTuple):
    """What changes from one compiled call of an evaluation to the next.

    Attributes:
      stream: number of the stream, int32.
      first: the first of the batches, int32.
      examples: examples of the whole set, int32.
    """

    stream: Any
    first: Any
    examples: Any


def metric_names(step: TrainStep) -> list[str]:
    """Returns the names of the evaluation's metrics without a set's name, from shapes alone."""
    spec = step.task.example_spec(step.length[1])
    inputs: Any
    targets: Any
    inputs, targets = (jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for x in spec)
    weights: Any = jax.ShapeDtypeStruct(targets.shape[:2] if step.task.per_position else (1,), jnp.float32)
    lengths: Any = jax.ShapeDtypeStruct((1, spec.rows) if spec.rows > 1 else (1,), jnp.int32)
    batch = Batch(inputs, targets, weights, lengths)
    outputs = (
        targets if not step.task.outputs_are_classes else jax.ShapeDtypeStruct((*weights.shape, step.task.outputs), jnp.float32)
    )
    names = ["loss", *jax.eval_shape(step.task.metrics, outputs, batch)]
    return [*names, *step.task.derive(dict.fromkeys(names, 0.0))]


def choose(mask: jax.Array, new: Tree, old: Tree) -> Tree:
    """Returns the new parameters of the members that the mask names, as arrays of their own: states are given away."""
    return jax.tree.map(lambda n, o: jnp.where(mask.reshape(mask.shape + (1,) * (n.ndim - mask.ndim)), n, o), new, old)
