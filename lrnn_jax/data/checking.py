"""Looking through whole data sets: counts, balances, lengths, checksums, and labels computed again."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lrnn_jax.data import listops
from lrnn_jax.data.catalogue import PREPARED, find_data_set, get_data_set
from lrnn_jax.data.images import decode_image
from lrnn_jax.data.lra import ImageRow, read_listops, read_pairs, read_pathfinder
from lrnn_jax.data.prepared import open_prepared, read_prepared
from lrnn_jax.data.preparing import BATCH, RECORD, Recipe, encode_png, redraw
from lrnn_jax.data.sources import decode_text
from lrnn_jax.errors import UserError

LISTOPS_SPLITS = ("train", "val", "test")
PAIRS_SPLITS = ("train", "eval", "test")
# Labels are computed again, and images decoded, of so many examples of a split.
SAMPLE = 2000
_REDRAWN = 20
# Width and channels of prepared images.
IMAGES = {"cifar10": (32, 3), "mnist": (28, 1), "fashion_mnist": (28, 1)}

Facts = list[tuple[str, ...]]
"""Rows of a table, its header first."""

_HEADER = ("split", "examples", "labels", "lengths", "checked")


def check_data_set(name: str, data_dir: str) -> tuple[Path, Facts]:
    """Reads a data set through; returns where it is and what was found.

    Raises:
      UserError: it is not there, or the first thing that is wrong, with its file and line.
    """
    found, folder = get_data_set(name), find_data_set(name, data_dir)
    if found.kind == PREPARED:
        return folder, check_prepared(found.part, folder, dict(found.counts))
    return folder, find_check(name)(folder)


def find_check(name: str) -> Callable[[Path], Facts]:
    """Returns what checks a data set of the release."""
    return {"listops": check_listops, "aan": check_pairs}.get(name, check_pathfinder)


def check_listops(folder: Path) -> Facts:
    """Checks rows, lengths and that no list is there twice, and evaluates up to 2,000 lists of each split.

    Raises:
      UserError: the first thing that is wrong, with its file and line.
    """
    sums = read_record(folder).get("sha256", {})
    seen: dict[bytes, str] = {}
    table: Facts = [_HEADER]
    for split in LISTOPS_SPLITS:
        path = folder / f"basic_{split}.tsv"
        labels: list[int] = []
        lengths: list[int] = []
        # the header is line 1
        for number, (source, label) in enumerate(read_listops(path), 2):
            where = f"{path}:{number}"
            lengths.append(len(source.split()) - source.count("(") - source.count(")"))
            if not listops.SHORTER < lengths[-1] < listops.LONGER:
                raise UserError(f"{where} has {lengths[-1]} tokens; they must be {listops.SHORTER + 1} to {listops.LONGER - 1}")
            key = hashlib.blake2b(source.encode(), digest_size=16).digest()
            if key in seen:
                raise UserError(f"{where} is the same list as {seen[key]}")
            seen[key] = where
            labels.append(label)
            if number < SAMPLE + 2:
                _check_value(where, source, label)
        if not labels:
            raise UserError(f"{path} has no rows")
        checked = f"{min(len(labels), SAMPLE):,} evaluated again; SHA-256 {_check_sum(path, sums)}"
        table.append((split, f"{len(labels):,}", describe_labels(labels), describe_lengths(lengths), checked))
    return table


def _check_value(where: str, source: str, label: int) -> None:
    try:
        value = listops.evaluate(listops.parse(source))
    except listops.NotListOps as error:
        raise UserError(f"{where} {error}") from error
    if value != label:
        raise UserError(f"{where} has Target {label}, and the list's value is {value}")


def _check_sum(path: Path, sums: dict[str, str]) -> str:
    """Returns a checksum's start, and what it was compared with."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if path.name in sums and sums[path.name] != found:
        raise UserError(f"{path} is not as it was prepared: its SHA-256 is {found}, and {RECORD} says {sums[path.name]}")
    return found[:12] + (" as prepared" if path.name in sums else "")


def check_pairs(folder: Path) -> Facts:
    """Checks every row of the pairs of papers.

    Raises:
      UserError: the first thing that is wrong, with its file and line.
    """
    table: Facts = [_HEADER]
    for split in PAIRS_SPLITS:
        path = folder / f"new_aan_pairs.{split}.tsv"
        labels, lengths = [], []
        for row in read_pairs(path):
            labels.append(row.label)
            lengths += [len(text.encode()) for text in row.texts]
        checked = f"SHA-256 {_check_sum(path, {})}"
        table.append((split, f"{len(labels):,}", describe_labels(labels), describe_lengths(lengths), checked))
    return table


