"""Reading a run back: its config and its checkpoints."""

import sys
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lrnn_jax.config.checks import check_fields
from lrnn_jax.config.fields import check_field
from lrnn_jax.errors import CannotImport, UserError
from lrnn_jax.registry import load_task
from lrnn_jax.runs.checkpoints import Checkpoints
from lrnn_jax.runs.folder import RunFolder
from lrnn_jax.runs.origin import check_settings, describe_origin, find_changes


def read_run(workdir: Path) -> ConfigDict:
    """Returns a run's config, where the run's own records stand in for what they were made from.

    Raises:
      UserError: no run there, one whose config is damaged or another version's, or whose layer or task cannot be imported.
    """
    config = RunFolder(workdir).read_config()
    try:
        check_field(config, "task.name")
        task = load_task(config.task.name)
        check_fields(config)
    except CannotImport as error:
        raise UserError(f"{workdir}: {error}") from error  # the run is as it was
    except UserError as error:
        raise UserError(
            f"{workdir / 'config.json'} is damaged or another version's: {error}; restore the file, or train the run again in "
            "another folder"
        ) from error
    config.task.update(task.fields_from(workdir))
    return config


def restore_run(workdir: Path, target: Any, *, which: str) -> tuple[Any, dict[str, Any]]:
    """Returns (state, info) of a run's newest checkpoint, as `Checkpoints.restore_newest`, and touches nothing.

    Says in a line on standard error what of code, versions, JAX's settings and device has changed since it was trained.

    Args:
      workdir: the run's folder.
      target: what the checkpoint must fit; None takes it as it is.
      which: "last", or "best" where the best parameters are wanted.

    Raises:
      UserError: no run, no checkpoint, one made under other settings of JAX, or none with best parameters.
    """
    folder = RunFolder(workdir)
    config = folder.read_config()
    metric, origin = config.eval.best_metric, describe_origin(config)
    if not folder.checkpoint_folder.is_dir():
        raise UserError(f"{workdir} holds no checkpoint yet")
    with Checkpoints(folder.checkpoint_folder, read_only=True) as checkpoints:
        restored = checkpoints.restore_newest(target, lambda info: check_settings(info.get("origin", {}), origin, str(workdir)))
    if restored is None:
        raise UserError(f"{workdir} holds no checkpoint yet")
    if changes := find_changes(restored[1].get("origin", {}), origin):
        print(f"{workdir}: changed since it was trained: {changes}; remove the folder to train it again", file=sys.stderr)
    if which == "best" and not restored[1]["members"][0]["best"]:
        raise UserError(f"{workdir} holds no best checkpoint (eval.best_metric={metric!r})")
    return restored
