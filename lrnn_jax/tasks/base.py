"""The contract that every task keeps. A new task is one file beside this one and one line in `registry`."""

import dataclasses
from collections.abc import Mapping, Sequence
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
Length = tuple[int, int]


class Batch(NamedTuple):
    """What a model sees and what it is asked.

    Attributes:
      inputs: tokens ``[B T]`` int32 or features ``[B T F]`` float32; ``[B R T]`` or ``[B R T F]`` where an example has R rows.
      targets: class per example ``[B]`` or per position ``[B T]``, int32; or numbers to be met ``[B O]`` or ``[B T O]``,
        float32.
      weights: how much each target counts, float32 ``[B]`` or ``[B T]``; 0 for padding.
      lengths: positions of each row that hold input ``[B]`` int32, or ``[B R]``; the rest is padding.
      reset: True where another sequence starts inside a row ``[B T]``; None where rows hold one sequence each.
    """

    inputs: Int[Array, "B *R T"] | Float[Array, "B *R T F"]
    targets: Int[Array, " B *T"] | Float[Array, "B *T O"]
    weights: Float[Array, " B *T"]
    lengths: Int[Array, " B *R"]
    reset: Bool[Array, "B T"] | None = None

    def keep(self, first: jax.Array | int) -> "Batch":
        """Returns the batch with weight 0 for all but its ``first`` examples: a set need not end where a batch does."""
        mask = jnp.arange(self.weights.shape[0]) < first
        return self._replace(weights=jnp.where(mask.reshape(-1, *(1,) * (self.weights.ndim - 1)), self.weights, 0.0))


class Example(NamedTuple):
    """Shapes and dtypes of one example, without the batch's axis.

    Attributes:
      inputs: tokens ``[T]`` int32, features ``[T F]`` float32, or the same with R rows in front.
      targets: class ``[]`` or ``[T]`` int32, or numbers ``[O]`` or ``[T O]`` float32.
    """

    inputs: jax.ShapeDtypeStruct
    targets: jax.ShapeDtypeStruct

    @property
    def rows(self) -> int:
        """R, rows of an example; 1 where there is no such axis."""
        return self.inputs.shape[0] if self.inputs.ndim == (2 if self.tokens else 3) else 1

    @property
    def steps(self) -> int:
        """T, positions of a row."""
        return self.inputs.shape[-1 if self.tokens else -2]

    @property
    def tokens(self) -> bool:
        """Whether inputs are tokens, and not features."""
        return bool(jnp.issubdtype(self.inputs.dtype, jnp.integer))


class EvaluationSet(NamedTuple):
    """What is evaluated together and reported under one name.

    Attributes:
      name: after the slash of a metric's name, as in ``accuracy/40-64``.
      length: (shortest, longest) sequence.
    """

    name: str
    length: Length


