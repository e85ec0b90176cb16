"""Evaluation of a run that is on disk."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lrnn_jax.config import check_field
from lrnn_jax.errors import UserError
from lrnn_jax.registry import load_task
from lrnn_jax.training.checkpoints import Checkpoints
from lrnn_jax.training.program import Program, make_program
from lrnn_jax.training.runs import RunFolder
from lrnn_jax.training.steps import Tree


def read_run(workdir: Path) -> ConfigDict:
    """Returns a run's config, where the run's own records stand in for what they were made from.

    Raises:
      UserError: no run there.
    """
    config = RunFolder(workdir).read_config()
    check_field(config, "task.name")
    config.task.update(load_task(config.task.name).fields_from(workdir))
    return config


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


def restore_parameters(workdir: Path, program: Program, *, which: str) -> tuple[dict[str, Tree], int]:
    """Returns a run's parameters and BatchNorm statistics, as `Backbone.apply` takes them, and how many steps made them.

    Args:
      workdir: the run's folder.
      program: made from its config.
      which: "last", or "best" by the config's ``eval.best_metric``.

    Raises:
      UserError: other data than the run's, or as `restore_run`.
    """
    folder = RunFolder(workdir)
    folder.check_records(program.records())
    state = program.state_shapes
    best = {"best": state.variables} if folder.read_config().eval.best_metric else {}
    kept, info = restore_run(workdir, {"state": state, **best}, which=which)
    if which == "best":
        return kept["best"], info["best"][0]["step"]
    return kept["state"].variables, int(kept["state"].step)


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
    config = read_run(workdir)
    if lengths:
        config.eval.lengths = lengths
        low, high = config.eval.headline
        if not any(low <= shortest and longest <= high for shortest, longest in lengths):
            config.eval.headline = [min(shortest for shortest, _ in lengths), max(longest for _, longest in lengths)]
        config.eval.best_metric, config.eval.patience = "", 0
    if examples:
        config.eval.examples = examples
    try:
        program = make_program(config)
    except UserError as error:
        # what is named is the flag that was given, not the field that it stands for
        said = str(error)
        for name, given in (("lengths", lengths), ("examples", examples)):
            said = said.replace(f"eval.{name}", f"--{name}") if given else said
        raise UserError(said) from error
    variables, step = restore_parameters(workdir, program, which=which)
    (measured,) = program.evaluate(**variables, stream="test")
    return {"checkpoint": which, "step": step, **measured._asdict()}