def check_pathfinder(folder: Path) -> Facts:
    """Checks every row and up to 2,000 images; of those that were generated here, all checksums, and draws 20 anew.

    Raises:
      UserError: the first thing that is wrong, with its file and line.
    """
    rows = read_pathfinder(folder)
    record = read_record(folder)
    width = _find_width(folder)
    sample = list(spread(rows, SAMPLE))
    ink = [float(read_image(path, width).mean()) for path, _ in sample]
    checked = f"{len(sample):,} decoded, mean ink {np.mean(ink):.1f}"
    if record:
        checked += f"; {_check_as_prepared(folder, rows, record)}"
    labels = describe_labels([row.label for row in rows])
    return [_HEADER, ("all", f"{len(rows):,}", labels, f"{width} x {width}", checked)]


def _find_width(folder: Path) -> int:
    """Returns the width that the folder's name gives; one that is still being made says it in its record."""
    word = folder.parent.name.removeprefix("pathfinder")
    return int(word) if word.isdecimal() else int(read_record(folder)["width"])


def read_image(path: Path, width: int) -> np.ndarray:
    """Returns one image of Pathfinder, [width width] uint8.

    Raises:
      UserError: it cannot be read, or has another size or other pixels.
    """
    try:
        return decode_image(path.read_bytes(), width, 1)[..., 0]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UserError as error:
        raise UserError(f"{path} {error}") from error


def _check_as_prepared(folder: Path, rows: Sequence[ImageRow], record: dict[str, Any]) -> str:
    recipe = Recipe(**{field: record[field] for field in Recipe._fields})
    if len(rows) != recipe.examples:
        raise UserError(f"{folder} has {len(rows)} images, and {RECORD} says {recipe.examples}")
    digests: dict[str, Any] = {}
    for row in rows:
        batch = f"imgs/{row.path.parent.name}"
        digests.setdefault(batch, hashlib.sha256()).update(row.path.read_bytes())
    for batch, digest in digests.items():
        if digest.hexdigest() != record["sha256"].get(batch):
            raise UserError(f"{folder / batch} is not as it was prepared: the SHA-256 of its images is another")
    for number in spread(range(recipe.examples), _REDRAWN):
        picture, row = redraw(recipe, number), rows[number]
        if (picture.label, encode_png(picture.image)) != (row.label, row.path.read_bytes()):
            raise UserError(f"{row.path} is not what seed {recipe.seed} draws: image {number}, label {picture.label}")
    return f"SHA-256 of {len(digests)} batches of {BATCH} as prepared, {min(_REDRAWN, len(rows))} drawn anew"


def check_prepared(name: str, folder: Path, counts: dict[str, int]) -> Facts:
    """Checks the rows and labels of a prepared data set, and decodes up to 2,000 images of each split.

    Raises:
      UserError: the first thing that is wrong, with its split and row.
    """
    base = name.partition("/")[0]
    root = folder.parents[len(Path(name).parts) - 1]
    prepared = open_prepared(name, data_dir=str(root), raw=["image"] if base in IMAGES else [], field=f"{folder}")
    width, channels = IMAGES.get(base, (0, 0))
    table: Facts = [_HEADER]
    for split, count in counts.items():
        labels, lengths = [], []
        for i, (where, row) in enumerate(read_prepared(prepared, split, field=str(folder))):
            labels.append(read_label(where, row, base))
            if "text" in row:
                decode_text(row["text"], where)
                lengths.append(len(row["text"]))
            elif i < SAMPLE:
                try:
                    decode_image(row["image"], width, channels)
                except UserError as error:
                    raise UserError(f"{where} {error}") from error
        if len(labels) != count:
            raise UserError(f"{folder} has {len(labels):,} rows in split {split}, and the data set has {count:,}")
        sizes = describe_lengths(lengths) if lengths else f"{width} x {width} x {channels}"
        checked = "all read" if lengths else f"{min(SAMPLE, count):,} decoded"
        table.append((split, f"{count:,}", describe_labels(labels), sizes, checked))
    return table


def read_label(where: str, row: Mapping[str, Any], base: str) -> int:
    """Returns the label of a prepared row.

    Raises:
      UserError: it is none of the data set's.
    """
    label, classes = int(row["label"]), 10 if base in IMAGES else 2
    if not 0 <= label < classes:
        raise UserError(f"{where} has label {label}, which must be 0..{classes - 1}")
    return label


def read_record(folder: Path) -> dict[str, Any]:
    """Returns how a generated data set was made; empty for others.

    Raises:
      UserError: the record is damaged.
    """
    file = folder / RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if record:
            Recipe(**{field: record[field] for field in Recipe._fields})
            dict(record["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged: {error}") from error
    return record


def spread(items: Sequence[Any], count: int) -> Iterator[Any]:
    """Yields up to ``count`` items, from everywhere."""
    step = max(1, -(-len(items) // count))
    yield from items[::step]


def describe_labels(labels: Iterable[int]) -> str:
    """Returns each label's share in per cent."""
    counts = Counter(labels)
    total = sum(counts.values())
    return " ".join(f"{label}:{100 * count / total:.1f}%" for label, count in sorted(counts.items()))


def describe_lengths(lengths: Sequence[int]) -> str:
    """Returns the least, the median and the greatest."""
    return f"{min(lengths)} to {max(lengths)}, median {int(np.median(lengths))}"
