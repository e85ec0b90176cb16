"""Small files, read and written in one piece."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lrnn_jax.errors import UserError


def read_object(file: Path) -> dict[str, Any]:
    """Returns a JSON object.

    Raises:
      OSError, ValueError: it cannot be read, or is none; names the file and says why.
    """
    try:
        fields = json.loads(file.read_bytes())
    except OSError as error:
        raise OSError(f"{file.name}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.name}: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{file.name}: holds {type(fields).__name__}, not an object")
    return fields


def seal(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a JSON object with its own digest as ``sha256``, so that `check_seal` notices damage."""
    return {**fields, "sha256": _hash_fields(fields)}


def check_seal(fields: Mapping[str, Any]) -> None:
    """Refuses a JSON object that is not what `seal` returned; one that was never sealed passes.

    Raises:
      ValueError: its digest is another.
    """
    if "sha256" in fields and fields["sha256"] != _hash_fields(fields):
        raise ValueError("it is not what was written: its sha256 is another")


def _hash_fields(fields: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in fields.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Writes JSON in one piece: readers and a killed writer see the old file or the new one, never a part.

    Raises:
      UserError: the disk is full or cannot be written; an earlier file is intact.
    """
    replace_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Replaces a file's text in one piece, as `write_json`."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Replaces a file's bytes in one piece, as `write_json`."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def write_together(folder: Path, writers: Mapping[str, Callable[[Path], object]]) -> None:
    """Writes files into a folder, all before the first is replaced: no reader, and no other writer, sees half of one.

    Args:
      folder: made if there is none.
      writers: file name -> what writes it at a path.

    Raises:
      OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".write") as scratch:
        for name, write in writers.items():
            file = Path(scratch, name)
            file.touch()
            mode = file.stat().st_mode  # as this user makes files; a library may make them for itself alone
            write(file)
            file.chmod(mode)
        for file in Path(scratch).iterdir():
            file.replace(folder / file.name)
