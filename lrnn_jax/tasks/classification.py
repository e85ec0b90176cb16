"""What the tasks share that ask for the class of a sequence in files."""

import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.data.examples import Examples, Part, Record, keep_examples
from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch, Example, FileTask

# Tokens that stand for no byte: padding, and the end of every sequence.
PAD, END, FIRST = 0, 1, 2
# Fixes which examples are held out of a part that has no such split of its own.
_SEED = 42


class Share(NamedTuple):
    """A split: a part of the files, or a share of its examples in an order that a fixed seed gives."""

    part: str
    first: float = 0.0
    last: float = 1.0


@functools.lru_cache(maxsize=16)
def _load(task: "Classification", data_dir: str, cache: str) -> Examples:
    return keep_examples(
        type(task).__name__.lower(), task.files(), task.read, fields=task.kept_fields(), skip_bad=task.skip_bad
    )


@functools.lru_cache(maxsize=64)
def choose(count: int, first: float, last: float) -> np.ndarray:
    """Returns which of ``count`` examples are between two shares of the fixed order."""
    if (first, last) == (0.0, 1.0):
        return np.arange(count)
    # its stream never changes, unlike that of NumPy's newer generators
    order = np.random.RandomState(_SEED).permutation(count)
    return np.sort(order[round(first * count) : round(last * count)])


@dataclasses.dataclass(frozen=True)
class Classification(FileTask):
    """One class per example. Files are read and checked once; what they hold is kept in LRNN_CACHE_DIR.

    Attributes:
      data_dir: where the data are; empty: the environment's LRNN_DATA_DIR.
      skip_bad: leaves out examples that cannot be read, and says how many; they are refused otherwise.

    Class attributes:
      SHARES: what the splits are.
    """

    data_dir: str = ""
    skip_bad: bool = False

    HEADS: ClassVar[tuple[str, ...]] = ("mean", "last")
    SHARES: ClassVar[Mapping[str, Share]]

    def files(self) -> list[Path]:
        """Returns all files that are read."""
        raise NotImplementedError

    def read(self, bad: list[str] | None) -> Iterator[Record]:
        """Yields all examples; None for ``bad`` refuses what is wrong, a list takes the messages of what is left out."""
        raise NotImplementedError

    def kept_fields(self) -> list[Any]:
        """Returns what the kept bytes depend on besides the files."""
        return []

    def examples(self) -> Examples:
        """Returns everything, read and kept on first use."""
        return _load(self, os.environ.get("LRNN_DATA_DIR", ""), os.environ.get("LRNN_CACHE_DIR", ""))

    def split(self, split: str) -> tuple[Part, np.ndarray]:
        """Returns the part of the data that a split is in, and which of its examples it has."""
        share = self.SHARES[split]
        parts = self.examples().parts
        chosen = choose(len(parts[share.part].labels), share.first, share.last) if share.part in parts else ()
        if not len(chosen):
            raise UserError(f"task.data_dir={self.data_dir!r}: the {split} split holds no example")
        return parts[share.part], np.asarray(chosen)

    def records(self) -> dict[str, str]:
        """Returns what the data were."""
        examples = self.examples()
        about = {
            "examples_sha256": examples.digest,
            "examples": {split: len(self.split(split)[1]) for split in self.SHARES},
            "left_out": len(examples.left_out),
        }
        return {"data.json": json.dumps(about, indent=2, sort_keys=True) + "\n"}


class TokenRows:
    """Sequences as tokens, padded to one length: each element is (tokens ``[T]`` or ``[R T]``, lengths, label), int32."""

    def __init__(self, part: Part, chosen: np.ndarray, length: int, rows: int) -> None:
        self.part, self.chosen, self.length, self.single = part, chosen, length, rows == 1

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray | np.int32, np.int32]:
        number = int(self.chosen[i])
        rows = self.part.rows(number)
        tokens, lengths = np.full((len(rows), self.length), PAD, np.int32), np.zeros(len(rows), np.int32)
        for row, values in enumerate(rows):
            text = values[: self.length - 1]
            tokens[row, : len(text)] = text
            tokens[row, : len(text)] += FIRST
            tokens[row, len(text)] = END
            lengths[row] = len(text) + 1
        label = self.part.labels[number]
        return (tokens[0], lengths[0], label) if self.single else (tokens, lengths, label)


