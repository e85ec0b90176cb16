"""Checkpoints: every call to Orbax is in this file, since its interface still moves."""

import functools
import hashlib
import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from lrnn_jax.errors import UserError
from lrnn_jax.runs.files import check_seal, seal

Tree = Any

# Bytes of a checkpoint's small files and folders, and how many of these there are at most while it is written.
_OVERHEAD = 1 << 17
_INODES = 32

# Orbax warns of its own defaults at every opening, and logs the tracebacks of what it raises as well.
logging.getLogger("absl").setLevel(logging.CRITICAL)
logging.getLogger("asyncio").setLevel(logging.CRITICAL)


# What Orbax raises where a file is missing, cut short or garbled. Anything else, such as memory that ran out or a disk that
# does not answer, says nothing about the checkpoint.
DAMAGE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    NotImplementedError,
    RecursionError,
    EOFError,
    FileNotFoundError,
    NotADirectoryError,
    IsADirectoryError,
)


class Checkpoints:
    """A folder of checkpoints: saved asynchronously, the newest few kept.

    Each holds the SHA-256 of its arrays and of all else, so that one flipped bit is noticed.
    """

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
        self._opened: ocp.CheckpointManager | None = None
        try:
            if not read_only:
                folder.mkdir(parents=True, exist_ok=True)
            self._steps()
        except OSError as error:
            raise UserError(f"cannot use {folder}: {error.strerror}") from error

    @property
    def _manager(self) -> ocp.CheckpointManager:
        """What saves and removes; opened by the first save, since it stumbles over damage that reading passes by."""
        if self._opened is None:
            _leave_counters_alone()
            garbled = [step for step in self._steps() if not _has_metadata(self.folder / str(step))]
            if garbled:
                logging.warning("checkpoints of steps %s are damaged; moved aside to corrupt/", _list(garbled))
                self._set_aside(garbled)
            options = ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(self._keep),
                cleanup_tmp_directories=True,
                # else, where a folder cannot be made, threads wait twenty minutes for it and keep the process from ending
                async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False),
            )
            handlers: dict[str, Any] = {"state": ocp.StandardCheckpointHandler(), "info": ocp.JsonCheckpointHandler()}
            self._opened = ocp.CheckpointManager(self.folder.absolute(), options=options, item_handlers=handlers)
        return self._opened

    def _steps(self) -> list[int]:
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal() and path.is_dir())

    def save(self, step: int, state: Tree, info: dict[str, Any]) -> None:
        """Starts saving ``state`` and the small dictionary ``info``; returns before they are on disk.

        Args:
          step: names the checkpoint; one that exists already stays as it is.
          state: pytree of arrays. It may be donated as soon as this returns.
          info: JSON values to find again with the state.

        Raises:
          UserError: the disk is full or cannot be written; earlier checkpoints are intact.
        """
        self._check_space(state)
        if step in self._manager.all_steps():
            return
        # packing copies: on a CPU the writer would read the very buffers that the next step is about to reuse
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(_pack(state)), info=ocp.args.JsonSave(_seal(state, info)))
        self._guard(lambda: self._manager.save(step, args=arguments, force=True))

    def wait(self) -> None:
        """Returns once everything started is on disk.

        Raises:
          UserError: as `save`.
        """
        if self._opened is not None:
            self._guard(self._opened.wait_until_finished)

    def restore_newest(
        self, target: Tree | None, check: Callable[[dict[str, Any]], None] = lambda info: None
    ) -> tuple[Tree, dict[str, Any]] | None:
        """Returns (state, info) of the newest checkpoint that is whole, or None where there is none at all.

        Damaged checkpoints newer than that one are moved aside to ``corrupt/`` with a warning.

        Args:
          target: pytree of `jax.ShapeDtypeStruct` that the checkpoint must fit; None takes dictionaries of whatever it holds.
          check: refuses an info, before the state is read, by raising UserError.

        Raises:
          UserError: an intact checkpoint of another structure, or none of several can be read.
        """
        damaged: dict[int, str] = {}
        _hush_dropped_reads()
        for step in reversed(self._steps()):
            try:
                restored = self._restore(step, target, check)
            except UserError:
                raise
            except DAMAGE as error:
                damaged[step] = _first_line(error)
                continue
            except OSError as error:
                raise UserError(f"cannot read {self.folder / str(step)}: {_first_line(error)}") from error
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

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        # where something else went wrong already, that is what is to be told
        with suppress(UserError) if error else nullcontext():
            self.close()

    def close(self) -> None:
        """Waits for pending saves and lets the folder go.

        Raises:
          UserError: as `save`.
        """
        if self._opened is not None:
            self._guard(self._opened.close)

    def _restore(self, step: int, target: Tree | None, check: Callable[[dict[str, Any]], None]) -> tuple[Tree, dict[str, Any]]:
        place = (self.folder / str(step)).absolute()
        sealed = _unseal(json.loads((place / "info" / "metadata").read_bytes()))
        check(sealed.info)
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
            saved: Any = None if sealed.packed else reader.metadata(place / "state").item_metadata.tree
            shapes = sealed.shapes or _describe(saved)
            if target is not None:
                self._check_structure(step, target, shapes)
            if sealed.packed:
                vectors = reader.restore(place / "state", args=ocp.args.StandardRestore(_empty_vectors(shapes)))
                state = _unpack(vectors, shapes, target)
            else:
                wanted = saved if target is None else target
                state = reader.restore(place / "state", args=ocp.args.StandardRestore(_on_device(wanted)))
        if sealed.digest is not None and _digest(state) != sealed.digest:
            raise ValueError("its arrays are not those that were saved")
        return state, sealed.info

    def _check_structure(self, step: int, target: Tree, shapes: Mapping[str, str]) -> None:
        wanted = _describe(target)
        for path in sorted({*shapes, *wanted}):
            ours, theirs = wanted.get(path, "absent"), shapes.get(path, "absent")
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

    def _check_space(self, state: Tree) -> None:
        """Asked first, because on a full disk Orbax's own threads print a page of tracebacks before the error arrives."""
        try:
            free, disk = shutil.disk_usage(self.folder).free, os.statvfs(self.folder)
        except OSError as error:
            raise UserError(
                f"cannot write a checkpoint in {self.folder}: {error.strerror}; was it removed while the run went on?"
            ) from error
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _OVERHEAD
        if free < needed:
            wanting = f"about {needed:,} bytes and the disk has {free:,} left"
        elif disk.f_files and disk.f_favail < _INODES:  # some file systems have no limit, and say 0
            wanting = f"about {_INODES} files and the disk has room for {disk.f_favail} more"
        else:
            return
        raise UserError(f"cannot write a checkpoint in {self.folder}: it needs {wanting} (intact: steps {self._intact()})")

    def _guard(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except (OSError, ValueError, RuntimeError) as error:
            reason = _first_line(error)
            raise UserError(f"cannot write a checkpoint in {self.folder}: {reason} (intact: steps {self._intact()})") from error

    def _intact(self) -> str:
        with suppress(OSError):
            return _list(self._steps())
        return "none"


def _list(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps)) or "none"


