"""What was made of files once, kept in the user's cache folder: there whole or not at all."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lrnn_jax.errors import UserError

_HALF = ".half-"


def cache_folder() -> Path:
    """Returns LRNN_CACHE_DIR, by default a folder of the user's."""
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("LRNN_CACHE_DIR") or Path(user) / "lrnn_jax")


def keep_folder(folder: Path, last: str, write: Callable[[Path], object], *, what: str) -> None:
    """Writes everything beside the folder, then renames it.

    Args:
      folder: in the `cache_folder`.
      last: a file of it, whose presence says that the folder is whole.
      write: puts all files into the folder that it is given.
      what: for messages, such as "tokens".

    Raises:
      UserError: the disk is full or cannot be written. Nothing is left behind, nor when ``write`` raises.
    """
    if (folder / last).exists():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder.parent)
        half = Path(tempfile.mkdtemp(prefix=_HALF, dir=folder.parent))
    except OSError as error:
        raise UserError(f"cannot write {what} in {folder.parent} ({error.strerror}); set LRNN_CACHE_DIR") from error
    try:
        write(half)
        if not (folder / last).exists():
            shutil.rmtree(folder, ignore_errors=True)
            half.rename(folder)
    except OSError as error:
        # another process may have been first
        if not (folder / last).exists():
            raise UserError(f"cannot write {what} in {folder.parent}: {error.strerror}; set LRNN_CACHE_DIR") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _remove_stale(cache: Path) -> None:
    """Removes what killed processes left half-made a day ago or longer."""
    for half in cache.glob(f"{_HALF}*"):
        # its own process may rename it at any time
        with suppress(FileNotFoundError):
            # a folder's own time stands still while its files grow
            newest = max(path.stat().st_mtime for path in (half, *half.iterdir()))
            if newest < time.time() - 86_400:
                shutil.rmtree(half, ignore_errors=True)
