"""Labelled sequences of bytes, read and checked once, then kept on disk as arrays."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lrnn_jax.data.keeping import cache_folder, keep_folder

_LAST = "examples.json"
_LAYOUT = 1  # of the files below; another number makes them anew


class Record(NamedTuple):
    """One example as it is read.

    Attributes:
      part: what its files call the part of the data that it is in.
      rows: R sequences of bytes.
      label: its class.
    """

    part: str
    rows: Sequence[bytes]
    label: int


class Part(NamedTuple):
    """N examples of R sequences, one after another.

    Attributes:
      values: all sequences' bytes, uint8.
      ends: where each ends in ``values``, int64 ``[N R]``.
      labels: classes, int32 ``[N]``.
    """

    values: np.ndarray
    ends: np.ndarray
    labels: np.ndarray

    def rows(self, i: int) -> list[np.ndarray]:
        """Returns the R sequences of the i-th example."""
        end = self.ends[i]
        starts = np.concatenate([self.ends[i - 1, -1:] if i else [0], end[:-1]])
        return [self.values[a:b] for a, b in zip(starts, end, strict=True)]


class Examples(NamedTuple):
    """Everything that was read.

    Attributes:
      parts: by name.
      digest: SHA-256 of all parts' bytes and labels, whatever files they came in.
      left_out: messages of the bad rows that were left out.
    """

    parts: dict[str, Part]
    digest: str
    left_out: list[str]


def keep_examples(
    name: str,
    files: Iterable[Path],
    read: Callable[[list[str] | None], Iterator[Record]],
    *,
    fields: Sequence[Any],
    skip_bad: bool,
) -> Examples:
    """Returns the examples of some files, from the cache folder where the same files were read before.

    Files are the same by name, size and time of change. Nothing is kept unless all of it was read without an error.

    Args:
      name: of the task.
      files: all that is read.
      read: yields the examples; it is given None, or a list for the messages of bad rows, which it then leaves out.
      fields: what else the bytes depend on.
      skip_bad: whether bad rows are left out. Their number is said.

    Raises:
      UserError: what ``read`` refuses, or a disk that cannot be written.
    """
    stamps = [(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    key = hashlib.sha256(json.dumps([_LAYOUT, name, list(fields), skip_bad, stamps]).encode()).hexdigest()[:16]
    folder = cache_folder() / f"{name}-{key}"
    about = keep_folder(folder, _LAST, lambda half: _write(half, read, skip_bad), what="examples")
    if about["left_out"]:
        count, first = len(about["left_out"]), about["left_out"][0]
        logging.getLogger(__name__).warning("%s: %d bad rows were left out, the first: %s", name, count, first)
    parts = {part: _read_part(folder, part, shape) for part, shape in about["parts"].items()}
    return Examples(parts, about["digest"], about["left_out"])


def _write(half: Path, read: Callable[[list[str] | None], Iterator[Record]], skip_bad: bool) -> dict[str, Any]:
    bad: list[str] | None = [] if skip_bad else None
    total, places = hashlib.sha256(), {}
    labels: dict[str, list[int]] = {}
    ends: dict[str, list[list[int]]] = {}
    with ExitStack() as stack:
        for part, rows, label in read(bad):
            if part not in places:
                places[part] = stack.enter_context((half / f"{part}.values").open("wb"))
                labels[part], ends[part] = [], [[0] * len(rows)]
            place = ends[part][-1][-1]
            total.update(f"{part} {label} {[len(row) for row in rows]}\n".encode())
            for row in rows:
                places[part].write(row)
                total.update(row)
            ends[part].append((place + np.cumsum([len(row) for row in rows])).tolist())
            labels[part].append(label)
    shapes = {}
    for part in places:
        shapes[part] = [len(labels[part]), len(ends[part][0])]
        np.array(ends[part][1:], np.int64).tofile(half / f"{part}.ends")
        np.array(labels[part], np.int32).tofile(half / f"{part}.labels")
    return {"parts": shapes, "digest": total.hexdigest(), "left_out": bad or []}


def _read_part(folder: Path, part: str, shape: Sequence[int]) -> Part:
    path = folder / f"{part}.values"
    # an empty file cannot be mapped
    values = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
    ends = np.fromfile(folder / f"{part}.ends", np.int64).reshape(shape)
    return Part(values, ends, np.fromfile(folder / f"{part}.labels", np.int32))
