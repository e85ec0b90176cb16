"""Reconstruction: the whole input back from the vector at its last position."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch, Example, Length
from lrnn_jax.tasks.regression import RegressionTask


@dataclasses.dataclass(frozen=True)
class Reconstruction(RegressionTask):
    """Which number was at each position? All are asked at once, of the last position's vector.

    Inputs are white noise of variance 1, or with P = ``dimensions`` above 0 a normal combination of the P lowest cosines
    ``cos(pi p (t + 1/2) / T)``, of variance 1 on the whole.

    Attributes:
      steps: T, the length of all sequences.
      dimensions: P, at most T; 0 for white noise.

    Source: ours; Orvieto et al. 2024 reconstruct inputs from the last state, but of which data could not be read.
    """

    steps: int = 32
    dimensions: int = 0

    EVAL_LENGTHS = ((32, 32),)
    HEADS = ("last",)
    MAX_LENGTH = 1024

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= self.MAX_LENGTH:
            raise UserError(f"steps={self.steps} must be between 1 and {self.MAX_LENGTH}")
        if not 0 <= self.dimensions <= self.steps:
            raise UserError(f"dimensions={self.dimensions} must be between 0 and steps={self.steps}")

    @property
    def outputs(self) -> int:
        return self.steps

    def example_spec(self, length: int) -> Example:
        shapes = ((length, 1), (self.steps,))
        return Example(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))

    def batch(self, key: jax.Array, size: int, length: Length, split: str = "train") -> Batch:
        T, P = self.steps, self.dimensions
        u = jax.random.normal(key, (size, P or T))
        if P:
            waves = np.cos(np.pi * np.arange(P)[:, None] * (np.arange(T) + 0.5) / T)
            basis = waves * (T / P) ** 0.5 / np.linalg.norm(waves, axis=1, keepdims=True)
            u = jnp.matmul(u, jnp.asarray(basis, jnp.float32), precision="highest")
        return Batch(u[..., None], u, jnp.ones((size,)), jnp.full((size,), T, jnp.int32))

    def check_length(self, field: str, length: Length) -> None:
        super().check_length(field, length)
        if length[0] != self.steps:
            raise UserError(
                f"{field}={list(length)}: the sequences of task Reconstruction have task.steps={self.steps} positions"
            )
