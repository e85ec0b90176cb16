"""The contract that every task keeps. A new task is one file beside this one and one line in `registry`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from lrnn_jax.errors import UserError

if TYPE_CHECKING:
    from grain import MapDataset

Sums = dict[str, tuple[jax.Array, jax.Array]]


class Batch(NamedTuple):
    """What a model sees and what it is asked.

    Attributes:
      inputs: tokens ``[B T]`` int32 or features ``[B T F]`` float32.
      targets: class per row ``[B]`` or per position ``[B T]``, int32.
      weights: how much each target counts, float32, shaped as ``targets``; 0 for padding.
      lengths: positions of each row that hold input ``[B]`` int32; the rest is padding.
      reset: True where another sequence starts inside a row ``[B T]``; None where rows hold one sequence each.
    """

    inputs: Int[Array, "B T"] | Float[Array, "B T F"]
    targets: Int[Array, " B *T"]
    weights: Float[Array, " B *T"]
    lengths: Int[Array, " B"]
    reset: Bool[Array, "B T"] | None = None


@dataclasses.dataclass(frozen=True)
class Task:
    """A synthetic classification task: a batch is a pure function of a key.

    Class attributes:
      EVAL_LENGTHS: length buckets (shortest, longest) of the evaluation.
      CHANCE: accuracy of the best guess that does not read the input.
      CEILING: accuracy that a perfect model reaches.
      MAX_LENGTH: longest sequence that the task makes.
      MIN_LENGTH: shortest sequence that poses a question.
      LENGTH_STEP: lengths come in steps of this; above 1, a range's ends are rounded down to lengths that there are.
      DENSE: whether every position has a target (head "token") or every row one (heads "last", "mean").
    """

    EVAL_LENGTHS: ClassVar[tuple[tuple[int, int], ...]]
    CHANCE: ClassVar[float]
    CEILING: ClassVar[float] = 1.0
    # The longest length at which every layer is tested to stay finite.
    MAX_LENGTH: ClassVar[int] = 16_384
    MIN_LENGTH: ClassVar[int] = 1
    LENGTH_STEP: ClassVar[int] = 1
    DENSE: ClassVar[bool] = False

    @property
    def vocab_size(self) -> int:
        """Input tokens, padding included."""
        raise NotImplementedError

    @property
    def outputs(self) -> int:
        """Classes."""
        raise NotImplementedError

    def token_names(self) -> list[str]:
        """Returns what to call each input token where people read it: its number by default."""
        return [str(token) for token in range(self.vocab_size)]

    def batch(self, key: jax.Array, size: int, length: tuple[int, int]) -> Batch:
        """Makes ``size`` sequences with lengths uniform in ``length`` = (shortest, longest), padded to the longest.

        Pure and jittable in ``key``; ``size`` and ``length`` are static.
        """
        raise NotImplementedError

    def oracle(self, example: list[int]) -> int | list[int]:
        """Returns the label of one unpadded input, or those of all its positions (`DENSE`), by plain Python."""
        raise NotImplementedError

    def loss(self, logits: Float[Array, "B *T O"], batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns (sum, weight) of the cross-entropy in nats."""
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
        return jnp.sum(losses * batch.weights), jnp.sum(batch.weights)

    def metrics(self, logits: Float[Array, "B *T O"], batch: Batch) -> Sums:
        """Returns (sum, weight) of ``accuracy`` and ``scaled_accuracy`` = (accuracy - chance) / (1 - chance)."""
        correct = (jnp.argmax(logits, axis=-1) == batch.targets).astype(jnp.float32)
        weight = jnp.sum(batch.weights)
        accuracy = jnp.sum(correct * batch.weights)
        return {
            "accuracy": (accuracy, weight),
            "scaled_accuracy": ((accuracy - self.CHANCE * weight) / (1.0 - self.CHANCE), weight),
        }

    def curves(self, logits: Float[Array, "B *T O"], batch: Batch) -> dict[str, tuple[Float[Array, " T"], Float[Array, " T"]]]:
        """Returns (sums, weights) by position of what is worth a curve; measured by the final test only. None by default.

        Of a name that ends in ``_by_context``, number n (from 0) is of all positions that 2^n to 2^(n+1) - 1 tokens precede.
        """
        return {}

    def derive(self, means: Mapping[str, Any]) -> dict[str, Any]:
        """Returns measures that are functions of means, such as a perplexity; of floats, and of arrays by position.

        They are computed from the mean over everything, and never averaged themselves. None by default.
        """
        return {}

    def records(self) -> dict[str, str]:
        """Returns small files (name to text) that a run keeps, and that have to be the same when it goes on: its data's."""
        return {}

    @classmethod
    def fields_from(cls, folder: Path) -> dict[str, Any]:
        """Returns the fields that a run's own records stand in for once it has been trained. None by default."""
        return {}

    def epoch_examples(self, length: tuple[int, int]) -> int | None:
        """Returns the size of the training set; None where examples are made on the fly."""
        return None

    def check_length(self, field: str, length: tuple[int, int]) -> None:
        """Refuses lengths that the task cannot make.

        Raises:
          UserError: names ``field`` and the range.
        """
        shortest, longest = length
        if not self.MIN_LENGTH <= shortest <= longest <= self.MAX_LENGTH:
            raise UserError(
                f"{field}={list(length)}: lengths must run from shortest to longest within "
                f"{self.MIN_LENGTH}..{self.MAX_LENGTH} for task {type(self).__name__}"
            )