def _has_metadata(folder: Path) -> bool:
    """Says whether a checkpoint's description of itself can be read."""
    try:
        return isinstance(json.loads((folder / "_CHECKPOINT_METADATA").read_bytes()), dict)
    except (OSError, ValueError, RecursionError):
        return False


@functools.cache
def _leave_counters_alone() -> None:
    """Every save of Orbax reads TensorStore's counters of bytes, only to log them, and TensorStore frees no answer (0.1.86)."""
    with suppress(ImportError):
        from orbax.checkpoint._src.serialization import tensorstore_utils

        if hasattr(tensorstore_utils, "get_tensorstore_raw_bytes"):
            tensorstore_utils.get_tensorstore_raw_bytes = lambda *_, **__: 0


@functools.cache
def _hush_dropped_reads() -> None:
    """Where one array cannot be read, Orbax drops those that are still being read, and each of them complains on its own."""
    earlier = sys.unraisablehook

    def hook(found: Any) -> None:
        coroutine = getattr(found.object, "cr_code", None)
        if str(found.exc_value) != "Event loop is closed" and (coroutine is None or "orbax" not in coroutine.co_filename):
            earlier(found)

    sys.unraisablehook = hook


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    return line if len(line) <= 240 else f"{line[:120]} ... {line[-120:]}"  # the cause often stands at the end


