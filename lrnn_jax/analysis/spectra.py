"""The eigenvalues of a trained model's state transitions, position by position."""

import functools
import math
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.config.checks import validate_config
from lrnn_jax.errors import UserError
from lrnn_jax.models.backbone import Backbone, unroll_blocks
from lrnn_jax.parts.layer import RecurrentLayer, describe_shapes
from lrnn_jax.tasks.base import Batch, FileTask, SyntheticTask, Task
from lrnn_jax.training.evaluation import read_run, restore_parameters
from lrnn_jax.training.program import make_program
from lrnn_jax.training.steps import Tree, set_key, stream_key

# Entries of all transitions together: some hundred megabytes, and a minute or two of eigenvalues.
MOST_ENTRIES = 1 << 25


def measure_run(workdir: Path, *, which: str, examples: int, length: int | None) -> tuple[dict[str, Any], int]:
    """Measures a run's spectra on its test stream.

    Args:
      workdir: the run's folder.
      which: "last", or "best" by the config's ``eval.best_metric``.
      examples: B, sequences.
      length: T, of each, as the task counts lengths; None: the longest of the training.

    Returns:
      ``(arrays, steps)``: ``tokens`` [B T] int32, ``lengths`` [B] int32 (positions of each row that are no padding), ``names``
      (of each token of the vocabulary) and ``block_0``, ``block_1``, ... as `measure_spectra` returns them; and how many
      optimiser steps made the parameters.

    Raises:
      UserError: no run or no such checkpoint there, sequences that the task cannot make, more of them than
        can be measured, or a task without tokens.
    """
    config = read_run(workdir)
    validate_config(config)
    program = make_program(config)
    task, model = program.task, program.model
    if not task.vocab_size:
        raise UserError(f"{workdir}: spectra are told apart by token, and task {config.task.name!r} has none")
    length = config.train.length[1] if length is None else length
    task.check_length("--length", (length, length))
    _check_size(model, program.state_shapes.variables, examples * length)
    variables, step = restore_parameters(workdir, program, which=which)
    batch = _read_batch(task, config.seed, examples, length)
    tokens = np.asarray(batch.inputs)
    spectra = measure_spectra(model, variables, tokens, None if batch.reset is None else np.asarray(batch.reset))
    arrays = {"tokens": tokens, "lengths": np.asarray(batch.lengths), "names": np.array(task.token_names())}
    return arrays | {f"block_{i}": values for i, values in enumerate(spectra)}, step


def measure_spectra(model: Backbone, variables: Tree, inputs: np.ndarray, reset: np.ndarray | None = None) -> list[np.ndarray]:
    """Returns each block's eigenvalues of A_t, ``[B T n]`` complex64, for the inputs that reach its layer.

    n counts all eigenvalues of one position as the layer's ``transition`` gives them: heads, channels and states side by side.

    Args:
      model: the backbone.
      variables: its parameters, and BatchNorm's statistics.
      inputs: tokens ``[B T]`` int32 or features ``[B T F]`` float32.
      reset: True where a new sequence starts inside a row ``[B T]``.

    Numerics: eigenvalues of matrices are computed in float64 from float32 entries.
    """
    steps = inputs.shape[1]
    starts = np.zeros(inputs.shape[:2], bool) if reset is None else reset.copy()
    starts[:, 0] = True
    # every sequence in a row of its own, for `transition` knows no resets
    sequences = np.split(inputs.reshape(-1, *inputs.shape[2:]), np.flatnonzero(starts)[1:])
    run, parts = jax.jit(functools.partial(_transitions, model)), []
    for sequence in sequences:
        padding = ((0, steps - len(sequence)), *((0, 0) for _ in inputs.shape[2:]))
        found = run(variables, np.pad(sequence, padding)[None])
        parts.append([_eigenvalues(model, np.asarray(a)[0, : len(sequence)]) for a in found])
    return [np.concatenate(block).reshape(*starts.shape, -1) for block in zip(*parts, strict=True)]


def _transitions(model: Backbone, variables: Tree, rows: jax.Array) -> list[jax.Array]:
    """What every block's ``transition`` returns for the inputs that reach its layer, always with the axes B and T."""
    found: list[jax.Array] = []
    axes = rows.shape[:2]

    def listen(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, model.layer_class) and context.method_name == "__call__":
            a = context.module.transition(args[0])
            _check_transition(context.module, a)
            found.append(a if a.shape[:2] == axes else jnp.broadcast_to(a, (*axes, *a.shape)))
        return call(*args, **kwargs)

    single, own = unroll_blocks(model, variables)
    with nn.intercept_methods(listen):
        single.apply(own, rows)
    return found


def _check_transition(layer: RecurrentLayer, a: Any) -> None:
    right = "eigenvalues" if layer.DIAGONAL else "square matrices on the last two axes"
    shape: tuple[int, ...] = getattr(a, "shape", ())
    fits = layer.DIAGONAL or (len(shape) >= 2 and shape[-1] == shape[-2])
    if not fits or not jnp.issubdtype(getattr(a, "dtype", int), jnp.inexact):
        raise UserError(f"layer {layer.describe()}: transition returns {describe_shapes(a)}, not {right}")


def _eigenvalues(model: Backbone, a: np.ndarray) -> np.ndarray:
    if not np.isfinite(a).all():
        raise UserError("some transitions are not finite numbers, and have no eigenvalues")
    values = a if model.layer_class.DIAGONAL else np.linalg.eigvals(a.astype(np.float64))
    return values.reshape(len(a), -1).astype(np.complex64)


def _check_size(model: Backbone, variables: Tree, positions: int) -> None:
    token = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    size = sum(math.prod(a.shape) for a in jax.eval_shape(functools.partial(_transitions, model), variables, token))
    most = MOST_ENTRIES // size
    if positions > most:
        raise UserError(
            f"{positions:,} positions are too many for transitions of {size:,} numbers each: "
            f"take --examples and --length that make at most {most:,}"
        )


def _read_batch(task: Task, seed: int, examples: int, length: int) -> Batch:
    (whole,) = task.evaluation_sets([(length, length)])
    if isinstance(task, SyntheticTask):
        return task.evaluation_batch(set_key(stream_key(seed, "test"), whole), jnp.int32(0), examples, whole, "test")
    assert isinstance(task, FileTask)
    rows = task.evaluation_rows("test", whole)
    if len(rows) < examples:
        raise UserError(f"--examples={examples}: the test split has only {len(rows)} of --length={length}")
    return task.collate(np.stack([rows[i] for i in range(examples)]), whole.length)
