"""Checkpoints: every call to Orbax is in this file, since its interface still moves."""

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from lrnn_jax.errors import UserError

Tree = Any

# Orbax warns of its own defaults at every opening; what fails is raised, not only logged.
logging.getLogger("absl").setLevel(logging.ERROR)


class _NewestAndBest(ocp.checkpoint_managers.PreservationPolicy):
    """Keeps the newest ``n`` checkpoints and the one that ``best`` names."""

    def __init__(self, n: int, best: Callable[[], int | None]) -> None:
        self._n = n
        self._best = best

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        oldest_kept = len(checkpoints) - self._n
        return [i >= oldest_kept or checkpoint.step == self._best() for i, checkpoint in enumerate(checkpoints)]


class Checkpoints:
    """The folder of one run's checkpoints: saved asynchronously, the newest few and the best one kept."""

    def __init__(self, folder: Path, *, keep: int = 1, best_metric: str = "", best_mode: str = "max", read_only: bool = False):
        """Opens or makes the folder.

        Args:
          folder: where the checkpoints are, one folder per step.
          keep: newest checkpoints kept.
          best_metric: metric whose best checkpoint is kept too; empty for none.
          best_mode: "max" or "min".
          read_only: neither saves nor deletes.
        """
        self.folder = folder
        self.best_metric = best_metric
        self.best_mode = best_mode
        self._keep = keep
        self._values: dict[int, float] = {}
        self._read_only = read_only
        self._manager = self._open()
        # Orbax would keep the metrics too, but a damaged file of them then stops it from opening the folder at all.
        self._values = self._read_values() if best_metric else {}

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_NewestAndBest(self._keep, lambda: self.best_step),
            cleanup_tmp_directories=not self._read_only,
            read_only=self._read_only,
        )
        handlers: dict[str, Any] = {"state": ocp.StandardCheckpointHandler(), "info": ocp.JsonCheckpointHandler()}
        return ocp.CheckpointManager(self.folder.absolute(), options=options, item_handlers=handlers)

    def _read_values(self) -> dict[int, float]:
        values = {}
        for step in self._manager.all_steps():
            try:
                info = self._manager.restore(step, args=ocp.args.Composite(info=ocp.args.JsonRestore()))["info"]
                values[step] = info["metrics"][self.best_metric]
            except Exception as error:  # noqa: BLE001 - whatever a damaged file raises, or a checkpoint without metrics
                logging.debug("checkpoint of step %d has no %s: %s", step, self.best_metric, error)
        return values

    def save(self, step: int, state: Tree, info: dict[str, Any], metrics: dict[str, float] | None = None) -> None:
        """Starts saving ``state`` and the small dictionary ``info``; returns before they are on disk.

        Args:
          step: names the checkpoint; one that exists already stays as it is.
          state: pytree of arrays. It may be donated as soon as this returns.
          info: JSON values to find again with the state.
          metrics: validation metrics of the state, for choosing the best.

        Raises:
          UserError: the disk is full or cannot be written; earlier checkpoints are intact.
        """
        if step in self._manager.all_steps():
            return
        # On a CPU the writer would read the very buffers that the next step is about to reuse.
        state = jax.tree.map(jnp.copy, state)
        info = {**info, "metrics": metrics or {}}
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), info=ocp.args.JsonSave(info))
        if self.best_metric and self.best_metric in info["metrics"]:
            self._values[step] = info["metrics"][self.best_metric]
        self._guard(lambda: self._manager.save(step, args=arguments, force=True))

    def wait(self) -> None:
        """Returns once everything started is on disk.

        Raises:
          UserError: as `save`.
        """
        self._guard(self._manager.wait_until_finished)

    def restore_newest(self, target: Tree) -> tuple[Tree, dict[str, Any]] | None:
        """Returns (state, info) of the newest checkpoint that can be read, or None where there is none.

        A checkpoint that cannot be read is moved aside to ``corrupt/`` with a warning, and the one before it is tried.

        Args:
          target: pytree of `jax.ShapeDtypeStruct` that the checkpoint must fit.

        Raises:
          UserError: a readable checkpoint of another structure.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self.restore(step, target)
            except UserError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a damaged file raises
                reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
                logging.warning("checkpoint of step %d cannot be read (%s); trying the one before it", step, reason)
                self._set_aside(step)
        return None

    def restore(self, step: int, target: Tree) -> tuple[Tree, dict[str, Any]]:
        """Returns (state, info) of one checkpoint.

        Raises:
          UserError: it holds another structure or other shapes than ``target``.
        """
        self._check_structure(step, target)
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(_on_device(target)), info=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=arguments)
        return restored["state"], dict(restored["info"])

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints on disk, oldest first."""
        return sorted(self._manager.all_steps())

    @property
    def best_step(self) -> int | None:
        """Step of the checkpoint with the best metric, the earliest of equals; None where none was measured."""
        if not self._values:
            return None
        sign = 1.0 if self.best_mode == "max" else -1.0
        return max(sorted(self._values), key=lambda step: sign * self._values[step])

    def is_best(self, metrics: dict[str, float]) -> bool:
        """Says whether ``metrics`` beat those of every checkpoint so far."""
        value, step = metrics[self.best_metric], self.best_step
        if step is None:
            return True
        return value > self._values[step] if self.best_mode == "max" else value < self._values[step]

    def close(self) -> None:
        """Waits for pending saves and lets the folder go."""
        self._manager.close()

    def _check_structure(self, step: int, target: Tree) -> None:
        saved = self._manager.item_metadata(step)["state"]
        if saved is None:
            raise ValueError("its description is missing")
        saved_leaves, target_leaves = _describe(saved), _describe(target)
        for path in sorted({*saved_leaves, *target_leaves}):
            ours, theirs = target_leaves.get(path, "absent"), saved_leaves.get(path, "absent")
            if ours != theirs:
                raise UserError(
                    f"{self.folder / str(step)} is a checkpoint of an incompatible model: {path} is {theirs} there and {ours} "
                    "in this config; use another --workdir"
                )

    def _set_aside(self, step: int) -> None:
        aside = self.folder.parent / "corrupt"
        aside.mkdir(exist_ok=True)
        shutil.rmtree(aside / str(step), ignore_errors=True)
        (self.folder / str(step)).rename(aside / str(step))
        self._values.pop(step, None)
        self._manager.close()
        self._manager = self._open()

    def _guard(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except (OSError, ValueError, RuntimeError) as error:
            kept = ", ".join(map(str, self.steps)) or "none"
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise UserError(f"cannot write a checkpoint in {self.folder}: {reason} (intact: steps {kept})") from error


def _describe(tree: Tree) -> dict[str, str]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    names = ["/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path) for path, _ in leaves]
    return {name: f"{jnp.dtype(leaf.dtype).name}{list(leaf.shape)}" for name, (_, leaf) in zip(names, leaves, strict=True)}


def _on_device(target: Tree) -> Tree:
    """Explicit sharding: the checkpoint may come from a machine with other devices."""
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), target)
