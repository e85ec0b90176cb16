"""Evaluation of a run that is on disk."""

from pathlib import Path
from typing import Any

from lrnn_jax.errors import UserError
from lrnn_jax.registry import load_task
from lrnn_jax.training.checkpoints import Checkpoints
from lrnn_jax.training.program import make_program
from lrnn_jax.training.runs import RunFolder


def restore_run(workdir: Path, target: Any, *, which: str) -> tuple[Any, dict[str, Any]]:
    """Returns (state, info) of a run's newest checkpoint, as `Checkpoints.restore_newest`, and touches nothing.

    Args:
      workdir: the run's folder.
      target: what the checkpoint must fit; None takes it as it is.
      which: "last", or "best" where the best parameters are wanted.

    Raises:
      UserError: no run, no checkpoint, or none with best parameters.
    """
    folder = RunFolder(workdir)
    metric = folder.read_config().eval.best_metric
    if not folder.checkpoint_folder.is_dir():
        raise UserError(f"{workdir} holds no checkpoint yet")
    checkpoints = Checkpoints(folder.checkpoint_folder, read_only=True)
    restored = checkpoints.restore_newest(target)
    checkpoints.close()
    if restored is None:
        raise UserError(f"{workdir} holds no checkpoint yet")
    if which == "best" and not restored[1]["best"][0]:
        raise UserError(f"{workdir} holds no best checkpoint (eval.best_metric={metric!r})")
    return restored


def evaluate_run(workdir: Path, *, which: str, lengths: list[list[int]] | None, examples: int | None) -> dict[str, Any]:
    """Evaluates a run's checkpoint on its test stream.

    Args:
      workdir: the run's folder.
      which: "last", or "best" by the config's ``eval.best_metric``.
      lengths: length buckets instead of the config's; a bucket holds the same examples whichever others there are. The
        headline is over those within the config's ``eval.headline``; over all where none is.
      examples: examples per bucket instead of the config's.

    Returns:
      ``{"checkpoint": which, "step": optimiser steps, "metrics": {...}, "curves": {...}}``.

    Raises:
      UserError: no run or no such checkpoint there, or lengths that the task cannot make.
    """
    folder = RunFolder(workdir)
    config = folder.read_config()
    metric = config.eval.best_metric
    config.task.update(load_task(config.task.name).fields_from(workdir))
    if lengths:
        config.eval.lengths = lengths
        low, high = config.eval.headline
        if not any(low <= shortest and longest <= high for shortest, longest in lengths):
            config.eval.headline = [min(shortest for shortest, _ in lengths), max(longest for _, longest in lengths)]
        config.eval.best_metric, config.eval.patience = "", 0
    if examples:
        config.eval.examples = examples
    program = make_program(config)
    folder.check_records(program.records())
    state = program.state_shapes
    parameters = {"params": state.params, "batch_stats": state.batch_stats}
    kept, info = restore_run(workdir, {"state": state, "best": parameters} if metric else {"state": state}, which=which)
    chosen = kept["best"] if which == "best" else {name: getattr(kept["state"], name) for name in parameters}
    (measured,) = program.evaluate(**chosen, stream="test")
    step = info["best"][0]["step"] if which == "best" else int(kept["state"].step)
    return {"checkpoint": which, "step": step, **measured._asdict()}
