"""What a class lacks of the contract of `RecurrentLayer`, found without running it: what a layer from outside is told first."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from lrnn_jax.parts.layer import RecurrentLayer
from lrnn_jax.scans.method import Serves

REQUIRED = ("recur", "init_state", "transition", "parameter_count", "state_count")


def missing_parts(cls: Any) -> list[str]:
    """Returns what ``cls`` lacks of the contract of `RecurrentLayer`, in words; an empty list if it is a layer."""
    if not (isinstance(cls, type) and issubclass(cls, RecurrentLayer)):
        return ["the base class lrnn_jax.parts.layer.RecurrentLayer"]
    missing = [said for name in REQUIRED if (said := _find_fault(cls, name))]
    made = inspect.signature(cls.__init__)
    if not _takes(made, None, **dict.fromkeys(field.name for field in dataclasses.fields(cls) if field.init)):
        missing.append(f"fields in place of its own __init__({', '.join(made.parameters)})")
    missing += [f"class attribute {name}" for name in ("SOURCE", "METHODS", "PARAM_GROUPS") if not getattr(cls, name, None)]
    if isinstance(getattr(cls, "METHODS", None), Mapping):
        missing += [f"Serves(...) for METHODS[{name!r}]" for name, it in cls.METHODS.items() if not isinstance(it, Serves)]
    elif hasattr(cls, "METHODS"):
        missing.append("a mapping from name to Serves as METHODS")
    fields = {field.name for field in dataclasses.fields(cls)}
    for variant, values in cls.VARIANTS.items():
        missing += [f"field {name!r} of variant {variant!r}" for name in values if name not in fields]
    return missing


def _find_fault(cls: type[RecurrentLayer], name: str) -> str:
    """Returns what is wrong with a method of the contract, or nothing."""
    own, base = getattr(cls, name), getattr(RecurrentLayer, name)
    if own is base or not callable(own):
        return f"method {name}"
    right, found = inspect.signature(base).parameters, inspect.signature(own)
    bound = isinstance(inspect.getattr_static(cls, name), (staticmethod, classmethod))  # without self
    if _takes(found, *list(right)[bound:]):
        return ""
    return f"arguments ({', '.join(right)}) of method {name}, which has ({', '.join(found.parameters)})"


def _takes(signature: inspect.Signature, *args: Any, **kwargs: Any) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True
