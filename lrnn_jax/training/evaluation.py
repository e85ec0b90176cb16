"""Evaluation of a run that is on disk."""

from pathlib import Path
from typing import Any

from lrnn_jax.config.checks import validate_config
from lrnn_jax.errors import UserError
from lrnn_jax.runs.folder import RunFolder
from lrnn_jax.runs.restoring import read_run, restore_run
from lrnn_jax.training.program import Program, make_program
from lrnn_jax.training.steps import Tree


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
        return kept["best"], info["members"][0]["best"]["step"]
    return kept["state"].variables, int(kept["state"].step)


def evaluate_run(
    workdir: str | Path, *, which: str = "last", lengths: list[list[int]] | None = None, examples: int | None = None
) -> dict[str, Any]:
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
    if which not in ("last", "best"):
        raise UserError(f"which={which!r} must be 'last' or 'best'")
    workdir = Path(workdir).expanduser()
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
        validate_config(config)
        program = make_program(config)
    except UserError as error:
        # what is named is the argument that was given, not the field that it stands for
        said = str(error)
        for name, given in (("lengths", lengths), ("examples", examples)):
            said = said.replace(f"eval.{name}", name) if given else said
        raise UserError(said) from error
    variables, step = restore_parameters(workdir, program, which=which)
    (measured,) = program.evaluate(**variables, stream="test")
    return {"checkpoint": which, "step": step, **measured._asdict()}
