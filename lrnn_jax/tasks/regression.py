"""What tasks share whose inputs are features and whose targets are numbers of about unit variance: one length, one measure."""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch, Length, Sums, SyntheticTask


@dataclasses.dataclass(frozen=True)
class RegressionTask(SyntheticTask):
    """A task of sequences of one length whose targets are numbers, with mean 0 and variance 1 or so.

    ``nrmse = sqrt(unexplained)``, and ``unexplained`` is the sum of the squared errors over that of the squared targets: 1 for
    a model that always answers 0.
    """

    METRICS = {"loss": "lower", "unexplained": "lower", "nrmse": "lower"}
    CHANCE = 0.0  # of an accuracy, of which there is none

    @property
    def vocab_size(self) -> int:
        return 0

    def metrics(self, outputs: Float[Array, "B *T O"], batch: Batch) -> Sums:
        def add_up(x: Float[Array, "B *T O"]) -> Float[Array, ""]:
            return jnp.sum(batch.weights[..., None] * jnp.square(x))

        return {"unexplained": (add_up(outputs - batch.targets), add_up(batch.targets))}

    def derive(self, means: Mapping[str, float]) -> dict[str, float]:
        return {"nrmse": means["unexplained"] ** 0.5}

    def check_length(self, field: str, length: Length) -> None:
        super().check_length(field, length)
        if length[0] != length[1]:
            name = type(self).__name__
            raise UserError(f"{field}={list(length)}: all sequences of task {name} have one length, so both ends must be equal")