class _Sealed(NamedTuple):
    """A checkpoint's info, and of its arrays the shapes, the digest and whether they are packed; older ones may lack these."""

    info: dict[str, Any]
    shapes: dict[str, str] | None = None
    digest: str | None = None
    packed: bool = False


def _seal(state: Tree, info: dict[str, Any]) -> dict[str, Any]:
    """Returns what is written as a checkpoint's info: the info, shapes and digest of the arrays, and a digest of it all."""
    return seal({"info": info, "shapes": _describe(state), "arrays": _digest(state), "packed": True})


def _unseal(said: Any) -> _Sealed:
    """Returns what `_seal` was given and has added.

    Raises:
      ValueError: they are not those that were written.
    """
    if not isinstance(said, dict) or not said:
        raise ValueError("its info is empty")
    if not {"info", "shapes", "arrays", "sha256"} & set(said):
        return _Sealed(said)
    check_seal(said)
    return _Sealed(said["info"], said["shapes"], said["arrays"], said.get("packed", False))


def _pack(state: Tree) -> dict[str, np.ndarray]:
    """Returns all arrays of a dtype end to end, in the order of names, as one vector.

    Of every array of every save, TensorStore keeps half a kilobyte for ever; and few are written faster than many.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for _, leaf in sorted(_name_leaves(state).items()):
        parts.setdefault(jnp.dtype(leaf.dtype).name, []).append(np.asarray(leaf).reshape(-1))
    return {dtype: np.concatenate(each) for dtype, each in parts.items()}


def _empty_vectors(shapes: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Returns what `_pack` has made, as far as shapes go: on the host, so that a device holds the state once."""
    sizes: dict[str, int] = {}
    for described in shapes.values():
        dtype, shape = _read_description(described)
        sizes[dtype] = sizes.get(dtype, 0) + math.prod(shape)
    return {dtype: np.empty(size, jnp.dtype(dtype)) for dtype, size in sizes.items()}


def _unpack(vectors: Mapping[str, np.ndarray], shapes: Mapping[str, str], target: Tree | None) -> Tree:
    """Returns the arrays as the tree ``target``, or as dictionaries by name."""
    begun = dict.fromkeys(vectors, 0)
    arrays: dict[str, jax.Array] = {}
    for name, described in sorted(shapes.items()):
        dtype, shape = _read_description(described)
        first, begun[dtype] = begun[dtype], begun[dtype] + math.prod(shape)
        arrays[name] = jnp.array(vectors[dtype][first : begun[dtype]].reshape(shape))
    if target is not None:
        return jax.tree.unflatten(jax.tree.structure(target), [arrays[name] for name in _name_leaves(target)])
    return traverse_util.unflatten_dict(arrays, sep="/")


def _digest(tree: Tree) -> str:
    """Returns the SHA-256 of every array's name, dtype, shape and bits, in the order of names."""
    digest = hashlib.sha256()
    for name, leaf in sorted(_name_leaves(tree).items()):
        digest.update(f"{name} {_describe_leaf(leaf)}\n".encode())
        digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _describe(tree: Tree) -> dict[str, str]:
    return {name: _describe_leaf(leaf) for name, leaf in _name_leaves(tree).items()}


def _describe_leaf(leaf: Any) -> str:
    return f"{jnp.dtype(leaf.dtype).name}{list(leaf.shape)}"


def _read_description(text: str) -> tuple[str, list[int]]:
    """Returns dtype and shape of what `_describe_leaf` has written."""
    dtype, _, shape = text.partition("[")
    return dtype, json.loads(f"[{shape}")


def _name_leaves(tree: Tree) -> dict[str, Any]:
    leaves = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        keys = [jax.tree_util.keystr((key,), simple=True) for key in path]
        if any("/" in key for key in keys):
            raise UserError(f"cannot save {keys}: a name with '/' cannot be told from a name inside another")
        leaves["/".join(keys)] = leaf
    return leaves


def _on_device(target: Tree) -> Tree:
    """Explicit sharding: the checkpoint may come from a machine with other devices."""
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), target)
