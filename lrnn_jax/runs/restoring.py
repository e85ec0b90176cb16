"""Reading a run back: its config and its checkpoints."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lrnn_jax.config.fields import check_field
from lrnn_jax.errors import UserError
from lrnn_jax.registry import load_task
from lrnn_jax.runs.checkpoints import Checkpoints
from lrnn_jax.runs.folder import RunFolder


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
    if which == "best" and not restored[1]["members"][0]["best"]:
        raise UserError(f"{workdir} holds no best checkpoint (eval.best_metric={metric!r})")
    return restored
