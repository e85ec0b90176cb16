"""Parameters of a run that has been trained: from its checkpoints, or from an exported folder.

An exported folder holds ``model.safetensors``, the parameters and BatchNorm statistics by path (``params/embed/embedding``);
``config.json``, the run's config; and the small files that the run kept in place of what they were made from (a tokenizer).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from lrnn_jax.errors import UserError
from lrnn_jax.runs.files import write_together
from lrnn_jax.runs.parameters import hash_params, parameter_paths
from lrnn_jax.runs.restoring import restore_run

Tree = Any

FILE = "model.safetensors"


class Weights(NamedTuple):
    """What `flax.linen.Module.apply` needs of a trained model.

    Attributes:
      variables: "params", and "batch_stats" of BatchNorm, which is empty without it.
      steps: optimiser steps that made them.
    """

    variables: dict[str, Tree]
    steps: int


def read_weights(folder: Path, *, which: str = "last") -> Weights:
    """Returns the parameters of a run, or of a folder that `write_weights` has written.

    Args:
      folder: one or the other.
      which: "last", or "best" by the config's ``eval.best_metric``; an exported folder has one set of them and takes "last".

    Raises:
      UserError: neither there, no such checkpoint, or a damaged file.
    """
    if which not in ("last", "best"):
        raise UserError(f"which={which!r} must be 'last' or 'best'")
    if (folder / FILE).is_file():
        if which == "best":
            raise UserError(f"{folder} is an exported folder, which holds one set of parameters: leave out which='best'")
        return _read_file(folder / FILE)
    kept, info = restore_run(folder, None, which=which)
    chosen = kept["best" if which == "best" else "state"]
    steps = info["members"][0]["best"]["step"] if which == "best" else int(kept["state"]["step"])
    return Weights({"params": chosen["params"], "batch_stats": chosen.get("batch_stats") or {}}, steps)


def write_weights(folder: Path, weights: Weights, files: Mapping[str, bytes]) -> None:
    """Writes ``model.safetensors`` and other small files into a folder.

    Args:
      folder: made if there is none.
      weights: parameters and statistics.
      files: name -> contents.

    Raises:
      UserError: the extra is not installed, or the folder cannot be written.
    """
    save_file, leaves = _library().numpy.save_file, jax.tree.leaves(weights.variables)
    paths = parameter_paths(weights.variables)
    arrays = {path: np.asarray(leaf, order="C") for path, leaf in zip(paths, leaves, strict=True)}
    about = {"format": "lrnn_jax", "steps": str(weights.steps), "sha256": hash_params(weights.variables)}

    def write(content: bytes) -> Any:
        return lambda path: path.write_bytes(content)

    writers = {FILE: lambda path: save_file(arrays, path, metadata=about)}
    try:
        write_together(folder, writers | {name: write(content) for name, content in files.items()})
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {error.strerror or error}") from error


def check_fit(found: Tree, wanted: Tree, *, source: str) -> None:
    """Refuses parameters of another model.

    Args:
      found: arrays, or their shapes.
      wanted: likewise, of the model that they are for.
      source: what is said not to fit.

    Raises:
      UserError: names the first that differ, parameters before statistics.
    """
    ours, theirs = (
        {path: (leaf.dtype, leaf.shape) for path, leaf in zip(parameter_paths(tree), jax.tree.leaves(tree), strict=True)}
        for tree in (wanted, found)
    )
    paths = [path for path in dict.fromkeys([*ours, *theirs]) if ours.get(path) != theirs.get(path)]
    paths.sort(key=lambda path: not path.startswith("params/"))
    if not paths:
        return
    shown = [f"{path} is {_describe(theirs.get(path))} there and {_describe(ours.get(path))} here" for path in paths[:2]]
    more = f"; and {len(paths) - 2} more" if len(paths) > 2 else ""
    raise UserError(f"{source} does not fit this model: {'; '.join(shown)}{more}")


def _read_file(file: Path) -> Weights:
    library = _library()
    try:
        with library.safe_open(file, framework="numpy") as opened:
            about = opened.metadata() or {}
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no mapping
        found: Any = traverse_util.unflatten_dict(arrays, sep="/")
        weights = Weights({"params": {}, "batch_stats": {}, **found}, int(about.get("steps", "0")))
        if about.get("sha256", "") not in ("", hash_params(weights.variables)):
            raise ValueError("its numbers are not those that were written")
    except (OSError, ValueError, TypeError, AttributeError, library.SafetensorError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{file} is damaged: {said}; export the run again") from error
    return weights


def _describe(leaf: Any) -> str:
    return "absent" if leaf is None else f"{leaf[0]}{list(leaf[1])}"


def _library() -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise UserError("weights as safetensors need the extra: pip install -e '.[export]'") from error
    return safetensors
