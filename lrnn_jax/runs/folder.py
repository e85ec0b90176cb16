"""A run's folder: its lock, its config, its metrics and its result."""

import fcntl
import json
import math
import os
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lrnn_jax.config.identity import config_hash, differing_fields, restore_config
from lrnn_jax.errors import UserError
from lrnn_jax.runs.files import read_object, replace_bytes, replace_text, write_json
from lrnn_jax.runs.results import Result, check_result, hash_lines


class RunFolder:
    """One run on disk: ``config.json``, ``metrics.jsonl``, ``result.json`` and ``checkpoints/``."""

    def __init__(self, path: Path) -> None:
        """Names the folder; nothing is touched yet."""
        self.path = path
        self.config_file = path / "config.json"
        self.metrics_file = path / "metrics.jsonl"
        self.result_file = path / "result.json"
        self.checkpoint_folder = path / "checkpoints"
        self._lock_file = path / ".lock"
        self._lock: int | None = None
        self._size: int | None = None  # of metrics.jsonl, as it was left

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for this process; the lock goes with the process, however that ends.

        Raises:
          UserError: another process holds it, or the folder cannot be made or locked.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"cannot write in --workdir={self.path}: {error.strerror}") from error
        try:
            self._take_lock(self._lock)
            yield
        finally:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
            raise UserError(
                f"{self.path} is being written by another process (pid {owner}); wait or choose another --workdir"
            ) from error
        except OSError as error:
            raise UserError(f"--workdir={self.path} is on a disk that gives no lock: {error.strerror}") from error
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
        except OSError as error:
            raise UserError(f"cannot write in --workdir={self.path}: {error.strerror}") from error
        self.check_held()

    def check_held(self) -> None:
        """Refuses to write once the folder that was locked is not there any more, or another one is in its place.

        Raises:
          UserError: it is not, and whatever is there now belongs to somebody else; or its lines of metrics are not those that
            this run wrote.
        """
        if self._lock is None:
            return
        try:
            held = os.path.samestat(os.fstat(self._lock), self._lock_file.stat())
        except OSError:
            held = False
        if not held:
            raise UserError(
                f"{self.path} was removed or replaced while this run was writing it; nothing more is written there, "
                "and the same command starts anew"
            )
        if self._size is not None and self._size != _size(self.metrics_file):
            raise UserError(
                f"{self.metrics_file} was changed or removed while this run was writing it; the same command goes on from the "
                "last checkpoint, with the lines up to there"
            )

    def claim(self, config: ConfigDict, records: Mapping[str, str]) -> None:
        """Writes ``config.json`` and the task's records, or checks that those there describe the same run.

        Raises:
          UserError: the folder holds another config's run (says which fields differ), or cannot be written.
        """
        if self.config_file.exists():
            differences = differing_fields(config, self.read_config().to_dict())
            if differences and self._has_begun():
                shown = "; ".join(differences[:5]) + (f"; and {len(differences) - 5} more" if len(differences) > 5 else "")
                raise UserError(
                    f"{self.path} holds another config's run, which differs in {shown} (this config -> that run); "
                    "choose another --workdir"
                )
            if not differences:
                self.check_records(records)
                return
        if any(self.path.glob("*/config.json")):
            raise UserError(f"--workdir={self.path} holds runs: a single run needs a folder of its own, such as {self.path}/x")
        # what a save has left that was cut short is none
        if self._has_checkpoint():
            raise UserError(f"{self.path} holds checkpoints but no config.json; choose another --workdir")
        for name, text in records.items():
            replace_text(self.path / name, text)
        write_json(self.config_file, config.to_dict())

    def _has_begun(self) -> bool:
        """Whether there is anything to lose: a run that was out of memory at once has left only its config."""
        return self._has_checkpoint() or self.result_file.exists() or bool(self.read_metrics())

    def _has_checkpoint(self) -> bool:
        return any(path.name.isdecimal() for path in self.checkpoint_folder.glob("*"))

    def check_records(self, records: Mapping[str, str]) -> None:
        """Refuses data other than those that the run began with.

        Raises:
          UserError: names the record that differs.
        """
        for name, text in records.items():
            file = self.path / name
            if not file.is_file() or file.read_bytes() != text.encode():
                raise UserError(
                    f"{self.path} was trained on other data: {name} there differs from this task's; choose another --workdir"
                )

    def read_config(self) -> ConfigDict:
        """Returns the run's resolved config.

        Raises:
          UserError: there is no readable ``config.json``.
        """
        if not self.config_file.exists():
            if inside := sorted(self.path.glob("*/config.json")):
                raise UserError(f"{self.path} is a folder of runs, not one of them: take {str(inside[0].parent)!r}")
            raise UserError(
                f"{self.path} is not a run: there is no config.json in it; `lrnn train` or lrnn_jax.train makes one"
            )
        try:
            return restore_config(read_object(self.config_file))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.path} is not a run: cannot read {error}; choose another folder, or remove this one to start over"
            ) from error

    def read_result(self, config: ConfigDict | None = None) -> Result | None:
        """Returns ``result.json``, or None where the run has not ended or what is there is no result.

        Nor is one whose lines of metrics are not those that it was written with: the last checkpoint has them. Nor is another
        config's, where ``config`` is given: a run that was still writing when its folder was removed may have left it there.
        """
        try:
            result = self.load_result()
            lines = hash_lines(self.parse_metrics())
        except (OSError, ValueError):
            return None
        whole = result.get("lines_sha256", lines) == lines
        return result if whole and (config is None or is_result_of(config, result)) else None

    def load_result(self) -> Result:
        """Returns ``result.json``.

        Raises:
          OSError, ValueError: it cannot be read, or is no result; says why.
        """
        return check_result(read_object(self.result_file), self.result_file.name)

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Adds one line to ``metrics.jsonl``; values that are not finite become null.

        Raises:
          UserError: the disk is full or cannot be written.
        """
        self.check_held()
        clean = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in line.items()}
        try:
            with self.metrics_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(clean) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self.metrics_file}: {error.strerror}") from error
        self._size = _size(self.metrics_file)

    def read_metrics(self) -> list[str]:
        """Returns the lines of ``metrics.jsonl``; none where it does not exist yet."""
        return (
            self.metrics_file.read_text(encoding="utf-8", errors="replace").splitlines() if self.metrics_file.exists() else []
        )

    def parse_metrics(self) -> list[dict[str, Any]]:
        """Returns the lines as dictionaries; one that a full disk or a crash has cut short is left out."""
        lines = []
        for text in self.read_metrics():
            with suppress(ValueError, RecursionError):
                line = json.loads(text)
                lines += [line] if isinstance(line, dict) else []
        return lines

    def restore_metrics(self, lines: bytes) -> None:
        """Makes ``metrics.jsonl`` what it was at a checkpoint: the resumed run writes all later lines again."""
        self._size = None
        self.check_held()
        replace_bytes(self.metrics_file, lines)
        self._size = _size(self.metrics_file)

    def write_result(self, result: Result) -> None:
        """Writes ``result.json`` in one piece."""
        self.check_held()
        write_json(self.result_file, result)


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None


def is_result_of(config: ConfigDict, result: Mapping[str, Any]) -> bool:
    """Says whether a result is a config's own, as far as the result tells."""
    own = config_hash(config)
    return result.get("config_hash", own) == own


def allow_open_files(runs: int) -> None:
    """Raises this process's limit of open files to what so many locked folders need.

    Raises:
      UserError: the system allows fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # a lock each, and everything else in the process; a shell's usual limit is 1024
    needed = runs + 512
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise UserError(f"{runs} runs at once need {needed} open files, and the system allows {hard}: train fewer at once")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
