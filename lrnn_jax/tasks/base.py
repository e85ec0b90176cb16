"""The contract that every task keeps. A new task is one file beside this one and one line in `registry`."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from lrnn_jax.errors import UserError

Sums = dict[str, tuple[jax.Array, jax.Array]]


class Batch(NamedTuple):
    """What a model sees and what it is asked.

    Attributes:
      inputs: tokens ``[B T]`` int32 or features ``[B T F]`` float32.
      targets: class per row ``[B]`` or per position ``[B T]``, int32.
      weights: how much each target counts, float32, shaped as ``targets``; 0 for padding.
      lengths: positions of each row that hold input ``[B]`` int32; the rest is padding.
    """

    inputs: Int[Array, "B T"] | Float[Array, "B T F"]
    targets: Int[Array, "B *T"]
    weights: Float[Array, "B *T"]
    lengths: Int[Array, " B"]


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
        """Returns (sums, weights) by position of what is worth a curve; measured by the final test only. None by default."""
        return {}

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
