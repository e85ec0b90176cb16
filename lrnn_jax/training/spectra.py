"""The eigenvalues of a trained model's state transitions, position by position."""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.errors import UserError
from lrnn_jax.models.backbone import Backbone
from lrnn_jax.registry import build_model, build_task
from lrnn_jax.training.runs import RunFolder
from lrnn_jax.training.steps import STREAMS, Tree


def measure_spectra(model: Backbone, variables: Tree, inputs: jax.Array) -> list[np.ndarray]:
    """Returns each block's eigenvalues of A_t, ``[B T n]`` complex64, for the inputs that reach it.

    n counts all eigenvalues of one position: heads, channels and states side by side.

    Args:
      model: the backbone.
      variables: its parameters, and BatchNorm's statistics.
      inputs: tokens ``[B T]`` or features ``[B T F]``.
    """
    found: list[jax.Array] = []

    def listen(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, model.layer_class) and context.method_name == "__call__":
            found.append(context.module.transition(args[0]))
        return call(*args, **kwargs)

    def run(variables: Tree, inputs: jax.Array) -> list[jax.Array]:
        with nn.intercept_methods(listen):
            model.apply(variables, inputs)
        return found

    batch, steps = inputs.shape[:2]
    spectra = []
    for transition in jax.jit(run)(variables, inputs):
        a = np.asarray(transition)
        values = a if model.layer_class.DIAGONAL else np.linalg.eigvals(a)
        shape = values.shape if values.shape[:2] == (batch, steps) else (batch, steps, *values.shape)
        spectra.append(np.broadcast_to(values, shape).reshape(batch, steps, -1).astype(np.complex64))
    return spectra


def save_spectra(workdir: Path, *, which: str, examples: int, length: int) -> Path:
    """Measures a run's spectra on its test stream and writes ``spectra.npz``: ``tokens``, and ``block_0``, ``block_1``, ...

    Args:
      workdir: the run's folder.
      which: "last", or "best" by the config's ``eval.best_metric``.
      examples: sequences.
      length: of each.

    Raises:
      UserError: no run or no such checkpoint there, a length that the task cannot make, or inputs that are no tokens.
    """
    config = RunFolder(workdir).read_config()
    task = build_task(config.task)
    task.check_length("--length", (length, length))
    if not task.vocab_size:
        raise UserError(f"{workdir}: spectra are drawn by token, and {config.task.name!r} has none")
    variables = restore_parameters(workdir, which=which)
    batch = task.batch(jax.random.fold_in(jax.random.key(config.seed), STREAMS["test"]), examples, (length, length))
    spectra = measure_spectra(build_model(config.model, task), variables, jnp.asarray(batch.inputs))
    file = workdir / "spectra.npz"
    arrays = {"tokens": np.asarray(batch.inputs)} | {f"block_{i}": values for i, values in enumerate(spectra)}
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file
