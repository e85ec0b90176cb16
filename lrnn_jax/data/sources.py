"""Documents from files: text, JSON lines, Parquet, prepared TensorFlow Datasets, or the standard library's own sources."""

import bz2
import codecs
import gzip
import hashlib
import json
import lzma
import os
import sysconfig
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from lrnn_jax.data.finding import find_files
from lrnn_jax.data.prepared import open_prepared
from lrnn_jax.errors import UserError, suggest

STDLIB = "stdlib"
TFDS = "tfds:"
SPLITS = ("train", "validation", "test")
# What files of a folder are read, and what may be compressed around it: by the name's end, in whatever case.
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_KINDS = (".txt", ".parquet", *_JSON_LINES)
_COMPRESSED: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_CLOSED = (".zst", ".zip", ".lz4", ".7z", ".br", ".rar", ".tar", ".tgz")

# Of the standard library, a document is a module that people wrote: not installed packages, not test suites (which many
# installations leave out), not generated tables (character sets, the help texts of pydoc), nothing that names the machine.
_STDLIB_WITHOUT = {
    "__pycache__", "__phello__", "dist-packages", "encodings", "idle_test", "pydoc_data", "site-packages", "test", "tests",
}  # fmt: skip
_STDLIB_WITHOUT_PREFIX = ("_sysconfigdata", "config-")
# What a data set calls its own splits.
_OWN_SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}


class Document(NamedTuple):
    """One text.

    Attributes:
      name: where it is, for messages and tables.
      text: all of it.
      split: which of `SPLITS` its data set puts it in; None where the data set has no splits of its own.
    """

    name: str
    text: str
    split: str | None = None


