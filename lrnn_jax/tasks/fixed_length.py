"""What the tasks of MAD and of Zoology share: sequences of one length, a question at some positions, accuracy by class."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch, Length, Sums, SyntheticTask


@dataclasses.dataclass(frozen=True)
class FixedLengthTask(SyntheticTask):
    """A task whose sequences all have the length that is asked for, and whose outputs are its input tokens.

    ``macro_accuracy`` is the mean over the classes of the share of each class's targets that are right.

    Attributes:
      vocabulary: V, input tokens and classes, those with a meaning of their own included.

    Source: MAD (Poli et al. 2024) reports the macro average.
    Differs: classes that are no target count nothing in ``macro_accuracy``, where MAD's (that of torchmetrics) counts those
      that the model answers wrongly with as 0. It is taken over a whole evaluation set; MAD's is the mean over batches of 128.
    """

    vocabulary: int = 16

    METRICS = {**SyntheticTask.METRICS, "macro_accuracy": "higher"}
    HEADS = ("token",)

    @property
    def vocab_size(self) -> int:
        return self.vocabulary

    @property
    def outputs(self) -> int:
        return self.vocabulary

    def metrics(self, logits: Float[Array, "B T O"], batch: Batch) -> Sums:
        right = jnp.where(jnp.argmax(logits, axis=-1) == batch.targets, batch.weights, 0.0)

        def by_class(x: jax.Array) -> jax.Array:
            return jax.ops.segment_sum(x.ravel(), batch.targets.ravel(), self.outputs)

        return {**super().metrics(logits, batch), "macro_accuracy": (by_class(right), by_class(batch.weights))}

    def check_length(self, field: str, length: Length) -> None:
        super().check_length(field, length)
        name = type(self).__name__
        if length[0] != length[1]:
            raise UserError(f"{field}={list(length)}: all sequences of task {name} have one length, so both ends must be equal")
        if length[1] % self.LENGTH_STEP:
            raise UserError(f"{field}={list(length)}: task {name} is made of pairs, so lengths must be even")


def make_batch(inputs: Int[Array, "B T"], targets: Int[Array, "B T"], asked: Bool[Array, "#B T"] | bool) -> Batch:
    """Returns the batch of full rows in which the positions ``asked`` count, and the other targets are 0."""
    asked = jnp.broadcast_to(asked, targets.shape)
    return Batch(
        inputs=inputs.astype(jnp.int32),
        targets=jnp.where(asked, targets, 0).astype(jnp.int32),
        weights=asked.astype(jnp.float32),
        lengths=jnp.full(inputs.shape[:1], inputs.shape[1], jnp.int32),
    )


def draw_distinct(key: jax.Array, shape: tuple[int, ...], choices: int, count: int) -> Int[Array, "*shape count"]:
    """Draws ``count`` distinct numbers of 0, ..., ``choices`` - 1 in random order; the first of them are uniform too."""
    # of floats, because those of integers take 25 times as long on a CPU
    return jax.lax.top_k(jax.random.uniform(key, (*shape, choices)), count)[1]
