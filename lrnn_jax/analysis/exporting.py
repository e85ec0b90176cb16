"""Weights for other programs: a run's parameters as safetensors, with its config as JSON."""

from pathlib import Path

from lrnn_jax.errors import UserError
from lrnn_jax.registry import load_task
from lrnn_jax.runs.restoring import read_run
from lrnn_jax.runs.weights import Weights, read_weights, write_weights


def export_run(workdir: str | Path, out: str | Path, *, which: str = "last") -> Weights:
    """Writes a run's parameters into a folder that needs nothing else of the run; see `lrnn_jax.runs.weights`.

    What reads a run's parameters reads the folder too: `load_run`, ``lrnn generate`` and ``train.init_from``.

    Args:
      workdir: the run's folder.
      out: the new folder.
      which: "last", or "best" by the config's ``eval.best_metric``.

    Returns:
      What was written.

    Raises:
      ValueError: no run, no such checkpoint, or a folder ``out`` that holds something or cannot be written.
    """
    folder, target = Path(workdir).expanduser(), Path(out).expanduser()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise UserError(f"{target} is there already and not empty; choose another folder, or remove it")
    config = read_run(folder)
    weights = read_weights(folder, which=which)
    stand_ins = load_task(config.task.name).fields_from(folder).values()
    kept = [file for file in map(Path, map(str, stand_ins)) if file.parent == folder]
    write_weights(target, weights, {file.name: file.read_bytes() for file in (folder / "config.json", *kept)})
    return weights