class Source(NamedTuple):
    """Where documents come from.

    Attributes:
      files: everything that is read, in a fixed order, by the names that go into the hash.
      documents: yields the documents in a fixed order.
      own_splits: the splits that the data set itself has.
    """

    files: dict[str, Path]
    documents: Callable[[], Iterator[Document]]
    own_splits: frozenset[str] = frozenset()

    def digest(self) -> str:
        """Returns the SHA-256 of all files' names and contents."""
        total = hashlib.sha256()
        for name, path in self.files.items():
            with path.open("rb") as file:
                # a name need not be UTF-8
                total.update(os.fsencode(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n"))
        return total.hexdigest()


def open_source(data: str, *, data_dir: str, text_field: str) -> Source:
    """Finds the files of ``task.data``; reads none of them yet.

    Args:
      data: "stdlib", "tfds:NAME", or a file, a folder or a pattern such as "books/**/*.txt"; see `find_files`. Files that end
        in .jsonl, .ndjson or .json hold a document per line, those in .parquet one per row, any other file is one document; a
        folder's are these (.json that begins with such a line) and .txt. All but .parquet may be compressed: .gz, .bz2, .xz.
        A row without a text (null) is empty.
      data_dir: where relative paths and prepared data sets are, if not here; empty: the environment's LRNN_DATA_DIR.
      text_field: the field of JSON lines, the column of Parquet or the feature of the data set that holds the text.

    Raises:
      UserError: no such files, or compressed ones that cannot be read here.
    """
    data_dir = data_dir or os.environ.get("LRNN_DATA_DIR", "")
    if data == STDLIB:
        return _open_stdlib(Path(sysconfig.get_path("stdlib")))
    if data.startswith(TFDS):
        return _open_tfds(data, data_dir, text_field)
    field = f"task.data={data!r}"
    paths = find_files(data, data_dir, field=field, reads=lambda path: _holds_text(path, text_field))
    if not paths:
        there = f" (nor in {data_dir})" if data_dir else ""
        raise UserError(
            f"{field}: no such file, folder with .txt, .jsonl or .parquet files, or pattern{there}; or give {STDLIB!r} "
            f"or '{TFDS}NAME'"
        )
    for path in paths:
        kind, packing = _split_kind(path)
        if packing in _CLOSED or (packing and kind == ".parquet"):
            raise UserError(f"{field}: {path} is compressed as {packing}; decompress it, or pack it as .gz, .bz2 or .xz")
    root = os.path.commonpath([path.parent for path in paths])
    files = {path.relative_to(root).as_posix(): path for path in paths}
    return Source(files, lambda: _read_files(field, files, text_field))


def _holds_text(path: Path, text_field: str) -> bool:
    """Whether a file of a folder is meant: .json may be lines of documents, or say something about them."""
    kind, packing = _split_kind(path)
    if kind != ".json" or packing in _CLOSED:
        return kind in _KINDS
    try:
        with _COMPRESSED.get(packing, open)(path, "rb") as file:
            row = json.loads(next(iter(file), b""))
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return True  # it is named when it is read
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and text_field in row


def _split_kind(path: Path) -> tuple[str, str]:
    """Returns what a file's name says that it holds, and how that is compressed; each empty where it says nothing."""
    packing = path.suffix.lower()
    if packing in _COMPRESSED or packing in _CLOSED:
        return Path(path.stem).suffix.lower(), packing
    return packing, ""


def _open_stdlib(root: Path) -> Source:
    files = {}
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if not any(part in _STDLIB_WITHOUT or part.startswith(_STDLIB_WITHOUT_PREFIX) for part in name.parts):
            files[name.as_posix()] = path
    return Source(files, lambda: _read_stdlib(files))


def _read_stdlib(files: dict[str, Path]) -> Iterator[Document]:
    """The few modules in another encoding and those without two bytes are left out."""
    for name, path in files.items():
        raw = path.read_bytes()
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            continue
        if len(raw) > 1:
            yield Document(name, text)


def _read_files(field: str, files: dict[str, Path], text_field: str) -> Iterator[Document]:
    for name, path in files.items():
        where, (kind, packing) = f"{field}: {path}", _split_kind(path)
        if kind == ".parquet":
            yield from _read_parquet(where, name, path, text_field)
            continue
        try:
            with _COMPRESSED.get(packing, open)(path, "rb") as file:
                if kind in _JSON_LINES:
                    yield from _read_json_lines(where, name, file, text_field)
                else:
                    yield Document(name, decode_text(file.read().removeprefix(codecs.BOM_UTF8), where))
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(f"{field}: cannot read {path}: {reason}") from error


def decode_text(raw: bytes, where: str) -> str:
    """Decodes UTF-8.

    Raises:
      UserError: ``where``, the rule, and the first byte that breaks it.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 (byte {error.start} is 0x{raw[error.start]:02x}); text must be UTF-8") from error


def _read_json_lines(where: str, name: str, file: IO[bytes], text_field: str) -> Iterator[Document]:
    for number, raw in enumerate(file, 1):
        here = f"{where}:{number}"
        line = decode_text(raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw, here)
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise UserError(f"{here} is not JSON that can be read, a document per line ({reason})") from error
        text = row.get(text_field, False) if isinstance(row, dict) else False
        if not isinstance(text, str | None):
            known = f" (it has {', '.join(row)})" if isinstance(row, dict) else ""
            raise UserError(f"{here} holds no text under task.text_field={text_field!r}{known}")
        text = text or ""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{here} holds half a character ({text[error.start]!r}); text must be UTF-8") from error
        yield Document(f"{name}:{number}", text)


def _read_parquet(where: str, name: str, path: Path, text_field: str) -> Iterator[Document]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if text_field not in columns:
                nearest = suggest(text_field, columns) or f" (it has {', '.join(columns)})"
                raise UserError(f"{where} has no column task.text_field={text_field!r}{nearest}")
            row = 0
            for part in file.iter_batches(columns=[text_field]):
                for value in part.column(0).to_pylist():
                    row += 1
                    if not isinstance(value, str | None):
                        raise UserError(f"{where}, row {row}: task.text_field={text_field!r} holds no text")
                    yield Document(f"{name}:{row}", value or "")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}, row {row + 1} is not UTF-8; text must be UTF-8") from error
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{where} cannot be read as Parquet: {str(error).splitlines()[0]}") from error


def _open_tfds(data: str, data_dir: str, text_field: str) -> Source:
    prepared = open_prepared(data.removeprefix(TFDS), data_dir=data_dir, field=f"task.data={data!r}")
    if text_field not in prepared.features:
        nearest = suggest(text_field, prepared.features) or f" (it has {', '.join(prepared.features)})"
        raise UserError(f"task.text_field={text_field!r} is no feature of {data!r}{nearest}")
    own = {split: _OWN_SPLITS[split] for split in prepared.splits if split in _OWN_SPLITS}
    chosen = {split: prepared.splits[split] for split in own or prepared.splits}
    return Source(prepared.files, lambda: _read_tfds(data, chosen, own, text_field), frozenset(own.values()))


def _read_tfds(data: str, sources: Mapping[str, Sequence[Any]], own: dict[str, str], text_field: str) -> Iterator[Document]:
    for split, rows in sources.items():
        for i in range(len(rows)):
            value = rows[i][text_field]
            where = f"task.data={data!r}: row {i} of {split}"
            if not isinstance(value, (bytes, str)):
                raise UserError(f"{where} holds no text under task.text_field={text_field!r}")
            yield Document(f"{split}:{i}", decode_text(value, where) if isinstance(value, bytes) else value, own.get(split))