@dataclasses.dataclass(frozen=True)
class Task:
    """What a model is asked, and how its answers are judged. A task is a value: equal fields mean equal data.

    Class attributes:
      EVAL_LENGTHS: length buckets (shortest, longest) of the evaluation.
      METRICS: what `loss`, `metrics` and `derive` measure, each with the direction that is better: "higher" or "lower".
      HEADS: the model's heads that can answer, the usual one first.
      ANSWERS_AHEAD: inputs to come hold the answer, as in language modelling; a layer that is not causal would read it there.
      CHANCE: accuracy of the best guess that does not read the input.
      CEILING: accuracy that a perfect model reaches.
      MAX_LENGTH: longest sequence that the task makes.
      MIN_LENGTH: shortest sequence that poses a question.
      LENGTH_STEP: lengths come in steps of this; above 1, a range's ends are rounded down to lengths that there are.
      REVISION: goes up by one when the data of the same fields change; part of a run's name.
    """

    EVAL_LENGTHS: ClassVar[tuple[Length, ...]]
    METRICS: ClassVar[Mapping[str, str]] = {"loss": "lower", "accuracy": "higher", "scaled_accuracy": "higher"}
    HEADS: ClassVar[tuple[str, ...]] = ("last", "mean")
    ANSWERS_AHEAD: ClassVar[bool] = False
    CHANCE: ClassVar[float]
    CEILING: ClassVar[float] = 1.0
    # The longest length at which every layer is tested to stay finite.
    MAX_LENGTH: ClassVar[int] = 16_384
    MIN_LENGTH: ClassVar[int] = 1
    LENGTH_STEP: ClassVar[int] = 1
    REVISION: ClassVar[int] = 0

    @property
    def vocab_size(self) -> int:
        """Input tokens, padding included; 0 where inputs are features."""
        raise NotImplementedError

    @property
    def outputs(self) -> int:
        """O: classes, or numbers to be met."""
        raise NotImplementedError

    @property
    def per_position(self) -> bool:
        """Whether every position has a target, and not every example one."""
        axes = len(self.example_spec(self.MAX_LENGTH).targets.shape)
        return axes == (1 if self.outputs_are_classes else 2)

    @property
    def outputs_are_classes(self) -> bool:
        """Whether targets are classes, and not numbers to be met."""
        return bool(jnp.issubdtype(self.example_spec(self.MAX_LENGTH).targets.dtype, jnp.integer))

    def example_spec(self, length: int) -> Example:
        """Returns shapes and dtypes of one example of ``length`` positions: here of tokens, and classes as `HEADS` answer."""
        targets = (length,) if self.HEADS[0] in ("token", "autoencoder") else ()
        return Example(jax.ShapeDtypeStruct((length,), jnp.int32), jax.ShapeDtypeStruct(targets, jnp.int32))

    def token_names(self) -> list[str]:
        """Returns what to call each input token where people read it: its number by default."""
        return [str(token) for token in range(self.vocab_size)]

    def evaluation_sets(self, lengths: Sequence[Sequence[int]]) -> tuple[EvaluationSet, ...]:
        """Returns the sets of one evaluation: one per length bucket, named as in ``40-64``."""
        return tuple(EvaluationSet(f"{shortest}-{longest}", (shortest, longest)) for shortest, longest in lengths)

    def oracle(self, example: list[int]) -> int | list[int]:
        """Returns the label of one unpadded input, or those of all its positions (`per_position`), by plain Python."""
        raise NotImplementedError

    def loss(self, outputs: Float[Array, "B *T O"], batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns (sum, weight) of the cross-entropy in nats, or of the mean squared error where targets are numbers."""
        if self.outputs_are_classes:
            losses = optax.softmax_cross_entropy_with_integer_labels(outputs, batch.targets)
        else:
            losses = jnp.mean(jnp.square(outputs - batch.targets), axis=-1)
        return jnp.sum(losses * batch.weights), jnp.sum(batch.weights)

    def metrics(self, outputs: Float[Array, "B *T O"], batch: Batch) -> Sums:
        """Returns (sum, weight) of each metric; here ``accuracy`` and ``scaled_accuracy`` = (accuracy - chance) / (1 - chance).

        Sum and weight may be vectors, such as one entry per class: the metric is then the mean of sum / weight over the entries
        that have weight (a macro average). None here where targets are numbers.
        """
        if not self.outputs_are_classes:
            return {}
        correct = (jnp.argmax(outputs, axis=-1) == batch.targets).astype(jnp.float32)
        weight = jnp.sum(batch.weights)
        accuracy = jnp.sum(correct * batch.weights)
        return {
            "accuracy": (accuracy, weight),
            "scaled_accuracy": ((accuracy - self.CHANCE * weight) / (1.0 - self.CHANCE), weight),
        }

    def curves(self, outputs: Float[Array, "B *T O"], batch: Batch) -> dict[str, tuple[Float[Array, " T"], Float[Array, " T"]]]:
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

    def epoch_examples(self, length: Length) -> int | None:
        """Returns the size of the training set; None where examples are made for ever."""
        return None

    def check_length(self, field: str, length: Length) -> None:
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
class SyntheticTask(Task):
    """A task whose examples are made on the device: a batch is a pure function of a key.

    Attributes:
      train_examples: examples of a fixed training set, which are drawn from the run's seed and come in another order in every
        epoch; 0 makes new examples for ever.

    Class attributes:
      SPLITS_DIFFER: whether `batch` draws "train", "validation" and "test" from different distributions.
      KEY_PER_BATCH: the examples of an evaluation set then depend on ``eval.batch_size``, because each batch and not each
        example has a key. True only for the tasks whose committed results were measured so.
    """

    train_examples: int = dataclasses.field(default=0, kw_only=True)

    SPLITS_DIFFER: ClassVar[bool] = False
    KEY_PER_BATCH: ClassVar[bool] = False

    def batch(self, key: jax.Array, size: int, length: Length, split: str = "train") -> Batch:
        """Makes ``size`` examples with lengths uniform in ``length`` = (shortest, longest), padded to the longest.

        Pure and jittable in ``key``; the rest is static. ``split`` is "train", "validation" or "test"; most tasks draw all
        three alike.
        """
        raise NotImplementedError

    def train_batch(self, key: jax.Array, step: jax.Array, size: int, length: Length) -> Batch:
        """Returns the training batch of a step: a pure function of the run's key and the step.

        With ``train_examples`` = N, example n of the set is always the same, and the batches of an epoch go through a
        permutation of the set drawn for that epoch; a batch may end one epoch and begin the next.
        """
        count = self.train_examples
        if not count:
            return self.batch(jax.random.fold_in(key, step), size, length, "train")
        set_key, order_key = (jax.random.fold_in(key, number) for number in (0, 1))
        # no position is computed as step * size: an int32 ends at two thousand million
        per_epoch, rest = divmod(count, size)
        if rest:
            epoch, first = _multiply_divide(step, size, count)
        else:
            epoch, first = step // per_epoch, (step % per_epoch) * size
        place = first + jnp.arange(size)
        # a batch that crosses the end of an epoch takes its rest from the next one's order
        epochs, place = epoch + place // count, place % count
        keys = jax.vmap(lambda epoch: jax.random.fold_in(order_key, epoch))(epochs)
        return self._examples(set_key, jax.vmap(lambda key, n: permute(key, n, count))(keys, place), length, "train")

    def evaluation_batch(self, key: jax.Array, index: jax.Array, size: int, evaluation_set: EvaluationSet, split: str) -> Batch:
        """Returns batch number ``index`` of an evaluation set with its own ``key``; see `KEY_PER_BATCH`.

        Here only the set's length counts; a task whose sets differ in something else makes them here.
        """
        length = evaluation_set.length
        if self.KEY_PER_BATCH:
            return self.batch(jax.random.fold_in(key, index), size, length, split)
        return self._examples(key, index * size + jnp.arange(size), length, split)

    def epoch_examples(self, length: Length) -> int | None:
        return self.train_examples or None

    def _examples(self, key: jax.Array, numbers: jax.Array, length: Length, split: str) -> Batch:
        def make(number: jax.Array) -> Batch:
            return jax.tree.map(lambda x: x[0], self.batch(jax.random.fold_in(key, number), 1, length, split))

        return jax.vmap(make)(numbers)


def permute(key: jax.Array, number: jax.Array, count: int) -> jax.Array:
    """Returns where a pseudo-random permutation of 0..count-1 that belongs to ``key`` takes ``number``.

    No permutation is drawn, which would sort the whole set at every step: a Feistel network permutes the numbers of an even
    number of bits, and is applied again to what it puts beyond ``count``, up to four times in the mean.
    """
    half = max(1, -(-(count - 1).bit_length() // 2))
    mask = jnp.uint32(2**half - 1)
    round_keys = jax.random.bits(key, (6,))

    def mix(x: jax.Array, round_key: jax.Array) -> jax.Array:
        x = (x ^ round_key) * jnp.uint32(0x9E3779B1)
        x = (x ^ (x >> 15)) * jnp.uint32(0x85EBCA77)
        return (x ^ (x >> 13)) & mask

    def scramble(x: jax.Array) -> jax.Array:
        left, right = x >> half, x & mask
        for round_key in round_keys:
            left, right = right, left ^ mix(right, round_key)
        return (left << half) | right

    x = jax.lax.while_loop(lambda x: x >= count, scramble, scramble(number.astype(jnp.uint32)))
    return x.astype(jnp.int32)


def _multiply_divide(step: jax.Array, size: int, count: int) -> tuple[jax.Array, jax.Array]:
    """Returns quotient and remainder of ``step * size`` by ``count``, without the product: steps reach far, int32 does not."""
    # step = a * count + b, so step * size = a * size * count + b * size, and b * size < count * size
    a, b = step // count, step % count
    return a * size + (b * size) // count, (b * size) % count


@dataclasses.dataclass(frozen=True)
class ModularTask(SyntheticTask):
    """A task whose answer is a number modulo m; chance is 1/m, as the papers scale by.

    Attributes:
      modulus: m, at least 2.
    """

    modulus: int

    def __post_init__(self) -> None:
        if self.modulus < 2:
            raise UserError(f"modulus={self.modulus} must be at least 2")

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

    def rows(self, split: str, length: Length) -> Any:
        """Returns a split's examples: something with ``len`` and ``[i]``, whose elements are arrays of one shape.

        Args:
          split: "train", "validation" or "test".
          length: (shortest, longest) example.
        """
        raise NotImplementedError

    def collate(self, rows: Any, length: Length) -> Batch:
        """Turns stacked examples into a batch of NumPy arrays."""
        raise NotImplementedError

    def epoch_examples(self, length: Length) -> int:
        return len(self.rows("train", length))

    def train_batches(self, size: int, length: Length, seed: int, *, process: tuple[int, int] = (0, 1)) -> "MapDataset[Batch]":
        """Returns a grain data set without end, whose i-th element is the training batch of step i.

        Args:
          size: examples of a batch over all processes.
          length: (shortest, longest) example.
          seed: fixes the order, which is another in every epoch.
          process: (this process, processes): each reads its own part of every batch, and nothing else.
        """
        from grain import MapDataset

        index, count = process
        if size % count:
            raise UserError(f"a batch of {size} examples cannot be shared by {count} processes")
        rows = MapDataset.source(self.rows("train", length)).seed(seed).shuffle().repeat()[index::count]
        return rows.batch(size // count, drop_remainder=True).map(lambda stacked: self.collate(stacked, length))

    def evaluation_rows(self, split: str, evaluation_set: EvaluationSet) -> "MapDataset[Any]":
        """Returns a split's examples in one order for all seeds: the first of them are a fair sample."""
        from grain import MapDataset

        return MapDataset.source(self.rows(split, evaluation_set.length)).seed(0).shuffle()