@dataclasses.dataclass(frozen=True)
class ModularTask(Task):
    """A task whose answer is a number modulo m; chance is 1/m, as the papers scale by.

    Attributes:
      modulus: m, at least 2.
    """

    modulus: int

    def __post_init__(self) -> None:
        if self.modulus < 2:
            raise UserError(f"task.modulus={self.modulus} must be at least 2")

    @property
    def CHANCE(self) -> float:  # type: ignore[override]  # it depends on m
        return 1.0 / self.modulus

    @property
    def outputs(self) -> int:
        return self.modulus


@dataclasses.dataclass(frozen=True)
class FileTask(Task):
    """A task whose examples are in files: a batch is a pure function of seed and step too, by grain's random access.

    So a run's position in its data is its step, which every checkpoint holds: a resumed run reads on where it was, and runs
    that share a program each have their own order. Nothing is downloaded, and reading begins before anything is compiled.

    The first to ask for rows reads the files; what it makes of them is kept (`functools.lru_cache`), for tasks are values.
    """

    def rows(self, split: str, length: tuple[int, int]) -> Any:
        """Returns a split's examples: something with ``len`` and ``[i]``, whose elements are arrays of one shape.

        Args:
          split: "train", "validation" or "test".
          length: (shortest, longest) example.
        """
        raise NotImplementedError

    def collate(self, rows: Any, length: tuple[int, int]) -> Batch:
        """Turns stacked examples into a batch of NumPy arrays."""
        raise NotImplementedError

    def epoch_examples(self, length: tuple[int, int]) -> int:
        return len(self.rows("train", length))

    def batch(self, key: jax.Array, size: int, length: tuple[int, int]) -> Batch:
        raise TypeError(f"{type(self).__name__} reads its batches from files: see splits")

    def splits(
        self, size: int, length: tuple[int, int], seed: int, *, process: tuple[int, int] = (0, 1)
    ) -> "dict[str, MapDataset[Batch]]":
        """Returns grain data sets whose i-th element is the i-th batch.

        "train" has no end and another order in every epoch; "validation" and "test" have one order for all seeds, so that
        their first batches are a fair sample and the same for every run.

        Args:
          size: examples of a batch over all processes.
          length: (shortest, longest) example.
          seed: fixes the order of "train".
          process: (this process, processes): each reads its own part of every batch, and nothing else.
        """
        from grain import MapDataset

        index, count = process
        if size % count:
            raise UserError(f"a batch of {size} examples cannot be shared by {count} processes")

        def batches(split: str) -> "MapDataset[Batch]":
            train = split == "train"
            rows = MapDataset.source(self.rows(split, length)).seed(seed if train else 0).shuffle()
            part = (rows.repeat() if train else rows)[index::count]
            return part.batch(size // count, drop_remainder=True).map(lambda stacked: self.collate(stacked, length))

        return {split: batches(split) for split in ("train", "validation", "test")}
