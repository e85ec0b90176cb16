"""The names of what surrounds a layer. Whoever checks a config reads them without importing jax."""

import importlib
from collections.abc import Iterable
from typing import Any

from lrnn_jax.errors import suggest

# A new head or mixer is one class and one line here.
HEADS = {
    "token": "lrnn_jax.models.heads:TokenHead",
    "last": "lrnn_jax.models.heads:LastHead",
    "mean": "lrnn_jax.models.heads:MeanHead",
    "pair": "lrnn_jax.models.heads:PairHead",
    "autoencoder": "lrnn_jax.models.heads:AutoencoderHead",
    "regression": "lrnn_jax.models.heads:RegressionHead",
}
MIXERS = {
    "none": "lrnn_jax.models.mixers:Mixer",
    "glu": "lrnn_jax.models.mixers:GLU",
    "half_glu1": "lrnn_jax.models.mixers:HalfGLU1",
    "half_glu2": "lrnn_jax.models.mixers:HalfGLU2",
    "mlp": "lrnn_jax.models.mixers:MLP",
    "swiglu": "lrnn_jax.models.mixers:SwiGLU",
    "geglu": "lrnn_jax.models.mixers:GeGLU",
}
NORMS = ("layernorm", "rmsnorm", "batchnorm", "none")
NORM_POSITIONS = ("pre", "post")
POSITIONS = ("none", "learned", "sinusoidal")
INITIAL_VALUES = ("default", "released")


def load_head(name: str) -> Any:
    """Returns the head called ``name``.

    Raises:
      ValueError: no such head; names the nearest.
    """
    return _load("head", name, HEADS)


def load_mixer(name: str) -> Any:
    """Returns the channel mixer called ``name``.

    Raises:
      ValueError: no such mixer; names the nearest.
    """
    return _load("mixer", name, MIXERS)


def check_name(argument: str, name: str, names: Iterable[str]) -> None:
    """Refuses a ``name`` that is none of ``names``.

    Raises:
      ValueError: lists them and names the nearest.
    """
    names = list(names)
    if name not in names:
        raise ValueError(f"{argument}={name!r} is not one of {', '.join(names)}{suggest(name, names)}")


def _load(argument: str, name: str, table: dict[str, str]) -> type:
    check_name(argument, name, table)
    module, attribute = table[name].split(":")
    return getattr(importlib.import_module(module), attribute)
