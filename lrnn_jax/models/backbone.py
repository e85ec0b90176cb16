"""The backbone that every layer is compared in: encoder, blocks, head."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lrnn_jax.models.block import Block
from lrnn_jax.models.encoders import Positions, make_encoder, matrix_init, sinusoids
from lrnn_jax.models.names import INITIAL_VALUES, NORM_POSITIONS, POSITIONS, check_name, load_head, load_mixer
from lrnn_jax.models.norms import Norm


class Backbone(nn.Module):
    """Embedding or linear encoder, L blocks, and a head.

    Example: two blocks of a layer between tokens and an answer at every position; four positions, and the one after them.

    >>> model = Backbone(DeltaNet, (("heads", 2),), vocab_size=5, outputs=3, width=8, depth=2)
    >>> variables = model.init(jax.random.key(0), jnp.ones((1, 4), jnp.int32))
    >>> logits, states = model.apply(variables, jnp.ones((1, 4), jnp.int32))
    >>> answer, states = model.apply(variables, jnp.ones((1, 1), jnp.int32), states=states)
    >>> logits.shape, answer.shape
    ((1, 4, 3), (1, 1, 3))

    Attributes:
      layer_class: the `RecurrentLayer` of every block.
      layer_fields: its own fields, as a tuple of (name, value).
      vocab_size: tokens of an embedding; 0 for a linear encoder of features.
      outputs: O, classes, output vocabulary, or numbers to predict.
      width: D.
      depth: L.
      norm: one of `lrnn_jax.models.names.NORMS`.
      norm_eps: added to the variance or the mean square.
      norm_momentum: share of BatchNorm's running statistics that a training step keeps.
      norm_bias: LayerNorm and BatchNorm have offsets.
      norm_padding: BatchNorm's statistics in training count padding, as the code of S5 and LRU does; see `Norm`.
      norm_position: "pre" or "post".
      final_norm: with "pre", one more norm before the head.
      mixer: one of `lrnn_jax.models.names.MIXERS`.
      mixer_hidden: hidden width of "mlp", "swiglu" and "geglu".
      residual: adds each branch to its input; off, a block returns the branch alone.
      dropout: probability of dropping an activation.
      positions: vectors added to the encoded inputs: "none", "learned" or "sinusoidal".
      max_length: longest sequence, for positions and for heads that need it; 0: any.
      head: one of `lrnn_jax.models.names.HEADS`.
      head_bias: the head's last linear map has a bias.
      initial_values: of embedding, encoder, mixers and head: "default", or "released": every matrix from N(0, 0.02^2),
        every bias 0, as the code of DeltaNet's models and of H-LRU and BD-LRU draws them.
      remat: a training step keeps each block's input alone and computes the rest again: less memory for more time. On a
        CPU it saves memory together with ``scan_blocks`` only.
      scan_blocks: runs the blocks as one loop, whose body is compiled once; parameters lie stacked under ``blocks``.
      scan: how the recurrences run: "auto" or one of the layer's METHODS.
      dtype: compute dtype; parameters, the sum of the residual branches, norms' statistics, states and logits are float32.

    Raises:
      ValueError: fields that do not fit together; names the first.
    """

    layer_class: Any
    layer_fields: tuple[tuple[str, Any], ...]
    vocab_size: int
    outputs: int
    width: int
    depth: int
    norm: str = "layernorm"
    norm_eps: float = 1e-5
    norm_momentum: float = 0.95
    norm_bias: bool = True
    norm_padding: bool = True
    norm_position: str = "pre"
    final_norm: bool = True
    mixer: str = "none"
    mixer_hidden: int = 0
    residual: bool = True
    dropout: float = 0.0
    positions: str = "none"
    max_length: int = 0
    head: str = "token"
    head_bias: bool = True
    initial_values: str = "default"
    remat: bool = False
    scan_blocks: bool = False
    scan: str = "auto"
    dtype: Any = jnp.float32

    # Parameters outside the recurrent layers: matrices and embeddings decay, gains and offsets do not.
    PARAM_GROUPS: ClassVar[Mapping[str, Mapping[str, float]]] = {
        r"(kernel|embedding)$": {"lr": 1.0, "wd": 1.0},
        r"(bias|scale)$": {"lr": 1.0, "wd": 0.0},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self._norm()
        check_name("norm_position", self.norm_position, NORM_POSITIONS)
        check_name("positions", self.positions, POSITIONS)
        check_name("initial_values", self.initial_values, INITIAL_VALUES)
        if load_mixer(self.mixer).NEEDS_HIDDEN and self.mixer_hidden < 1:
            raise ValueError(f"mixer={self.mixer!r} needs mixer_hidden of at least 1")
        if self.positions != "none" and self.max_length < 1:
            raise ValueError(f"positions={self.positions!r} needs max_length of at least 1")
        if load_head(self.head).NEEDS_MAX_LENGTH and self.max_length < 1:
            raise ValueError(f"head={self.head!r} needs max_length of at least 1")
        if self.scan_blocks and self.make_layer().indexed:
            name = self.layer_class.__name__
            raise ValueError(f"scan_blocks=True needs blocks that start alike, and those of {name} depend on their index")

    @property
    def causal(self) -> bool:
        """Whether the model can go on from a state, token by token: layer and head look at no later position."""
        return self.make_layer().causal and load_head(self.head).CAUSAL

    def make_layer(self, index: int = 0, layer_values: Mapping[str, Any] | None = None) -> nn.Module:
        """Returns a detached copy of a block's layer.

        Args:
          index: which block's.
          layer_values: layer fields to replace, also by traced floats.
        """
        given = {"width": self.width, "depth": self.depth, "dtype": self.dtype, "index": index}
        return self.layer_class(parent=None, **given, **{**dict(self.layer_fields), **(layer_values or {})})

    def init_states(self, batch: int) -> tuple[Any, ...]:
        """Returns every block's state before the first position and, with positions, the first position of each row."""
        blocks = tuple(self.make_layer(i).init_state(batch) for i in range(self.depth))
        return blocks if self.positions == "none" else (*blocks, jnp.zeros((batch,), jnp.int32))

    @nn.compact
    def __call__(
        self,
        inputs: Int[Array, "B *R T"] | Float[Array, "B *R T F"],
        *,
        lengths: Int[Array, " B *R"] | None = None,
        states: tuple[Any, ...] | None = None,
        reset: Bool[Array, "B *R T"] | None = None,
        train: bool = False,
        layer_values: Mapping[str, Any] | None = None,
    ) -> tuple[Float[Array, "B *T O"], tuple[Any, ...]]:
        """Returns ``(logits, states)``.

        Args:
          inputs: tokens, or features for the linear encoder; with an axis R for a head of more than one row per example.
          lengths: positions that count in each row, for all heads but "token", and for layers that are not causal, which read
            zeros at all others; all if None.
          states: one per block and what `init_states` adds, from there or from an earlier call.
          reset: True where a new sequence starts inside a row.
          train: turns on dropout and BatchNorm's batch statistics.
          layer_values: layer fields to replace, also by traced floats: hyper-parameters as arguments of a compiled program.

        Raises:
          ValueError: inputs of another rank, or longer than ``max_length``; states of another number, not as `init_states`
            makes them, or for a model that is not `causal`.
        """
        self._check(inputs, states)
        head_class = load_head(self.head)
        if head_class.ROWS > 1:
            # the rows of an example pass the blocks as examples of their own
            inputs, lengths, reset = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (inputs, lengths, reset))
        batch, steps = inputs.shape[:2]
        x = make_encoder(self.vocab_size, self.width, initial_values=self.initial_values, dtype=self.dtype)(inputs)
        begun = None if states is None else states[: self.depth]
        following: tuple[Any, ...] = ()
        vectors = None
        if self.positions != "none":
            positions = Positions(self.positions, self.max_length, self.width, name="positions")
            x, end = positions(x, None if states is None else states[-1], reset)
            following, vectors = (end,), positions.table()[:steps]
        elif head_class.NEEDS_MAX_LENGTH:
            vectors = jnp.asarray(sinusoids(steps, self.width))
        inside = None
        if lengths is not None and not (self.norm_padding and self.make_layer().causal):
            inside = jnp.arange(steps)[None] < lengths[:, None]
        x, ended = self._run_blocks(x.astype(jnp.float32), begun, reset, inside, train, layer_values)
        lengths = jnp.full((batch,), steps, jnp.int32) if lengths is None else lengths
        return self._answer(x, lengths, vectors, train, inside), (*ended, *following)

    def _check(self, inputs: jax.Array, states: tuple[Any, ...] | None) -> None:
        rows = load_head(self.head).ROWS
        shape = f"[B{f' {rows}' if rows > 1 else ''} T{'' if self.vocab_size else ' F'}]"
        if inputs.ndim != shape.count(" ") + 1 or (rows > 1 and inputs.shape[1] != rows):
            raise ValueError(f"inputs: shape {inputs.shape} is not {shape}, as for the head {self.head!r}")
        steps = inputs.shape[1 + (rows > 1)]
        if self.max_length and steps > self.max_length:
            raise ValueError(f"inputs: {steps} positions are more than max_length={self.max_length}")
        if states is None:
            return
        if not self.causal:
            name = self.make_layer().describe()
            raise ValueError(f"states: {name} and the head {self.head!r} reads whole sequences; it cannot go on from states")
        if len(states) != self.depth + (self.positions != "none"):
            extra = "" if self.positions == "none" else " and their positions"
            raise ValueError(f"states: {len(states)} of them for {self.depth} blocks{extra}")

    def _norm(self) -> Norm:
        return Norm(self.norm, self.norm_eps, self.norm_momentum, self.norm_bias, self.norm_padding)

    def _run_blocks(
        self,
        x: jax.Array,
        states: tuple[Any, ...] | None,
        reset: jax.Array | None,
        inside: jax.Array | None,
        train: bool,
        layer_values: Mapping[str, Any] | None,
    ) -> tuple[jax.Array, tuple[Any, ...]]:
        block_class = nn.remat(Block, prevent_cse=not self.scan_blocks) if self.remat else Block

        def make(block_class: Any, index: int, name: str) -> Any:
            return block_class(
                self.make_layer(index, layer_values),
                self.width,
                self._norm(),
                self.norm_position,
                self.mixer,
                self.mixer_hidden,
                self.residual,
                self.dropout,
                self.dtype,
                matrix_init(self.initial_values),
                self.scan,
                train,
                name=name,
            )

        if self.scan_blocks and self.depth:
            stacked = None if states is None else jax.tree.map(lambda *parts: jnp.stack(parts), *states)
            x, last = make(_scan_over(block_class, self.depth), 0, "blocks")(x, stacked, reset, inside)
            return x, tuple(_take(last, i) for i in range(self.depth))
        ended = []
        for i in range(self.depth):
            x, state = make(block_class, i, f"block_{i}")(x, None if states is None else states[i], reset, inside)
            ended.append(state)
        return x, tuple(ended)

    def _answer(
        self, x: jax.Array, lengths: jax.Array, vectors: jax.Array | None, train: bool, inside: jax.Array | None
    ) -> jax.Array:
        head_class = load_head(self.head)
        normed = self.final_norm and self.norm_position == "pre" and not head_class.OWN_NORM
        # BatchNorm's statistics are those of more positions than are read
        early = self.norm != "batchnorm"
        if early:
            x = head_class.select(x, lengths)
        if normed:
            x = self._norm().make(train=train, dtype=self.dtype, name="norm", inside=inside)(x)
        if not early:
            x = head_class.select(x, lengths)
        init = matrix_init(self.initial_values)
        head = head_class(self.outputs, self.width, self.head_bias, self._norm(), train, self.dtype, init, name="head")
        return head(x, lengths=lengths, positions=vectors).astype(jnp.float32)


def _scan_over(block_class: Any, depth: int) -> Any:
    """A loop over blocks whose parameters, statistics and states are stacked."""
    return nn.scan(
        block_class,
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(0, nn.broadcast, nn.broadcast),
        length=depth,
    )


def unroll_blocks(model: Backbone, variables: Mapping[str, Any]) -> tuple[Backbone, dict[str, Any]]:
    """Returns the model without ``remat`` and ``scan_blocks``, and its variables under the names of single blocks.

    What looks into the blocks from outside (`flax.linen.intercept_methods`) needs them so.
    """
    unrolled = {}
    for collection, tree in variables.items():
        single = {f"block_{i}": _take(tree["blocks"], i) for i in range(model.depth)} if "blocks" in tree else {}
        unrolled[collection] = {**{name: part for name, part in tree.items() if name != "blocks"}, **single}
    return model.clone(remat=False, scan_blocks=False), unrolled


def _take(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)
