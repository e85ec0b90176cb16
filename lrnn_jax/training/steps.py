"""What one run computes: initialisation, training steps, and evaluation, as pure functions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lrnn_jax.models.backbone import Backbone
from lrnn_jax.tasks.base import Batch, Sums, Task

Tree = Any

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


def bucket_key(key: jax.Array, bucket: tuple[int, int]) -> jax.Array:
    """Returns the key of a stream's length bucket, which holds the same examples whichever others are evaluated beside it."""
    return jax.random.fold_in(jax.random.fold_in(key, bucket[0]), bucket[1])


def init_variables(model: Backbone, seed: jax.Array | int) -> dict[str, Tree]:
    """Initialises parameters and BatchNorm statistics; shapes do not depend on the sequence length used here."""
    shape = (1, 1) if model.vocab_size else (1, 1, 1)
    inputs = jnp.zeros(shape, jnp.int32 if model.vocab_size else jnp.float32)
    return dict(model.init(stream_key(seed, "init"), inputs))


def init_state(model: Backbone, optimizer: optax.GradientTransformation, seed: jax.Array | int) -> TrainState:
    """Returns the state before the first step."""
    variables = init_variables(model, seed)
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        alive=jnp.ones((), bool),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(params),
    )


class Trainable(NamedTuple):
    """The static parts of a training program.

    Attributes:
      task: makes batches, loss and metrics.
      model: maps batches to logits.
      optimizer: maps gradients to updates.
      batch_size: examples per step.
      length: (shortest, longest) training sequence.
      microbatches: equal parts of a batch that are worked on one after the other.
    """

    task: Task
    model: Backbone
    optimizer: optax.GradientTransformation
    batch_size: int
    length: tuple[int, int]
    microbatches: int = 1

    def metric_names(self, batch: Batch) -> list[str]:
        """Returns the names of the evaluation's metrics, from the shapes of a batch."""

        def measure(batch: Batch) -> Sums:
            return self.task.metrics(jnp.zeros((*batch.targets.shape, self.task.outputs)), batch)

        names = ["loss", *jax.eval_shape(measure, batch)]
        return [*names, *self.task.derive(dict.fromkeys(names, 0.0))]

    def batch_at(self, seed: jax.Array, step: jax.Array) -> Batch:
        """Returns the training batch of a step: a pure function of seed and step."""
        key = jax.random.fold_in(stream_key(seed, "train"), step)
        return self.task.batch(key, self.batch_size, self.length)

    def gradients(self, state: TrainState, seed: jax.Array, batch: Batch) -> tuple[Tree, Tree, jax.Array, Sums]:
        """Returns (gradients of the mean loss, new batch statistics, mean loss, metric sums) of one batch.

        With microbatches the parts' sums are added up and divided once, so that the mean is over the whole batch all the same;
        dropout draws its masks for each part.
        """
        dropout = jax.random.fold_in(stream_key(seed, "dropout"), state.step)
        if self.microbatches == 1:
            return self._gradients(state, dropout, batch, mean=True)

        def add(total: Tree, x: tuple[jax.Array, Batch]) -> tuple[Tree, Sums]:
            i, part = x
            grads, _, _, sums = self._gradients(state, jax.random.fold_in(dropout, i), part, mean=False)
            return jax.tree.map(jnp.add, total, grads), sums

        parts = jax.tree.map(lambda x: x.reshape(self.microbatches, -1, *x.shape[1:]), batch)
        total, stacked = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, state.params), (jnp.arange(self.microbatches), parts))
        sums = jax.tree.map(lambda x: jnp.sum(x, axis=0), stacked)
        loss, weight = sums["loss"]
        return jax.tree.map(lambda g: g / weight, total), state.batch_stats, loss / weight, sums

    def _gradients(
        self, state: TrainState, dropout: jax.Array, batch: Batch, *, mean: bool
    ) -> tuple[Tree, Tree, jax.Array, Sums]:
        """The same of the loss's mean or sum, for a batch that is worked on at once."""

        def lose(params: Tree) -> tuple[jax.Array, tuple[Tree, Sums]]:
            (logits, _), updated = self.model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                batch.inputs,
                lengths=batch.lengths,
                reset=batch.reset,
                train=True,
                rngs={"dropout": dropout},
                mutable=["batch_stats"],
            )
            total, weight = self.task.loss(logits, batch)
            sums = {"loss": (total, weight), **self.task.metrics(logits, batch)}
            return total / weight if mean else total, (updated.get("batch_stats", {}), sums)

        (loss, (batch_stats, sums)), grads = jax.value_and_grad(lose, has_aux=True)(state.params)
        return grads, batch_stats, loss, sums

    def step(self, state: TrainState, seed: jax.Array, batch: Batch) -> tuple[TrainState, Sums]:
        """Takes one optimiser step, or none at all where loss, gradient or update is not finite."""
        grads, batch_stats, loss, sums = self.gradients(state, seed, batch)
        grad_norm = optax.tree.norm(grads)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes its integer step counter with floats
            updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        good = state.alive & jnp.isfinite(loss) & jnp.isfinite(grad_norm) & jnp.isfinite(optax.tree.norm(updates))
        new = TrainState(state.step + 1, good, optax.apply_updates(state.params, updates), batch_stats, opt_state)
        old = state._replace(alive=good)
        state = jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)
        one = jnp.ones((), jnp.float32)
        sums["grad_norm"] = (grad_norm, one)
        return state, jax.tree.map(lambda x: jnp.where(good, x, jnp.zeros_like(x)), sums)


