"""Prepared TensorFlow Datasets, read at random without TensorFlow. Nothing is downloaded."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lrnn_jax.data.finding import expand
from lrnn_jax.errors import UserError


class Prepared(NamedTuple):
    """A data set on this disk.

    Attributes:
      features: names of its features.
      splits: its rows, by split.
      files: what it is made of, by name.
    """

    features: list[str]
    splits: Mapping[str, Sequence[Mapping[str, Any]]]
    files: dict[str, Path]


def open_prepared(name: str, *, data_dir: str = "", raw: Sequence[str] = (), field: str = "task.data") -> Prepared:
    """Opens a data set; reads none of its rows.

    Args:
      name: such as "cifar10" or "imdb_reviews/plain_text".
      data_dir: the folder that it is in, or whose folder ``tfds`` it is in; empty: the library's own.
      raw: features whose files are left as they are: images that are not decoded.
      field: what is said to be wrong.

    Raises:
      UserError: it is not there, not prepared, or not in a format that can be read at random.
    """
    import tensorflow_datasets as tfds

    root = _root(data_dir)
    folder = root and str(root / "tfds" if (root / "tfds").is_dir() else root)
    decoders = {feature: tfds.decode.SkipDecoding() for feature in raw}  # type: ignore[attr-defined,unused-ignore]
    try:
        builder = tfds.builder(name, data_dir=folder, try_gcs=False)
        # nothing is downloaded: what is not there is said
        splits = {str(split): builder.as_data_source(split, decoders=decoders) for split in sorted(builder.info.splits)}
    # in all these ways it says that a data set is not there, not prepared, or not in a format that can be read at random
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError, NotImplementedError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{field}: no such prepared data set in {folder or 'the default folder'}: {reason}") from error
    if not splits:
        made, place = f"`tfds build {name} --file_format=array_record`", Path(builder.data_path)
        if root and folder:
            place = new_folder(root) / place.relative_to(folder)
        raise UserError(f"{field}: put the prepared data set, as {made} makes it, in {place}; nothing is downloaded")
    files = {path.name: path for path in sorted(Path(builder.data_path).iterdir()) if path.is_file()}
    return Prepared(list(builder.info.features), splits, files)


def read_prepared(
    prepared: Prepared, split: str, *, field: str, bad: list[str] | None = None
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields a split's rows, each with its place in words.

    Args:
      prepared: from `open_prepared`.
      split: one of its splits.
      field: what is said to be wrong.
      bad: None refuses the first row that cannot be read; a list takes the messages of all that are left out.

    Raises:
      UserError: no such split, or a damaged file.
    """
    from google.protobuf.message import DecodeError

    if split not in prepared.splits:
        raise UserError(f"{field}: has no split {split!r} (it has {', '.join(prepared.splits)})")
    rows = prepared.splits[split]
    for i in range(len(rows)):
        where = f"{field}: row {i} of {split}"
        try:
            row = rows[i]
            # what a cut file yields beyond its end
            missing = [name for name, value in row.items() if value is None]
            if missing:
                raise ValueError(f"it has no {missing[0]!r}; is the file truncated?")
        except (ValueError, RuntimeError, IndexError, KeyError, OSError, DecodeError) as error:
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            message = f"{where} cannot be read: {reason}"
            if bad is None:
                raise UserError(message) from error
            bad.append(message)
        else:
            yield where, row


def new_folder(root: Path) -> Path:
    """Returns the folder for a further data set: ``tfds`` in ``root``, or ``root`` itself where others are in it already."""
    inside, versions = root / "tfds", ("*/*/dataset_info.json", "*/*/*/dataset_info.json")
    beside = not inside.is_dir() and any(any(root.glob(version)) for version in versions)
    return root if beside else inside


def _root(data_dir: str) -> Path | None:
    """``data_dir``, or the environment's; None is the library's default."""
    data_dir = data_dir or os.environ.get("LRNN_DATA_DIR", "")
    return expand(data_dir) if data_dir else None
