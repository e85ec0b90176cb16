"""Checkpoints: every call to Orbax is in this file, since its interface still moves."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from lrnn_jax.errors import UserError

Tree = Any

# Bytes of a checkpoint's small files and folders.
_OVERHEAD = 1 << 17

# Orbax warns of its own defaults at every opening, and logs the tracebacks of what it raises as well.
logging.getLogger("absl").setLevel(logging.CRITICAL)
logging.getLogger("asyncio").setLevel(logging.CRITICAL)


# What Orbax raises where a file is missing, cut short or garbled. Anything else, such as memory that ran out or a disk that
# does not answer, says nothing about the checkpoint.
DAMAGE = (ValueError, KeyError, TypeError, FileNotFoundError, NotADirectoryError)


class Checkpoints:
    """A folder of checkpoints: saved asynchronously, the newest few kept."""

    def __init__(self, folder: Path, *, keep: int = 1, read_only: bool = False):
        """Opens or makes the folder.

        Args:
          folder: where the checkpoints are, one folder per step.
          keep: newest checkpoints kept.
          read_only: neither saves, nor deletes, nor moves anything.
        """
        self.folder = folder
        self._keep = keep
        self._read_only = read_only
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(self._keep),
            cleanup_tmp_directories=not self._read_only,
            read_only=self._read_only,
        )
        handlers: dict[str, Any] = {"state": ocp.StandardCheckpointHandler(), "info": ocp.JsonCheckpointHandler()}
        return ocp.CheckpointManager(self.folder.absolute(), options=options, item_handlers=handlers)

    def save(self, step: int, state: Tree, info: dict[str, Any]) -> None:
        """Starts saving ``state`` and the small dictionary ``info``; returns before they are on disk.

        Args:
          step: names the checkpoint; one that exists already stays as it is.
          state: pytree of arrays. It may be donated as soon as this returns.
          info: JSON values to find again with the state.

        Raises:
          UserError: the disk is full or cannot be written; earlier checkpoints are intact.
        """
        if step in self._manager.all_steps():
            return
        self._check_space(state)
        # On a CPU the writer would read the very buffers that the next step is about to reuse.
        state = jax.tree.map(jnp.copy, state)
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), info=ocp.args.JsonSave(info))
        self._guard(lambda: self._manager.save(step, args=arguments, force=True))

    def wait(self) -> None:
        """Returns once everything started is on disk.

        Raises:
          UserError: as `save`.
        """
        self._guard(self._manager.wait_until_finished)

    def restore_newest(self, target: Tree | None) -> tuple[Tree, dict[str, Any]] | None:
        """Returns (state, info) of the newest checkpoint that can be read, or None where there is none at all.

        Damaged checkpoints newer than that one are moved aside to ``corrupt/`` with a warning.

        Args:
          target: pytree of `jax.ShapeDtypeStruct` that the checkpoint must fit; None takes dictionaries of whatever it holds.

        Raises:
          UserError: a readable checkpoint of another structure, or none of several can be read.
        """
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._restore(step, target)
            except UserError:
                raise
            except DAMAGE as error:
                damaged[step] = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
                continue
            for newer, reason in damaged.items():
                logging.warning("checkpoint of step %d cannot be read (%s); using the one of step %d", newer, reason, step)
            if damaged and not self._read_only:
                self._set_aside(list(damaged))
            return restored
        if damaged:
            step, reason = next(iter(damaged.items()))
            raise UserError(
                f"{self.folder}: no checkpoint can be read (step {step}: {reason}); remove the folder to start over"
            )
        return None

    def close(self) -> None:
        """Waits for pending saves and lets the folder go.

        Raises:
          UserError: as `save`.
        """
        self._guard(self._manager.close)

    def _restore(self, step: int, target: Tree | None) -> tuple[Tree, dict[str, Any]]:
        if target is None:
            target = self._manager.item_metadata(step)["state"]
        else:
            self._check_structure(step, target)
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(_on_device(target)), info=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=arguments)
        return restored["state"], dict(restored["info"])

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

    def _set_aside(self, steps: list[int]) -> None:
        aside = self.folder.parent / "corrupt"
        aside.mkdir(exist_ok=True)
        for step in steps:
            shutil.rmtree(aside / str(step), ignore_errors=True)
            (self.folder / str(step)).rename(aside / str(step))
        self._manager.close()
        self._manager = self._open()

    def _check_space(self, state: Tree) -> None:
        """Asked first, because on a full disk Orbax's own threads print a page of tracebacks before the error arrives."""
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _OVERHEAD
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            kept = ", ".join(map(str, sorted(self._manager.all_steps()))) or "none"
            raise UserError(
                f"cannot write a checkpoint in {self.folder}: it needs about {needed:,} bytes and the disk has {free:,} left "
                f"(intact: steps {kept})"
            )

    def _guard(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except (OSError, ValueError, RuntimeError) as error:
            kept = ", ".join(map(str, sorted(self._manager.all_steps()))) or "none"
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
