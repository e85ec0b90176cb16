"""The contract that every recurrent layer keeps. A new layer is one file in `lrnn_jax/layers` and one line in `registry`."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from lrnn_jax.errors import UserError, suggest
from lrnn_jax.scans.method import Serves, choose_method

State = Any

# Two groups that most layers have: matrices decay, gains and offsets do not.
MATRICES = {"lr": 1.0, "wd": 1.0}
NO_DECAY = {"lr": 1.0, "wd": 0.0}
# Of time-invariant recurrences: eigenvalues, step sizes and input matrices. ``optim.recurrent_lr`` stands in for their lr.
RECURRENT = {"lr": 0.25, "wd": 0.0, "recurrent": True}

# The field `initial_values` of layers whose initial values differ from those of the papers' code.
INITIAL_VALUES = ("default", "released")

# The variants that most layers with a choice have.
EIGENVALUE_RANGES = {"negative": {"negative_eigenvalues": True}, "positive": {"negative_eigenvalues": False}}


class RecurrentLayer(nn.Module):
    """Maps ``[B T D]`` to ``[B T D]`` and carries a state whose size does not depend on T.

    A layer writes `recur`, `init_state`, `transition`, `parameter_count` and `state_count`, the class attributes SOURCE,
    METHODS and PARAM_GROUPS, and where it needs them the other class attributes below and `check`. `lrnn_jax.parts.contract`
    names what a class lacks of these. `__call__` stays as it is here: it does what all layers need.

    A layer's own fields are its config. Float fields are values, never structure: they are traced, so that runs which differ
    in them can share a program, and no Python ``if`` may ask for one outside of `check`. All other fields are static.

    Example: four positions at once, and the fifth from the state after them.

    >>> layer, x = DeltaNet(width=8, heads=2), np.ones((1, 5, 8))
    >>> variables, run = jax.jit(layer.init)(jax.random.key(0), x), jax.jit(layer.apply)
    >>> y, state = run(variables, x[:, :4])
    >>> y, state = run(variables, x[:, 4:], state=state)
    >>> whole, _ = run(variables, x)
    >>> np.allclose(y, whole[:, 4:], atol=1e-5)
    True

    Attributes:
      width: model width D.
      dtype: compute dtype of projections; states and recurrences are float32 whatever it is, and so is what is broadcast over
        batch and time (biases, skips, taps), for its gradient is a sum over them: see `lrnn_jax.parts.dense.Dense`.
      depth: blocks of the whole model, on which a layer's initial values may depend.
      index: which of these blocks the layer is in, counted from 0; initial values may depend on it too.

    Class attributes:
      SOURCE: paper and equations.
      METHODS: which of "sequential", "associative", "chunked", "convolution", "pallas" the layer has, each with what it can
        take beside x.
      PARAM_GROUPS: regex on the parameter's path within the layer -> multipliers {"lr": ..., "wd": ...}. Every parameter
        matches exactly one. With "recurrent": True, the config's ``optim.recurrent_lr`` stands in for the "lr".
      CAUSAL: y_t depends on x_1 to x_t alone, unless a field ``bidirectional`` is on: see `causal`. A layer that is not causal
        has no state to go on from and does not decode.
      START_STATE: `recur` is given the state at the start where a call has none; False: it is given None, for scans that are
        faster, or only possible, without one.
      DIAGONAL: `transition` returns eigenvalues, on the axes after B and T (or without these where they do not depend on the
        input); else matrices, on the last two axes.
      VARIANTS: name -> the fields that make this variant. "negative" and "positive" are eigenvalues in [-1, 1] and in [0, 1],
        where the layer has the choice.
      BLOCK: what the paper puts around the layer, as config fields below ``model.``.
      PARAMETER_FORMULA: the parameter count written out, where rounded ranks make it no polynomial of D.
      MAY_EXPAND: nothing keeps the eigenvalues of A_t within the unit circle; the layer stays finite by other means. Where this
        depends on fields, `may_expand` does.
    """

    width: int
    dtype: Any = jnp.float32
    depth: int = 1
    index: int = 0

    SOURCE: ClassVar[str]
    METHODS: ClassVar[Mapping[str, Serves]]
    PARAM_GROUPS: ClassVar[Mapping[str, Mapping[str, float]]]
    CAUSAL: ClassVar[bool] = True
    START_STATE: ClassVar[bool] = True
    DIAGONAL: ClassVar[bool] = True
    VARIANTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    BLOCK: ClassVar[Mapping[str, Any]] = {}
    PARAMETER_FORMULA: ClassVar[str] = ""
    MAY_EXPAND: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if not any(isinstance(value, jax.core.Tracer) for value in fields.values()):
            self._check_types(fields)
            self.check(fields)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        *,
        state: State | None = None,
        reset: Bool[Array, "B T"] | None = None,
        scan: str = "auto",
    ) -> tuple[Float[Array, "B T D"], State]:
        """Runs the layer over ``x`` from ``state`` (None: `init_state`). T = 1 with a state decodes one token.

        Args:
          x: inputs; with T = 0 there are no outputs and the state stays as it is.
          state: what an earlier call returned.
          reset: True where a new sequence starts inside the row; everything before it is forgotten there.
          scan: "auto" or one of ``METHODS``.

        Returns:
          ``(y, state)``: outputs in ``dtype``, the state in float32.

        Raises:
          ValueError: inputs or resets of another shape or dtype, a state that `init_state` does not make for this batch, a
            state for a layer that is not causal, or a scan that the layer does not have or that cannot take what is given; a
            layer whose own `recur`, `init_state` or counts break the contract.
        """
        self._check_inputs(x, reset)
        start = self._check_start(x.shape[0])
        self._check_state(x.shape[0], start, state)
        if scan != "auto":
            choose_method(scan, self.METHODS, accelerator=scan, cpu=scan, state=state is not None, reset=reset is not None)
        x = jnp.asarray(x, self.dtype)
        reset = None if reset is None else jnp.asarray(reset)
        if state is not None:
            state = jax.tree.map(lambda part: jnp.asarray(part, jnp.float32), state)
        elif self.START_STATE:
            state = self.init_state(x.shape[0])
        if x.shape[1]:
            y, state = self._check_answer(x, start, self.recur(x, state, reset, scan))
            return y.astype(self.dtype), state
        # one position, whose outputs are dropped, for the parameters that `init` makes on the way
        one = jnp.zeros((x.shape[0], 1, self.width), self.dtype)
        y, _ = self._check_answer(one, start, self.recur(one, state, None, scan))
        return y[:, :0].astype(self.dtype), self.init_state(x.shape[0]) if state is None else state

    def param(self, name: str, init_fn: Any, *init_args: Any, **init_kwargs: Any) -> Any:
        """Makes a parameter as Flax does, in float32 also where JAX draws float64 by itself (JAX_ENABLE_X64)."""

        def narrow(value: Any) -> Any:
            return value.astype(jnp.float32) if getattr(value, "dtype", None) == np.float64 else value

        def make(*args: Any, **kwargs: Any) -> Any:
            return jax.tree.map(narrow, init_fn(*args, **kwargs))

        return super().param(name, make, *init_args, **init_kwargs)

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        """The layer itself, called by `__call__` with checked arguments. It may be ``nn.compact``.

        Args:
          x: ``[B T D]`` in ``dtype``, T at least 1.
          state: float32; where none was given the state at the start, or None if START_STATE is False.
          reset: ``[B T]`` bool or None.
          scan: "auto", or one of ``METHODS`` that serves this state and reset; scans take it as their argument ``method``.

        Returns:
          ``(y, state)``: y ``[B T D]`` in any floating dtype; the state float32 and otherwise too as `init_state` makes it.
        """
        raise NotImplementedError

    @property
    def causal(self) -> bool:
        """Whether y_t depends on x_1 to x_t alone: `CAUSAL`, unless the layer has a field ``bidirectional`` that is on.

        A bidirectional layer runs its recurrence from both ends, with its parameters shared but for one readout per direction.
        Its state is ``()``, nothing crosses a reset in either direction, and the backbone hands it zeros for padding.
        """
        return self.CAUSAL and not getattr(self, "bidirectional", False)

    @property
    def may_expand(self) -> bool:
        """Whether this layer, with its fields, is one of those that `MAY_EXPAND` speaks of."""
        return self.MAY_EXPAND

    @property
    def indexed(self) -> bool:
        """Whether initial values depend on ``index``, so that blocks cannot be made as copies of one."""
        return False

    def init_state(self, batch: int) -> State:
        """Returns the state before the first position: a pytree of float32 arrays with leading axis ``batch``.

        It is ``()`` where the layer is bidirectional.
        """
        raise NotImplementedError

    def _check_state(self, batch: int, expected: State, state: State | None) -> None:
        """Refuses a state of another layer, of other fields or of another batch. None means the state at the start.

        Raises:
          ValueError: names the part and the shape that it must have.
        """
        if state is None:
            return
        if jax.tree.leaves(state) and not self.causal:
            raise ValueError(f"state: {self.describe()} is not causal, so there is no state to go on from")
        if not _alike(state, expected):
            right = describe_shapes(expected)
            raise ValueError(f"state: {describe_shapes(state)} is not {right}, as in init_state(batch={batch})")
        parts = jax.tree_util.tree_leaves_with_path(expected)
        for (path, part), given in zip(parts, jax.tree.leaves(state), strict=True):
            if jnp.shape(given) != part.shape:
                name = f"state{jax.tree_util.keystr(path)}"
                raise ValueError(f"{name}: shape {jnp.shape(given)} is not {part.shape}, as in init_state(batch={batch})")

    def describe(self) -> str:
        """Returns the layer's name as messages have it, with ``bidirectional=True`` where that is why it is not causal."""
        return type(self).__name__ + (" with bidirectional=True" if self.CAUSAL and not self.causal else "")

    def _check_inputs(self, x: Any, reset: Any) -> None:
        shape = jnp.shape(x)
        if len(shape) == 2:
            raise ValueError(f"x: shape {shape} has no batch axis; it must be [B T D], such as {(1, *shape)}")
        if len(shape) != 3 or shape[-1] != self.width:
            raise ValueError(f"x: shape {shape} is not [B T D] with D = width = {self.width}")
        if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
            raise ValueError(f"x: dtype {jnp.result_type(x)} is not floating")
        if reset is not None and (jnp.shape(reset) != shape[:2] or jnp.result_type(reset) != jnp.bool):
            raise ValueError(f"reset: {jnp.result_type(reset)} of shape {jnp.shape(reset)} is not bool of shape {shape[:2]}")

    def _check_start(self, batch: int) -> State:
        """Returns the shapes of `init_state`, if they keep the contract.

        Raises:
          UserError: says what they are.
        """
        start = jax.eval_shape(lambda: self.init_state(batch))
        if any(part.shape[:1] != (batch,) or part.dtype != jnp.float32 for part in jax.tree.leaves(start)):
            said = f"init_state(batch={batch}) is {describe_shapes(start)}, not float32 with batch as first axis"
            raise UserError(f"layer {self.describe()}: {said}")
        return start

    def _check_answer(self, x: jax.Array, start: State, answer: Any) -> tuple[jax.Array, State]:
        """Returns what `recur` has answered for ``x``, if it keeps the contract. Only shapes are looked at: a run pays nothing.

        Raises:
          UserError: says what the layer returns, and what it should.
        """
        name = f"layer {self.describe()}"
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise UserError(f"{name}: recur returns {describe_shapes(answer)}, not (y, state)")
        y, state = answer
        if getattr(y, "shape", None) != x.shape or not jnp.issubdtype(y.dtype, jnp.floating):
            raise UserError(f"{name}: recur returns y {describe_shapes(y)}, not floating of x's shape {list(x.shape)}")
        if not _alike(state, start) or any(
            (getattr(found, "shape", None), getattr(found, "dtype", None)) != (right.shape, right.dtype)
            for found, right in zip(jax.tree.leaves(state), jax.tree.leaves(start), strict=True)
        ):
            raise UserError(f"{name}: recur returns state {describe_shapes(state)}, init_state has {describe_shapes(start)}")
        if self.is_initializing():
            made = sum(leaf.size for leaf in jax.tree.leaves(self.variables.get("params", {})))
            sizes = {"parameter_count": made, "state_count": sum(math.prod(part.shape[1:]) for part in jax.tree.leaves(start))}
            for count, size in sizes.items():
                if (said := getattr(self, count)()) != size:
                    raise UserError(f"{name}: {count}() is {said!r}, and there are {size}")
        return y, state

    def transition(self, x: Float[Array, "B T D"]) -> jax.Array:
        """Returns the state-transition matrices A_t, or their eigenvalues where A_t is diagonal."""
        raise NotImplementedError

    def parameter_count(self) -> int:
        """Returns the number of parameters by closed formula."""
        raise NotImplementedError

    def state_count(self) -> int:
        """Returns the number of floats in one sequence's state by closed formula."""
        raise NotImplementedError

    @classmethod
    def _check_types(cls, fields: Mapping[str, Any]) -> None:
        """A config's fields have the types of their defaults; those that Python code gives are looked at here."""
        for field in dataclasses.fields(cls):
            value, right = fields[field.name], int if field.name == "width" else type(field.default)
            # bool is an int, and a float may come as anything that computes
            if right in (int, bool, str) and not (isinstance(value, right) and isinstance(value, bool) == (right is bool)):
                raise ValueError(f"{field.name}={value!r} must be {right.__name__}, not {type(value).__name__}")
        check_at_least(1, fields, "width")

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        """Refuses field values that do not fit together, before anything is compiled.

        Args:
          fields: ``width`` and the layer's own fields, as in the config.

        Raises:
          ValueError: names the argument and the rule; a config says the field instead.
        """


