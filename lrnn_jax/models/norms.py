"""Normalisations of the stream: over features (LayerNorm, RMSNorm) or over batch and time (BatchNorm)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.models.names import NORMS, check_name


@dataclasses.dataclass(frozen=True)
class Norm:
    """Which normalisation a model uses everywhere.

    Attributes:
      kind: one of `lrnn_jax.models.names.NORMS`.
      epsilon: added to the variance or the mean square.
      momentum: share of BatchNorm's running statistics that a training step keeps; 0.95 in most of S5, unknown for the LRU.
      use_bias: LayerNorm and BatchNorm add a learned offset.
      padding: BatchNorm's statistics in training count positions beyond a row's length too, as the code of S5 and LRU does, so
        that an example's outputs depend on how far its batch is padded; off, they count what lies inside of the rows alone.

    Raises:
      ValueError: another kind.
    """

    kind: str = "layernorm"
    epsilon: float = 1e-5
    momentum: float = 0.95
    use_bias: bool = True
    padding: bool = True

    def __post_init__(self) -> None:
        check_name("norm", self.kind, NORMS)

    def make(self, *, train: bool, dtype: Any, name: str, inside: jax.Array | None = None) -> Callable[[jax.Array], jax.Array]:
        """Returns the function; it computes in float32.

        Args:
          train: BatchNorm uses the batch's statistics and updates its running ones.
          dtype: dtype of the result.
          name: name of the submodule that holds the parameters, of which "none" has none.
          inside: [B T] bool, False where a row is padded; None: nowhere.
        """
        shared = {"epsilon": self.epsilon, "dtype": jnp.float32, "name": name}
        module: nn.Module
        if self.kind == "layernorm":
            module = nn.LayerNorm(use_bias=self.use_bias, **shared)
        elif self.kind == "rmsnorm":
            module = nn.RMSNorm(**shared)
        elif self.kind == "batchnorm":
            module = nn.BatchNorm(use_running_average=not train, momentum=self.momentum, use_bias=self.use_bias, **shared)
            if inside is not None and not self.padding:
                return lambda x: module(x.astype(jnp.float32), mask=inside[..., None]).astype(dtype)
        else:
            return lambda x: x.astype(dtype)
        return lambda x: module(x.astype(jnp.float32)).astype(dtype)
