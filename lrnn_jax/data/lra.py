"""Readers of the Long Range Arena's release: ListOps, pairs of papers, Pathfinder. What is wrong is said with file and line.

Every reader takes ``bad``: None refuses the first wrong row, a list takes the messages of all that are then left out.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from lrnn_jax.data.finding import expand
from lrnn_jax.errors import UserError

RELEASE = "https://storage.googleapis.com/long-range-arena/lra_release.gz"
LISTOPS_TOKENS = ("[MIN", "[MAX", "[MED", "[SM", "]", *"0123456789")
# The archive holds itself twice; what lies in the inner folder is what the papers used.
_PLACES = ("lra_release/lra_release", "lra_release", "")
# Of the release itself, by its makers' own list.
_KNOWN_EMPTY = "pathfinder32/curv_baseline/imgs/0/sample_172.png"
_LISTOPS_HEADER = b"Source\tTarget"
_PAIR_COLUMNS = ("label", "id1", "id2", "text1", "text2")

T = TypeVar("T")


class ListOpsRow(NamedTuple):
    """One expression.

    Attributes:
      source: as in the file, words and parentheses between spaces.
      label: its value, 0 to 9.
    """

    source: str
    label: int


class PairRow(NamedTuple):
    """Two papers.

    Attributes:
      label: 1 where one cites the other, else 0.
      ids: of both.
      texts: of both.
    """

    label: int
    ids: tuple[str, str]
    texts: tuple[str, str]


class ImageRow(NamedTuple):
    """An image's file and its label: 1 where one curve joins the two dots, else 0."""

    path: Path
    label: int


def find_release(part: str, data_dir: str = "") -> Path:
    """Returns where a part of the release is.

    Args:
      part: path inside the release, such as "listops-1000" or "pathfinder32/curv_contour_length_14".
      data_dir: where the release was unpacked; empty: the environment's LRNN_DATA_DIR.

    Raises:
      UserError: it is not there; says what is missing, where it comes from and where to put it.
    """
    root = data_dir or os.environ.get("LRNN_DATA_DIR", "")
    if not root:
        raise UserError(f"no folder to look for {part} in: set task.data_dir or LRNN_DATA_DIR (it is part of {RELEASE})")
    places = [expand(root) / place / part for place in _PLACES]
    for place in places:
        if place.exists():
            return place
    raise UserError(f"no {part} in {root}: unpack {RELEASE} so that there is {places[0]} (or {places[1]}, or {places[2]})")


def read_listops(path: Path, *, bad: list[str] | None = None) -> Iterator[ListOpsRow]:
    r"""Yields the rows of a ListOps file: ``Source<TAB>Target`` in its first line, then ``( ( ( [MAX 2 ) 9 ) ] )<TAB>9``.

    Args:
      path: such as ``listops-1000/basic_train.tsv``.
      bad: see the module.

    Raises:
      UserError: no file, an empty or truncated one, another header; another number of columns, a label that is no digit,
        an unknown word, unbalanced brackets, bytes that are not UTF-8.
    """
    lines = _read_lines(path)
    _, header = next(lines)
    if header.rstrip(b"\r\n") != _LISTOPS_HEADER:
        raise UserError(f"{path}:1 must be the header {_LISTOPS_HEADER.decode()!r}, not {_show(header)}")
    yield from _parse_rows(path, lines, _parse_listops, bad)


def _parse_listops(line: bytes) -> ListOpsRow:
    source, label = _split(line, ("Source", "Target"))
    if len(label) != 1 or label not in "0123456789":
        raise UserError(f"has Target {_show(label)}, which must be 0..9")
    words = source.split(" ")
    unknown = set(words).difference(LISTOPS_TOKENS, "()")
    if unknown:
        raise UserError(f"has a word that is not of ListOps: {_show(min(unknown))}")
    listed = [word for word in words if word not in "()"]
    lists = list(itertools.accumulate(1 if word[0] == "[" else -(word == "]") for word in listed))
    # one list around everything, which closes with the last word
    if not listed or lists[-1] != 0 or min(lists[:-1], default=0) < 1 or not _is_balanced(words):
        raise UserError("has brackets that do not match")
    if any(first[0] == "[" and second == "]" for first, second in itertools.pairwise(listed)):
        raise UserError("has an empty list")
    return ListOpsRow(source, int(label))


def _is_balanced(words: Sequence[str]) -> bool:
    """Whether every round bracket that closes has been opened, and all are closed."""
    depths = list(itertools.accumulate((word == "(") - (word == ")") for word in words))
    return depths[-1] == 0 and min(depths) >= 0


def read_pairs(path: Path, *, bad: list[str] | None = None) -> Iterator[PairRow]:
    """Yields the rows of a file of pairs: label, id1, id2, text1, text2 between tabs; no header, and quotes are text.

    Args:
      path: such as ``tsv_data/new_aan_pairs.train.tsv``.
      bad: see the module.

    Raises:
      UserError: no file, an empty or truncated one; another number of columns (as by a tab inside a text), a label that is
        neither 0 nor 1 (the release writes 0.0 and 1.0), no text, bytes that are not UTF-8.
    """
    yield from _parse_rows(path, _read_lines(path), _parse_pair, bad)


def _parse_pair(line: bytes) -> PairRow:
    label, *ids, first, second = _split(line, _PAIR_COLUMNS)
    try:
        value = float(label)
    except ValueError:
        value = -1.0
    if value not in (0.0, 1.0):
        raise UserError(f"has label {_show(label)}, which must be 0 or 1")
    for name, text in (("text1", first), ("text2", second)):
        if not text:
            raise UserError(f"has no {name}")
    return PairRow(int(value), (ids[0], ids[1]), (first, second))


