"""What was made of files once, kept in the user's cache folder: there whole and unchanged, or made anew."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lrnn_jax.data.finding import expand
from lrnn_jax.errors import UserError

_HALF = ".half-"


def cache_folder() -> Path:
    """Returns LRNN_CACHE_DIR, by default a folder of the user's.

    Raises:
      UserError: neither is known, as in a container without a home.
    """
    given = os.environ.get("LRNN_CACHE_DIR") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "lrnn_jax")  # noqa: PTH118
    folder = expand(given)
    if folder.parts[:1] and folder.parts[0].startswith("~"):
        raise UserError(f"no folder to keep data in: {given} has no home here; set LRNN_CACHE_DIR")
    return folder


def keep_folder(folder: Path, last: str, write: Callable[[Path], Mapping[str, Any]], *, what: str) -> dict[str, Any]:
    """Returns what ``last`` says of a folder; one that is not there whole and unchanged is written beside it, then renamed.

    Args:
      folder: in the `cache_folder`.
      last: a JSON file of it, with what ``write`` returned and each file's bytes and SHA-256.
      write: puts all other files into the folder that it is given, and says what they are.
      what: for messages, such as "tokens".

    Raises:
      UserError: the disk is full or cannot be written. Nothing is left behind, nor when ``write`` raises.
    """
    if (found := read_kept(folder, last)) is not None:
        return found
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder.parent)
        half = Path(tempfile.mkdtemp(prefix=_HALF, dir=folder.parent))
    except OSError as error:
        raise UserError(f"cannot write {what} in {folder.parent} ({error.strerror}); set LRNN_CACHE_DIR") from error
    try:
        said = dict(write(half))
        said["files"] = {path.name: _describe(path) for path in sorted(half.iterdir())}
        (half / last).write_text(json.dumps(said | {"sha256": _digest(said)}), encoding="utf-8")
        _flush(half)
        # another process may have been first
        if (found := read_kept(folder, last)) is not None:
            return found
        shutil.rmtree(folder, ignore_errors=True)
        half.rename(folder)
        _sync(folder.parent)
    except OSError as error:
        if (found := read_kept(folder, last)) is not None:
            return found
        raise UserError(f"cannot write {what} in {folder.parent}: {error.strerror}; set LRNN_CACHE_DIR") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return said


def read_kept(folder: Path, last: str) -> dict[str, Any] | None:
    """Returns what ``last`` says of a folder, or None unless every file is there as it was written."""
    try:
        said = json.loads((folder / last).read_bytes())
        whole = said.pop("sha256") == _digest(said) and all(
            _describe(folder / name) == it for name, it in said["files"].items()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return said if whole else None


def _digest(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _describe(path: Path) -> list[Any]:
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]


def _flush(folder: Path) -> None:
    """A rename may reach the disk before what is renamed."""
    for path in (*folder.iterdir(), folder):
        _sync(path)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _remove_stale(cache: Path) -> None:
    """Removes what killed processes left half-made a day ago or longer."""
    for half in cache.glob(f"{_HALF}*"):
        # its own process may rename it at any time
        with suppress(FileNotFoundError):
            # a folder's own time stands still while its files grow
            newest = max(path.stat().st_mtime for path in (half, *half.iterdir()))
            if newest < time.time() - 86_400:
                shutil.rmtree(half, ignore_errors=True)
