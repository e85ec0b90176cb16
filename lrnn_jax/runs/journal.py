"""A run's lines of metrics a second time, beside its checkpoints. Each of these says how many lines there were at its step."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from lrnn_jax.errors import UserError
from lrnn_jax.runs.files import replace_bytes


class Journal:
    """A file that only grows: a checkpoint holds its length and digest, not the lines, however many were logged.

    Lines that are damaged or lost in ``metrics.jsonl`` are found here, and the other way round.
    """

    def __init__(self, file: Path) -> None:
        """Names the file; nothing is touched yet."""
        self.file = file
        self._bytes = 0
        self._digest = hashlib.sha256()

    def mark(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps of it, as JSON values: bytes so far, and their SHA-256."""
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}

    def follow(self, metrics_file: Path) -> dict[str, Any]:
        """Adds what a file of metrics has beyond this one, and returns the new `mark`.

        Raises:
          UserError: the disk is full or cannot be written.
        """
        if not metrics_file.exists():  # nothing has been logged yet
            return self.mark()
        try:
            with metrics_file.open("rb") as source:
                source.seek(self._bytes)
                new = source.read()
            if not new:
                return self.mark()
            with self.file.open("ab") as target:
                target.write(new)
                target.flush()
                os.fsync(target.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self.file}: {error.strerror}") from error
        self._bytes += len(new)
        self._digest.update(new)
        return self.mark()

    def find(self, mark: dict[str, Any], metrics_file: Path) -> bytes:
        """Returns the lines up to a mark, from here or from the file of metrics.

        Raises:
          ValueError: neither has them.
        """
        if not mark["bytes"]:
            return b""
        for file in (self.file, metrics_file):
            with suppress(OSError), file.open("rb") as source:
                lines = source.read(mark["bytes"])
                if hashlib.sha256(lines).hexdigest() == mark["sha256"]:
                    return lines
        raise ValueError(f"its lines of metrics are damaged in {self.file.name} and in {metrics_file} too")

    def restore(self, lines: bytes) -> None:
        """Becomes these lines.

        Raises:
          UserError: the disk is full or cannot be written.
        """
        if lines:
            replace_bytes(self.file, lines)
        else:
            try:
                self.file.unlink(missing_ok=True)
            except OSError as error:
                raise UserError(f"cannot remove {self.file}: {error.strerror}") from error
        self._bytes, self._digest = len(lines), hashlib.sha256(lines)
