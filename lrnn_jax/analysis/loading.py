"""A run that has been trained, ready to be used from Python."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from lrnn_jax.config.checks import validate_config
from lrnn_jax.models.backbone import Backbone
from lrnn_jax.registry import build_model, build_task
from lrnn_jax.runs.restoring import read_run
from lrnn_jax.runs.weights import read_weights
from lrnn_jax.tasks.base import Task
from lrnn_jax.training.steps import Tree


class LoadedRun(NamedTuple):
    """A trained model and what it was trained on.

    Attributes:
      config: the run's resolved config.
      task: makes batches, loss and metrics.
      model: `Backbone`; ``model.apply(variables, inputs)`` is what `apply` compiles.
      variables: "params", and BatchNorm's "batch_stats", which is empty without it.
      steps: optimiser steps that made them.
    """

    config: ConfigDict
    task: Task
    model: Backbone
    variables: dict[str, Tree]
    steps: int

    @property
    def params(self) -> Tree:
        """The parameters alone, as an optimiser takes them."""
        return self.variables["params"]

    def apply(self, inputs: Any, *, lengths: Any = None, states: Any = None, reset: Any = None) -> tuple[jax.Array, Any]:
        """Returns ``(outputs, states)`` of the trained model, compiled once for every shape.

        ``outputs, states = run.apply(tokens[:, :1])``, then ``run.apply(tokens[:, 1:2], states=states)`` and so on is the whole
        row, one token at a time.

        Args:
          inputs: tokens ``[B T]`` of integers, or features ``[B T F]`` of floats; with R rows per example ``[B R T]``.
          lengths: positions of each row that are no padding, ``[B]``; all if None.
          states: what an earlier call returned, to go on from there; None begins anew.
          reset: True where another sequence starts inside a row, ``[B T]``.

        Raises:
          ValueError: inputs of another rank, without a position or with rows of different lengths, a token that the model does
            not have, more positions than it has, lengths that are not of these rows, or states that it does not make or cannot
            go on from.
        """
        try:
            inputs = np.asarray(inputs)
        except ValueError as error:
            raise ValueError("inputs: rows differ in length; pad them to the longest, and give lengths=") from error
        if inputs.ndim < 2:
            raise ValueError(f"inputs: shape {inputs.shape} has no batch axis, such as [[1, 2, 1]] has")
        if 0 in inputs.shape:
            raise ValueError(f"inputs: shape {inputs.shape} holds no position")
        vocab_size = self.model.vocab_size
        if vocab_size:
            if not np.issubdtype(inputs.dtype, np.integer):
                raise ValueError(f"inputs: dtype {inputs.dtype} is not an integer, and this model reads tokens")
            if not 0 <= inputs.min() <= inputs.max() < vocab_size:
                raise ValueError(f"inputs: tokens {inputs.min()}..{inputs.max()} are not within 0..{vocab_size - 1}")
        inputs = inputs.astype(np.int32 if vocab_size else np.float32)
        lengths = None if lengths is None else _read_lengths(lengths, inputs.shape if vocab_size else inputs.shape[:-1])
        reset = None if reset is None else np.asarray(reset, bool)
        return _compile(self.model)(self.variables, inputs, lengths=lengths, states=states, reset=reset)


def load_run(workdir: str | Path, *, which: str = "last") -> LoadedRun:
    """Reads a run that has been trained, or that is still under way; its data are not needed.

    To go on with the training in a loop of one's own::

        run = load_run("runs/x")
        optimizer = optax.adam(1e-3)
        params, moments = run.params, optimizer.init(run.params)

        def lose(params, batch):
            outputs, _ = run.model.apply({**run.variables, "params": params}, batch.inputs, lengths=batch.lengths)
            total, weight = run.task.loss(outputs, batch)
            return total / weight

        @jax.jit
        def step(params, moments, key):
            loss, grads = jax.value_and_grad(lose)(params, run.task.batch(key, 32, (3, 40)))
            updates, moments = optimizer.update(grads, moments, params)
            return optax.apply_updates(params, updates), moments, loss

    Args:
      workdir: the run's folder, or one that `lrnn_jax.analysis.exporting.export_run` has written.
      which: "last", or "best" by the config's ``eval.best_metric``.

    Raises:
      ValueError: no run, no such checkpoint, a damaged one, or a config that this version does not know.
    """
    folder = Path(workdir).expanduser()
    config = read_run(folder)
    validate_config(config)
    weights = read_weights(folder, which=which)
    task = build_task(config.task)
    return LoadedRun(config, task, build_model(config.model, task), weights.variables, weights.steps)


def _read_lengths(lengths: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Refuses lengths that are not one for each row, within its positions."""
    read = np.asarray(lengths)
    *rows, steps = shape
    if read.shape != tuple(rows) or not np.issubdtype(read.dtype, np.integer):
        raise ValueError(f"lengths: {read.dtype}{list(read.shape)} are not integers {rows}, one for each row")
    if not 1 <= read.min() <= read.max() <= steps:
        raise ValueError(f"lengths: {read.min()}..{read.max()} are not within 1..{steps}, the positions of a row")
    return read.astype(np.int32)


@functools.lru_cache(maxsize=8)
def _compile(model: Backbone) -> Any:
    return jax.jit(model.apply)