def read_pathfinder(folder: Path, *, bad: list[str] | None = None) -> list[ImageRow]:
    """Returns the images of one Pathfinder set, in the order of its metadata, whose files are sorted by number.

    Metadata are text under the names ``metadata/NUMBER.npy``, as in the release, or real NumPy arrays of strings, as the
    generator writes them; the first four columns are folder, file, number and label.

    Args:
      folder: such as ``pathfinder32/curv_contour_length_14``.
      bad: see the module.

    Raises:
      UserError: no metadata, empty or corrupt ones; a row that has too few columns or a label that is neither 0 nor 1, that
        stands there twice or names no image; an image that no row names, or an empty one. Nothing is decoded yet.
    """
    sizes = _image_sizes(folder)
    found: dict[str, int] = {}
    for path in _metadata_files(folder):
        for where, fields in _metadata_rows(path):
            try:
                name, label = _parse_metadata(fields)
                if name in found:
                    raise UserError(f"names {name} a second time")
                if name not in sizes:
                    raise UserError(f"names {name}, which is not in {folder}")
            except UserError as error:
                _refuse(f"{where} {error}", bad)
                continue
            if sizes[name]:
                found[name] = label
            else:
                known = " (the release itself has this empty file)" if f"{folder}/{name}".endswith(_KNOWN_EMPTY) else ""
                _refuse(f"{folder / name} is empty{known}, named by {where}", bad)
                del sizes[name]
    for name in sizes.keys() - found.keys():
        _refuse(f"{folder / name} has no row in {folder / 'metadata'}", bad)
    return [ImageRow(folder / name, label) for name, label in found.items()]


def _image_sizes(folder: Path) -> dict[str, int]:
    """Returns the bytes of every image, by its path inside the folder."""
    if not (folder / "imgs").is_dir():
        raise UserError(f"no folder {folder / 'imgs'}")
    sizes: dict[str, int] = {}
    for batch in sorted((folder / "imgs").iterdir()):
        if not batch.is_dir():
            raise UserError(f"{batch} is no folder of images; remove it")
        with os.scandir(batch) as entries:
            sizes |= {f"imgs/{batch.name}/{entry.name}": entry.stat().st_size for entry in entries}
    return sizes


def _metadata_files(folder: Path) -> list[Path]:
    paths = list((folder / "metadata").glob("*.npy"))
    if not paths:
        raise UserError(f"no files metadata/NUMBER.npy in {folder}")
    for path in paths:
        if not path.stem.isdecimal():
            raise UserError(f"{path} must be named by a number")
    return sorted(paths, key=lambda path: int(path.stem))


def _metadata_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    raw = _read_bytes(path)
    if not raw.startswith(b"\x93NUMPY"):
        for number, line in enumerate(raw.removesuffix(b"\n").split(b"\n"), 1):
            yield f"{path}:{number}", line.decode(errors="replace").split()
        return
    try:
        # text only: what is pickled is never run
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read as a NumPy array of strings: {str(error).splitlines()[0]}") from error
    if array.dtype.kind not in "US" or array.ndim not in (1, 2) or not array.size:
        raise UserError(f"{path} holds an array {array.dtype} {array.shape}, not rows of strings")
    for number, row in enumerate(np.atleast_2d(array.astype(str)), 1):
        yield f"{path} row {number}", [str(field) for field in row]


def _parse_metadata(fields: list[str]) -> tuple[str, int]:
    if len(fields) < 4:
        raise UserError(f"has {len(fields)} columns, of which 4 are needed: folder, file, number, label")
    if fields[3] not in ("0", "1"):
        raise UserError(f"has label {_show(fields[3])}, which must be 0 or 1")
    return f"{fields[0]}/{fields[1]}", int(fields[3])


def _parse_rows(
    path: Path, lines: Iterator[tuple[int, bytes]], parse: Callable[[bytes], T], bad: list[str] | None
) -> Iterator[T]:
    for number, line in lines:
        try:
            row = parse(_strip(line))
        except UserError as error:
            _refuse(f"{path}:{number} {error}", bad)
        else:
            yield row


def _refuse(message: str, bad: list[str] | None) -> None:
    if bad is None:
        raise UserError(f"{message}; task.skip_bad=True leaves such rows out")
    bad.append(message)


def _split(line: bytes, columns: tuple[str, ...]) -> list[str]:
    """Returns the columns of a row as text; quotes are text too."""
    try:
        fields = line.decode().split("\t")
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 (byte {error.start} of the line is 0x{line[error.start]:02x})") from error
    if len(fields) != len(columns):
        hint = ": a tab inside a text?" if len(fields) > len(columns) else ""
        raise UserError(f"has {len(fields)} columns instead of {len(columns)} ({', '.join(columns)}){hint}")
    return fields


def _read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields numbered lines with their ends. Only a line feed ends a line: other separators may be inside a text."""
    try:
        if not path.stat().st_size:
            raise UserError(f"{path} is empty")
        with path.open("rb") as file:
            yield from enumerate(file, 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _strip(line: bytes) -> bytes:
    if not line.endswith(b"\n"):
        raise UserError("has no line end: the file is truncated")
    return line[:-1].removesuffix(b"\r")


def _read_bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if not raw:
        raise UserError(f"{path} is empty")
    return raw


def _show(value: str | bytes) -> str:
    """Returns the start of what was found, as Python writes it."""
    return repr(value[:40].decode(errors="replace") if isinstance(value, bytes) else value[:40])
