"""One block of the backbone: a layer, a channel mixer, norms and residual branches."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.models.names import load_mixer
from lrnn_jax.models.norms import Norm


class Block(nn.Module):
    """``x + dropout(layer(norm(x)))``, or the norm after the sum; then the channel mixer (see `lrnn_jax.models.mixers`).

    Attributes:
      layer: the recurrent layer.
      norm: which normalisation.
      kernel_init: initial values of the mixer's matrices.
      scan: how the layer's recurrence runs.
      train: turns on dropout and BatchNorm's batch statistics.
      width, norm_position, mixer, mixer_hidden, residual, dropout, dtype: as for `lrnn_jax.models.backbone.Backbone`.
    """

    layer: nn.Module
    width: int
    norm: Norm
    norm_position: str
    mixer: str
    mixer_hidden: int
    residual: bool
    dropout: float
    dtype: Any
    kernel_init: nn.initializers.Initializer
    scan: str
    train: bool

    @nn.compact
    def __call__(
        self, x: jax.Array, state: Any, reset: jax.Array | None, inside: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        """Maps ``[B T D]`` to ``[B T D]`` float32 and carries the layer's state.

        Where ``inside`` ([B T] bool) is given and False, a layer that is not causal reads zeros. A linear recurrence without
        biases thus enters a row from the right with an empty state, and no answer depends on how far the row is padded.
        """
        mixer_class = load_mixer(self.mixer)

        def recur(u: jax.Array) -> jax.Array:
            nonlocal state
            u = u if inside is None or self.layer.causal else jnp.where(inside[..., None], u, jnp.zeros_like(u))
            y, state = self.layer(u, state=state, reset=reset, scan=self.scan)
            if mixer_class.PLACE == "inside":
                return self._make_mixer("glu")(y, train=self.train)
            return nn.Dropout(self.dropout, deterministic=not self.train)(y)

        x = self._add_branch(x, recur, "norm", inside)
        if mixer_class.PLACE == "after":
            mlp, drop = self._make_mixer("mlp"), nn.Dropout(self.dropout, deterministic=not self.train)
            x = self._add_branch(x, lambda u: drop(mlp(u, train=self.train)), "mlp_norm", inside)
        return x, state

    def _make_mixer(self, name: str) -> Any:
        mixer_class = load_mixer(self.mixer)
        return mixer_class(self.width, self.mixer_hidden, self.dropout, self.dtype, self.kernel_init, name=name)

    def _add_branch(self, x: jax.Array, branch: Any, norm_name: str, inside: jax.Array | None) -> jax.Array:
        # branches are computed in dtype and added up in float32, as mixed precision in PyTorch does
        if self.norm_position == "pre":
            norm = self.norm.make(train=self.train, dtype=self.dtype, name=norm_name, inside=inside)
            return self._join(x, branch(norm(x)))
        # what a norm after the sum returns is the stream itself
        norm = self.norm.make(train=self.train, dtype=jnp.float32, name=norm_name, inside=inside)
        return norm(self._join(x, branch(x.astype(self.dtype))))

    def _join(self, x: jax.Array, y: jax.Array) -> jax.Array:
        y = y.astype(jnp.float32)
        return x.astype(jnp.float32) + y if self.residual else y
