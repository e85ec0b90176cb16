"""The contract that every recurrent layer keeps. A new layer is one file beside this one and one line in `registry`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lrnn_jax.errors import UserError, suggest
from lrnn_jax.scans.method import Serves

State = Any

# Two groups that most layers have: matrices decay, gains and offsets do not.
MATRICES = {"lr": 1.0, "wd": 1.0}
NO_DECAY = {"lr": 1.0, "wd": 0.0}


class RecurrentLayer(nn.Module):
    """Maps ``[B T D]`` to ``[B T D]`` and carries a state whose size does not depend on T.

    A layer's own fields are its config. Float fields are values, never structure: they are traced, so that runs which differ
    in them can share a program, and no Python ``if`` may ask for one outside of `check`. All other fields are static.

    Attributes:
      width: model width D.
      dtype: compute dtype of projections; states and recurrences are float32 whatever it is, and so is what is broadcast over
        batch and time (biases, skips, taps), for its gradient is a sum over them: see `lrnn_jax.parts.dense.Dense`.
      depth: blocks of the whole model, on which a layer's initial values may depend.

    Class attributes:
      SOURCE: paper and equations.
      METHODS: which of "sequential", "associative", "chunked", "pallas" the layer has, and what each of them serves.
      PARAM_GROUPS: regex on the parameter's path within the layer -> multipliers {"lr": ..., "wd": ...}. Every parameter
        matches exactly one.
      DIAGONAL: `transition` returns eigenvalues, on the axes after B and T (or without these where they do not depend on the
        input); else matrices, on the last two axes.
      NEGATIVE_RANGE: fields that give eigenvalues in [-1, 1], where the layer has a choice.
      PARAMETER_FORMULA: the parameter count written out, where rounded ranks make it no polynomial of D.
      MAY_EXPAND: nothing keeps the eigenvalues of A_t within the unit circle; the layer stays finite by other means.
    """

    width: int
    dtype: Any = jnp.float32
    depth: int = 1

    SOURCE: ClassVar[str]
    METHODS: ClassVar[Mapping[str, Serves]]
    PARAM_GROUPS: ClassVar[Mapping[str, Mapping[str, float]]]
    DIAGONAL: ClassVar[bool] = True
    NEGATIVE_RANGE: ClassVar[Mapping[str, Any]] = {"negative_eigenvalues": True}
    PARAMETER_FORMULA: ClassVar[str] = ""
    MAY_EXPAND: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if not any(isinstance(value, jax.core.Tracer) for value in fields.values()):
            self.check(fields)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        *,
        state: State | None = None,
        reset: Bool[Array, "B T"] | None = None,
        method: str = "auto",
    ) -> tuple[Float[Array, "B T D"], State]:
        """Runs the layer over ``x`` from ``state`` (None: `init_state`). T = 1 with a state decodes one token.

        Args:
          x: inputs.
          state: what an earlier call returned.
          reset: True where a new sequence starts inside the row; everything before it is forgotten there.
          method: "auto" or one of ``METHODS``.

        Returns:
          ``(y, state)``: outputs in ``dtype``, the state in float32.

        Raises:
          ValueError: a state that `init_state` does not make for this batch, or an unknown method.
        """
        raise NotImplementedError

    def init_state(self, batch: int) -> State:
        """Returns the state before the first position: a pytree of float32 arrays with leading axis ``batch``."""
        raise NotImplementedError

    def check_state(self, x: Float[Array, "B T D"], state: State | None) -> None:
        """Refuses a state of another layer, of other fields or of another batch. None means the state at the start.

        Raises:
          ValueError: names the part and the shape that it must have.
        """
        if state is None:
            return
        expected = jax.eval_shape(lambda: self.init_state(x.shape[0]))
        found, right = str(jax.tree.structure(state)), str(jax.tree.structure(expected))
        if found != right:
            raise ValueError(f"state: {found} is not {right}, as in init_state(batch={x.shape[0]})")
        parts = jax.tree_util.tree_leaves_with_path(expected)
        for (path, part), given in zip(parts, jax.tree.leaves(state), strict=True):
            if jnp.shape(given) != part.shape:
                name = f"state{jax.tree_util.keystr(path)}"
                raise ValueError(f"{name}: shape {jnp.shape(given)} is not {part.shape}, as in init_state(batch={x.shape[0]})")

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
    def check(cls, fields: Mapping[str, Any]) -> None:
        """Refuses field values that do not fit together, before anything is compiled.

        Args:
          fields: ``width`` and the layer's own fields, as in the config.

        Raises:
          UserError: names the field and the rule.
        """


def check_divides(part: str, parts: int, whole: int) -> None:
    """Refuses ``parts`` that do not divide the model width.

    Raises:
      UserError: ``parts`` is below 1 or does not divide ``whole``.
    """
    if parts < 1 or whole % parts:
        raise UserError(f"model.layer.{part}={parts} must be at least 1 and divide model.width={whole}")


def check_heads_with_norm(heads: int, size: int) -> None:
    """Refuses heads of one feature in a layer that normalises each of them: nothing would be left of it.

    Raises:
      UserError: a head has fewer than two of the ``size`` features.
    """
    if size // heads < 2:
        raise UserError(f"model.layer.heads={heads} must leave each head two of {size} features or more, for its norm")


def check_at_least(least: int, fields: Mapping[str, Any], *names: str) -> None:
    """Refuses integer fields below ``least``.

    Raises:
      UserError: names the first of them.
    """
    for name in names:
        if fields[name] < least:
            raise UserError(f"model.layer.{name}={fields[name]} must be at least {least}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuses a ``value`` that is none of ``choices``.

    Raises:
      UserError: lists them and names the nearest.
    """
    if value not in choices:
        raise UserError(f"model.layer.{name}={value!r} is not one of {', '.join(choices)}" + suggest(value, choices))