def run_steps(
    trainable: Trainable, state: TrainState, seed: jax.Array, steps: int, batches: Batch | None = None
) -> tuple[TrainState, Sums]:
    """Takes ``steps`` optimiser steps inside one `lax.scan`; metric sums run over all of them.

    ``batches`` are theirs, stacked, where the task reads them from files; a synthetic task makes each inside the loop.
    """

    def body(state: TrainState, batch: Batch | None) -> tuple[TrainState, Sums]:
        return trainable.step(state, seed, trainable.batch_at(seed, state.step) if batch is None else batch)

    state, sums = jax.lax.scan(body, state, batches, length=steps)
    return state, jax.tree.map(lambda x: jnp.sum(x, axis=0), sums)


def run_bucket(
    trainable: Trainable,
    params: Tree,
    batch_stats: Tree,
    key: jax.Array,
    bucket: tuple[int, int],
    batches: int,
    batch_size: int,
    given: Batch | None = None,
) -> Sums:
    """Returns the sums over ``batches`` batches of one length bucket: scalars of metrics, vectors of curves by position.

    They are ``given``, stacked, where the task reads them from files.
    """
    key = bucket_key(key, bucket)

    def body(carry: None, x: tuple[jax.Array, Batch | None]) -> tuple[None, Sums]:
        i, batch = x
        task, variables = trainable.task, {"params": params, "batch_stats": batch_stats}
        if batch is None:
            batch = task.batch(jax.random.fold_in(key, i), batch_size, bucket)
        logits, _ = trainable.model.apply(variables, batch.inputs, lengths=batch.lengths, reset=batch.reset)
        return carry, {"loss": task.loss(logits, batch), **task.metrics(logits, batch), **task.curves(logits, batch)}

    _, sums = jax.lax.scan(body, None, (jnp.arange(batches), given))
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), sums)


def check_finite(trainable: Trainable, state: TrainState, seed: jax.Array, batch: Batch) -> tuple[jax.Array, Tree]:
    """Repeats the step that stopped training; returns whether its loss was finite, and for every parameter the gradient."""
    grads, _, loss, _ = trainable.gradients(state, seed, batch)
    return jnp.isfinite(loss), jax.tree.map(lambda leaf: jnp.all(jnp.isfinite(leaf)), grads)
