"""The backbone that every layer is compared in: encoder, blocks, head."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lrnn_jax.models.mixer import MLP, SECOND_BRANCH, GatedLinearUnit
from lrnn_jax.parts.dense import Dense
from lrnn_jax.parts.norm import make_norm

HEADS = ("token", "last", "mean")
NORM_POSITIONS = ("pre", "post")


class Block(nn.Module):
    """``x + dropout(layer(norm(x)))``, or the norm after the sum; then the channel mixer (see `lrnn_jax.models.mixer`).

    Attributes: as for `Backbone`.
    """

    layer: nn.Module
    width: int
    norm: str
    norm_position: str
    mixer: str
    mixer_hidden: int
    residual: bool
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, *, state: Any, reset: jax.Array | None, method: str, train: bool) -> tuple[jax.Array, Any]:
        """Maps ``[B T D]`` to ``[B T D]`` and carries the layer's state."""

        def recur(u: jax.Array) -> tuple[jax.Array, Any]:
            y, new_state = self.layer(u, state=state, reset=reset, scan=method)
            if self.mixer == "glu":
                y = GatedLinearUnit(self.width, self.dropout, self.dtype, name="glu")(y, train=train)
            else:
                y = nn.Dropout(self.dropout, deterministic=not train)(y)
            return y, new_state

        pre = self.norm_position == "pre"
        # what a norm after the sum returns is the stream itself, which is float32
        dtype = self.dtype if pre else jnp.float32
        norm = make_norm(self.norm, train=train, dtype=dtype, name="norm")
        y, state = recur(norm(x) if pre else x.astype(self.dtype))
        x = self._join(x, y) if pre else norm(self._join(x, y))
        if self.mixer not in SECOND_BRANCH:
            return x, state
        mlp = MLP(self.width, self.mixer_hidden, self.mixer, self.dtype, name="mlp")
        drop = nn.Dropout(self.dropout, deterministic=not train)
        norm = make_norm(self.norm, train=train, dtype=dtype, name="mlp_norm")
        x = self._join(x, drop(mlp(norm(x)))) if pre else norm(self._join(x, drop(mlp(x))))
        return x, state

    def _join(self, x: jax.Array, y: jax.Array) -> jax.Array:
        # branches are computed in dtype and added up in float32, as mixed precision in PyTorch does
        return x.astype(jnp.float32) + y.astype(jnp.float32) if self.residual else y


class Backbone(nn.Module):
    """Embedding or linear encoder, L blocks, and a classification head.

    Attributes:
      layer_class: the `RecurrentLayer` of every block.
      layer_fields: its own fields, as a tuple of (name, value).
      vocab_size: tokens of an embedding; 0 for a linear encoder of ``[B T F]`` inputs.
      outputs: O, classes or output vocabulary.
      width: D.
      depth: L.
      norm: one of `lrnn_jax.parts.norm.NORMS`.
      norm_position: "pre" (one more norm before the head) or "post".
      mixer: one of `lrnn_jax.models.mixer.MIXERS`.
      mixer_hidden: hidden width of "mlp", "swiglu" and "geglu".
      residual: adds each branch to its input; off, a block returns the branch alone.
      dropout: probability of dropping an activation.
      head: "token" (logits ``[B T O]``), "last" (``[B O]`` at each row's last position) or "mean" (``[B O]`` of the mean
        over each row's positions).
      method: how the recurrences run: "auto" or one of the layer's METHODS.
      dtype: compute dtype; parameters, the sum of the residual branches, norms' statistics, states and logits are float32.
    """

    layer_class: Any
    layer_fields: tuple[tuple[str, Any], ...]
    vocab_size: int
    outputs: int
    width: int
    depth: int
    norm: str = "layernorm"
    norm_position: str = "pre"
    mixer: str = "none"
    mixer_hidden: int = 0
    residual: bool = True
    dropout: float = 0.0
    head: str = "token"
    method: str = "auto"
    dtype: Any = jnp.float32

    # Parameters outside the recurrent layers: matrices and embeddings decay, gains and offsets do not.
    PARAM_GROUPS: ClassVar[Mapping[str, Mapping[str, float]]] = {
        r"(kernel|embedding)$": {"lr": 1.0, "wd": 1.0},
        r"(bias|scale)$": {"lr": 1.0, "wd": 0.0},
    }

    def make_layer(self) -> nn.Module:
        """Returns a detached copy of the layer, for its constants, state sizes and parameter counts."""
        given = {"width": self.width, "depth": self.depth, "dtype": self.dtype}
        return self.layer_class(parent=None, **given, **dict(self.layer_fields))

    def init_states(self, batch: int) -> tuple[Any, ...]:
        """Returns every block's state before the first position."""
        return tuple(self.make_layer().init_state(batch) for _ in range(self.depth))

    @nn.compact
    def __call__(
        self,
        inputs: Int[Array, "B T"] | Float[Array, "B T F"],
        *,
        lengths: Int[Array, " B"] | None = None,
        states: tuple[Any, ...] | None = None,
        reset: Bool[Array, "B T"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "B *T O"], tuple[Any, ...]]:
        """Returns ``(logits, states)``.

        Args:
          inputs: tokens, or features for the linear encoder.
          lengths: positions that count in each row, for the heads "last" and "mean"; all if None.
          states: one per block, from `init_states` or an earlier call.
          reset: True where a new sequence starts inside a row.
          train: turns on dropout and BatchNorm's batch statistics.

        Raises:
          ValueError: states of another number of blocks, or not as `init_states` makes them.
        """
        if states is not None and len(states) != self.depth:
            raise ValueError(f"states: {len(states)} of them for {self.depth} blocks")
        if self.vocab_size:
            # In float32, so that the table's gradient is summed in it. A sum in bfloat16 stops growing after a few hundred of a
            # batch's thousands of tokens, and on a GPU each addition waits for the one before.
            x = nn.Embed(self.vocab_size, self.width, dtype=jnp.float32, name="embed")(inputs)
        else:
            x = Dense(self.width, dtype=self.dtype, name="encode")(inputs)
        states = (None,) * self.depth if states is None else states
        new_states = []
        for i in range(self.depth):
            block = Block(
                self.make_layer(),
                self.width,
                self.norm,
                self.norm_position,
                self.mixer,
                self.mixer_hidden,
                self.residual,
                self.dropout,
                self.dtype,
                name=f"block_{i}",
            )
            x, state = block(x, state=states[i], reset=reset, method=self.method, train=train)
            new_states.append(state)
        early = self.head == "last" and self.norm != "batchnorm"
        if early:
            x = _pool(x, self.head, lengths)
        if self.norm_position == "pre":
            x = make_norm(self.norm, train=train, dtype=self.dtype, name="norm")(x)
        if not early:
            x = _pool(x, self.head, lengths)
        logits = Dense(self.outputs, dtype=self.dtype, name="head")(x)
        return logits.astype(jnp.float32), tuple(new_states)


def _pool(x: jax.Array, head: str, lengths: jax.Array | None) -> jax.Array:
    if head == "token":
        return x
    if lengths is None:
        lengths = jnp.full(x.shape[:1], x.shape[1], jnp.int32)
    if head == "last":
        return jnp.take_along_axis(x, (lengths - 1)[:, None, None], axis=1)[:, 0]
    counts = jnp.arange(x.shape[1])[None] < lengths[:, None]
    total = jnp.sum(jnp.where(counts[..., None], x.astype(jnp.float32), 0.0), axis=1)
    return (total / lengths[:, None].astype(jnp.float32)).astype(x.dtype)
