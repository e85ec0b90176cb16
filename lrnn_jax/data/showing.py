"""Examples as a person reads them: lists as indented trees, texts in paragraphs, images on one sheet."""

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lrnn_jax.data import listops
from lrnn_jax.data.catalogue import PREPARED, find_data_set, get_data_set
from lrnn_jax.data.checking import IMAGES, LISTOPS_SPLITS, PAIRS_SPLITS, read_image, read_label
from lrnn_jax.data.images import decode_image
from lrnn_jax.data.lra import ListOpsRow, read_listops, read_pairs, read_pathfinder
from lrnn_jax.data.prepared import open_prepared, read_prepared
from lrnn_jax.data.sources import decode_text
from lrnn_jax.errors import UserError, suggest

_COLUMN = 100  # characters of a line of text
_TALL = 96  # pixels, at least, of an image on a sheet
_LABEL = 14  # pixels of the line under it
_ACROSS = 8
_CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_WORDS = {"imdb_reviews": ("against", "for"), "aan": ("no citation", "one cites the other")}


class Picture(NamedTuple):
    """An image [height width channels] uint8, and what is written under it."""

    image: np.ndarray
    caption: str


def list_splits(name: str) -> tuple[str, ...]:
    """Returns the splits that a data set's files have."""
    if name == "listops":
        return LISTOPS_SPLITS
    return PAIRS_SPLITS if name == "aan" else tuple(get_data_set(name).counts)


def read_examples(name: str, data_dir: str, split: str | None, index: int, count: int) -> list[str] | list[Picture]:
    """Returns ``count`` examples from ``index`` on, fewer at the end: texts, or pictures.

    Args:
      name: see `lrnn_jax.data.catalogue`.
      data_dir: see there.
      split: None: the first.
      index: from 0.
      count: at least 1.

    Raises:
      UserError: the data set is not there, has no such split or example, or is damaged where it is read.
    """
    splits = list_splits(name)
    split = split or splits[0]
    if split not in splits:
        raise UserError(f"{name} has no split {split!r}{suggest(split, splits)} (it has {', '.join(splits)})")
    found, folder = get_data_set(name), find_data_set(name, data_dir)
    if found.kind == PREPARED:
        examples: Iterator[Any] = _read_prepared(found.part, folder, split, index, count)
    elif name == "listops":
        path = folder / f"basic_{split}.tsv"
        # the header is line 1
        lists = _skip(enumerate(read_listops(path), 2), index, count)
        examples = (_describe_list(f"{path}:{number}", row) for number, row in lists)
    elif name == "aan":
        pairs = _skip(read_pairs(folder / f"new_aan_pairs.{split}.tsv"), index, count)
        examples = (_describe_pair(row.label, row.texts) for row in pairs)
    else:
        width = int(folder.parent.name.removeprefix("pathfinder"))
        images = read_pathfinder(folder)[index : index + count]
        examples = (Picture(read_image(path, width)[..., None], f"{label}") for path, label in images)
    shown = list(examples)
    if not shown:
        raise UserError(f"{folder} has no example {index} in split {split!r}")
    return shown


def _skip(examples: Iterator[Any], index: int, count: int) -> Iterator[Any]:
    return itertools.islice(examples, index, index + count)


def _describe_list(where: str, row: ListOpsRow) -> str:
    try:
        tree = listops.parse(row.source)
    except listops.NotListOps as error:
        raise UserError(f"{where} {error}") from error
    size = listops.measure(tree)
    return f"target {row.label}: {size.length} tokens, {size.depth} levels\n{listops.show(tree)}"


def _describe_pair(label: int, texts: Sequence[str]) -> str:
    parts = [f"text {i}, {len(text.encode())} bytes\n{_wrap(text)}" for i, text in enumerate(texts, 1)]
    return "\n\n".join([f"label {label}: {_WORDS['aan'][label]}", *parts])


def _wrap(text: str) -> str:
    return "\n".join(textwrap.fill(part, _COLUMN) for part in text.splitlines())


def _read_prepared(name: str, folder: Path, split: str, index: int, count: int) -> Iterator[Any]:
    base = name.partition("/")[0]
    root = folder.parents[len(Path(name).parts) - 1]
    prepared = open_prepared(name, data_dir=str(root), raw=["image"] if base in IMAGES else [], field=str(folder))
    for where, row in _skip(read_prepared(prepared, split, field=str(folder)), index, count):
        label = read_label(where, row, base)
        if base not in IMAGES:
            text = decode_text(row["text"], where)
            yield f"label {label}: {_WORDS[base][label]}, {len(row['text'])} bytes\n{_wrap(text)}"
            continue
        try:
            image = decode_image(row["image"], *IMAGES[base])
        except UserError as error:
            raise UserError(f"{where} {error}") from error
        yield Picture(image, _CIFAR[label] if base == "cifar10" else str(label))


def draw_sheet(pictures: Sequence[Picture], out: Path, *, across: int = _ACROSS) -> None:
    """Writes pictures on one sheet, each enlarged by a whole number, with its caption below.

    Raises:
      UserError: the file cannot be written.
    """
    from PIL import Image, ImageDraw

    height, width = pictures[0].image.shape[:2]
    factor = max(1, -(-_TALL // height))
    wide, tall = width * factor + 4, height * factor + 4 + _LABEL
    rows = -(-len(pictures) // across)
    sheet = Image.new("RGB", (wide * min(across, len(pictures)), tall * rows), "#303040")
    pen = ImageDraw.Draw(sheet)
    for i, (image, caption) in enumerate(pictures):
        left, top = i % across * wide + 2, i // across * tall + 2
        small = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        sheet.paste(small.resize((width * factor, height * factor), Image.Resampling.NEAREST), (left, top))
        pen.text((left, top + height * factor), caption, fill="white")
    aside = out.with_name(f".{out.name}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(aside, "PNG")
        aside.replace(out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from error