@dataclasses.dataclass(frozen=True)
class TokenClassification(Classification):
    """Sequences of bytes as tokens: 0 is padding, 1 ends every sequence, byte b is b + 2. Longer ones are cut.

    Class attributes:
      ROWS: R, sequences of an example.
      SYMBOLS: what each byte stands for, for people.
    """

    ROWS: ClassVar[int] = 1
    SYMBOLS: ClassVar[Sequence[str]] = tuple(repr(bytes([byte]))[1:] for byte in range(256))
    MIN_LENGTH = 2

    @property
    def vocab_size(self) -> int:
        return FIRST + len(self.SYMBOLS)

    def token_names(self) -> list[str]:
        """Returns "pad", "end" and the symbols."""
        return ["pad", "end", *self.SYMBOLS]

    def example_spec(self, length: int) -> Example:
        shape = (length,) if self.ROWS == 1 else (self.ROWS, length)
        return Example(jax.ShapeDtypeStruct(shape, jnp.int32), jax.ShapeDtypeStruct((), jnp.int32))

    def rows(self, split: str, length: tuple[int, int]) -> TokenRows:
        return TokenRows(*self.split(split), length[1], self.ROWS)

    def collate(self, rows: Any, length: tuple[int, int]) -> Batch:
        tokens, lengths, labels = rows
        return Batch._make((tokens, labels, np.ones(len(labels), np.float32), lengths, None))

    def check_length(self, field: str, length: tuple[int, int]) -> None:
        super().check_length(field, length)
        if length[0] != self.MIN_LENGTH:
            raise UserError(
                f"{field}={list(length)}: sequences are as long as they are, up to where they are cut: "
                f"such as [{self.MIN_LENGTH}, {length[1]}]"
            )


class PixelRows:
    """Images as sequences of pixels: each element is (pixels ``[T F]`` uint8, label)."""

    def __init__(self, part: Part, chosen: np.ndarray, channels: int) -> None:
        self.part, self.chosen, self.channels = part, chosen, channels

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.int32]:
        number = int(self.chosen[i])
        (values,) = self.part.rows(number)
        return np.asarray(values).reshape(-1, self.channels), self.part.labels[number]


@dataclasses.dataclass(frozen=True)
class PixelClassification(Classification):
    """Images row by row, one pixel per position: ``(v / 255 - mean) / deviation``, float32 ``[T F]``."""

    vocab_size = 0

    def pixels(self) -> tuple[int, int]:
        """Returns height, which is width too, and channels F."""
        raise NotImplementedError

    def normalisation(self) -> tuple[Sequence[float], Sequence[float]]:
        """Returns mean and deviation of every channel, of values between 0 and 1."""
        raise NotImplementedError

    def example_spec(self, length: int) -> Example:
        return Example(jax.ShapeDtypeStruct((length, self.pixels()[1]), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32))

    def rows(self, split: str, length: tuple[int, int]) -> PixelRows:
        return PixelRows(*self.split(split), self.pixels()[1])

    def collate(self, rows: Any, length: tuple[int, int]) -> Batch:
        pixels, labels = rows
        mean, deviation = (np.asarray(each, np.float64) for each in self.normalisation())
        # one product and one sum of float32
        scale, shift = (each.astype(np.float32) for each in (1.0 / (255.0 * deviation), -mean / deviation))
        inputs = pixels.astype(np.float32) * scale + shift
        lengths = np.full(len(labels), inputs.shape[1], np.int32)
        return Batch._make((inputs, labels, np.ones(len(labels), np.float32), lengths, None))

    def check_length(self, field: str, length: tuple[int, int]) -> None:
        steps = self.pixels()[0] ** 2
        if tuple(length) != (steps, steps):
            raise UserError(f"{field}={list(length)}: these images have {steps} pixels each: [{steps}, {steps}]")
