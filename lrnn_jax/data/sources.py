"""Documents from files: text, JSON lines, Parquet, prepared TensorFlow Datasets, or the standard library's own sources."""

import glob
import hashlib
import json
import os
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lrnn_jax.data.prepared import open_prepared
from lrnn_jax.errors import UserError, suggest

STDLIB = "stdlib"
TFDS = "tfds:"
SPLITS = ("train", "validation", "test")

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
                total.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return total.hexdigest()


def open_source(data: str, *, data_dir: str, text_field: str) -> Source:
    """Finds the files of ``task.data``; reads none of them yet.

    Args:
      data: "stdlib", "tfds:NAME", or a file, a folder (its .txt, .jsonl and .parquet files) or a pattern such as
        "books/**/*.txt". Files that end in .jsonl and .parquet hold one document per row, any other file is one document.
      data_dir: where relative paths and prepared data sets are, if not here; empty: the environment's LRNN_DATA_DIR.
      text_field: the field of JSON lines, the column of Parquet or the feature of the data set that holds the text.

    Raises:
      UserError: no such files.
    """
    data_dir = data_dir or os.environ.get("LRNN_DATA_DIR", "")
    if data == STDLIB:
        return _open_stdlib(Path(sysconfig.get_path("stdlib")))
    if data.startswith(TFDS):
        return _open_tfds(data, data_dir, text_field)
    paths = _find_files(data, data_dir)
    root = os.path.commonpath([path.parent for path in paths])
    files = {path.relative_to(root).as_posix(): path for path in paths}
    return Source(files, lambda: _read_files(data, files, text_field))


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


def _find_files(data: str, data_dir: str) -> list[Path]:
    for base in ("", data_dir):
        pattern = os.path.expanduser(os.path.join(base, data))  # noqa: PTH111, PTH118 - a pattern, not yet a path
        if Path(pattern).is_dir():
            found = [p for suffix in ("txt", "jsonl", "parquet") for p in Path(pattern).rglob(f"*.{suffix}")]
        else:
            found = [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207 - it may be absolute
        files = sorted(path.absolute() for path in found if path.is_file())
        if files:
            return files
    there = f" (nor in {data_dir})" if data_dir else ""
    raise UserError(
        f"task.data={data!r}: no such file, folder with .txt, .jsonl or .parquet files, or pattern{there}; or give {STDLIB!r} "
        f"or '{TFDS}NAME'"
    )


def _read_files(data: str, files: dict[str, Path], text_field: str) -> Iterator[Document]:
    readers = {".jsonl": _read_json_lines, ".parquet": _read_parquet}
    for name, path in files.items():
        reader = readers.get(path.suffix)
        if reader is None:
            yield Document(name, decode_text(_read_bytes(data, path), f"task.data={data!r}: {path}"))
        else:
            yield from reader(data, name, path, text_field)


def decode_text(raw: bytes, where: str) -> str:
    """Decodes UTF-8.

    Raises:
      UserError: ``where``, the rule, and the first byte that breaks it.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 (byte {error.start} is 0x{raw[error.start]:02x}); text must be UTF-8") from error


def _read_bytes(data: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"task.data={data!r}: cannot read {path}: {error.strerror}") from error


def _read_json_lines(data: str, name: str, path: Path, text_field: str) -> Iterator[Document]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            where = f"task.data={data!r}: {path}:{number}"
            line = decode_text(raw, where)
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{where} is not JSON ({error.msg})") from error
            text = row.get(text_field) if isinstance(row, dict) else None
            if not isinstance(text, str):
                known = f" (it has {', '.join(row)})" if isinstance(row, dict) else ""
                raise UserError(f"{where} holds no text under task.text_field={text_field!r}{known}")
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise UserError(f"{where} holds half a character ({text[error.start]!r}); text must be UTF-8") from error
            yield Document(f"{name}:{number}", text)


def _read_parquet(data: str, name: str, path: Path, text_field: str) -> Iterator[Document]:
    import pyarrow
    import pyarrow.parquet

    where = f"task.data={data!r}: {path}"
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
                    if not isinstance(value, str):
                        raise UserError(f"{where}, row {row}: task.text_field={text_field!r} holds no text")
                    yield Document(f"{name}:{row}", value)
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