def _alike(one: Any, other: Any) -> bool:
    """Whether two trees have the same structure, whatever their leaves."""
    return str(jax.tree.structure(one)) == str(jax.tree.structure(other))


def describe_shapes(tree: Any) -> str:
    """Returns a tree of arrays or shapes in one line, such as ``{h: float32[2,8]}``."""

    def describe(leaf: Any) -> str:
        shape = ",".join(map(str, getattr(leaf, "shape", ())))
        return f"{leaf.dtype}[{shape}]" if hasattr(leaf, "dtype") else type(leaf).__name__

    return " ".join(str(jax.tree.map(describe, tree)).replace("'", "").split())


def check_divides(part: str, parts: int, whole: int) -> None:
    """Refuses ``parts`` that do not divide the model width.

    Raises:
      UserError: ``parts`` is below 1 or does not divide ``whole``.
    """
    if parts < 1 or whole % parts:
        raise UserError(f"{part}={parts} must be at least 1 and divide width={whole}")


def check_heads_with_norm(heads: int, size: int) -> None:
    """Refuses heads of one feature in a layer that normalises each of them: nothing would be left of it.

    Raises:
      UserError: a head has fewer than two of the ``size`` features.
    """
    if size // heads < 2:
        raise UserError(f"heads={heads} must leave each head two of {size} features or more, for its norm")


def check_at_least(least: int, fields: Mapping[str, Any], *names: str) -> None:
    """Refuses integer fields below ``least``.

    Raises:
      UserError: names the first of them.
    """
    for name in names:
        if fields[name] < least:
            raise UserError(f"{name}={fields[name]} must be at least {least}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuses a ``value`` that is none of ``choices``.

    Raises:
      UserError: lists them and names the nearest.
    """
    if value not in choices:
        raise UserError(f"{name}={value!r} is not one of {', '.join(choices)}" + suggest(value, choices))
