"""The files that a path, a folder or a pattern means: the same ones by each way, every one once, in a fixed order."""

import fnmatch
import glob
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lrnn_jax.errors import UserError

# Files and folders that are looked at before the folder is taken for a slip.
MOST = 1_000_000


def find_files(data: str, data_dir: str, *, field: str, reads: Callable[[Path], bool]) -> list[Path]:
    """Returns a file, those of a folder that ``reads`` accepts, or those that a pattern such as "books/**/*.txt" meets.

    What is there is a path before it is a pattern: ``notes[1].txt``. Links are followed, and each folder is read once, however
    many lead to it. Hidden files and folders are left out, unless the pattern names them; what is left out is said.

    Args:
      data: path or pattern.
      data_dir: where relative ones are, if not here.
      field: what is said to be wrong, such as "task.data='x'".
      reads: which files of a folder are meant.

    Raises:
      UserError: a folder or link that cannot be read, the whole disk, or more than `MOST` files. Not where nothing is found.
    """
    for base in dict.fromkeys(["", data_dir]):
        whole = os.path.expanduser(os.path.join(base, data))  # noqa: PTH111, PTH118 - a pattern, not yet a path
        if os.path.isfile(whole):  # noqa: PTH113 - no name is too long for it
            return [Path(whole).absolute()]
        root, pattern = _split_pattern(whole)
        if root and (files := sorted(_walk(root, pattern, field, reads))):
            return files
    return []


def expand(path: str) -> Path:
    """Returns a path with the home that ``~`` stands for; as it is where there is no such home."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def _split_pattern(whole: str) -> tuple[Path | None, list[str]]:
    """Returns the folder that is there and the parts of the pattern that are left; no folder where they are no pattern."""
    path, left = whole, list[str]()
    while not os.path.isdir(path):  # noqa: PTH112 - no name is too long for it
        path, name = os.path.split(path)
        left.insert(0, name)
        if not name:
            return None, left
        path = path or "."
    return Path(path) if not left or any(map(glob.has_magic, left)) else None, left


def _walk(root: Path, pattern: Sequence[str], field: str, reads: Callable[[Path], bool]) -> Iterator[Path]:
    """Yields files, those of real folders before those behind links."""
    deep = not pattern or "**" in pattern
    if deep and root.samefile(os.sep):
        raise UserError(f"{field} is the whole disk; name the folder that holds the text")
    folders, links, seen, count = deque([(root, list[str]())]), deque[tuple[Path, list[str]]](), set(), 0
    hidden, others = list[Path](), list[Path]()
    while folders or links:
        folder, parts = (folders or links).popleft()
        try:
            about, entries = folder.stat(), sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"{field}: cannot read {folder}: {error.strerror}") from error
        if (about.st_dev, about.st_ino) in seen:
            continue
        seen.add((about.st_dev, about.st_ino))
        count += len(entries)
        if count > MOST:
            raise UserError(f"{field}: there are more than {MOST} files and folders; name a folder nearer to the text")
        for entry in entries:
            path, own, link = folder / entry.name, [*parts, entry.name], entry.is_symlink()
            is_folder = os.path.isdir(path) if link else entry.is_dir()  # noqa: PTH112 - nor for a link to itself
            if _is_hidden(entry.name, pattern):
                hidden += [path] if is_folder or reads(path) else []
            elif is_folder:
                if deep or len(own) < len(pattern):
                    (links if link else folders).append((path, own))
            elif not (_matches(own, pattern) if pattern else reads(path)):
                others.append(path)
            elif path.is_file():
                yield path.absolute()
            elif link:
                raise UserError(f"{field}: {path} is a link that leads nowhere")
    if deep and (hidden or (others and not pattern)):
        said = [("hidden", hidden), ("of other kinds", [] if pattern else others)]
        what = "; ".join(f"{kind} {_name_some(paths)}" for kind, paths in said if paths)
        logging.getLogger(__name__).warning("%s: left out, as %s", field, what)


def _is_hidden(name: str, pattern: Sequence[str]) -> bool:
    return name.startswith(".") and not any(part.startswith(".") and fnmatch.fnmatchcase(name, part) for part in pattern)


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether names meet a pattern's, of which ``**`` stands for any number of folders."""
    if not pattern or not parts:
        return not parts and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _name_some(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths[:3])) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
