"""What a scan asks of its arrays, read from its own annotations: what does not fit is refused before it is indexed."""

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax.numpy as jnp

P = ParamSpec("P")
R = TypeVar("R")
Sizes = dict[str, tuple[Any, str]]


def check_arrays(scan: Callable[P, R]) -> Callable[P, R]:
    """Makes a scan refuse arrays that its annotations do not describe, and take NumPy arrays like JAX's.

    ``Float[Array, "B T H K"]`` is one axis per letter, and a letter has the same size wherever it occurs in the call; ``*N`` is
    one axis or more. Nothing is broadcast. Tuples, TypedDicts, alternatives and None are followed. All of it is decided by
    shapes and dtypes, so it costs a compiled program nothing.

    Args:
      scan: function whose array arguments are annotated with jaxtyping.

    Returns:
      The scan, which now raises ValueError for: no array where one belongs; a dtype that is not floating (bool for Bool); other
      axes; a letter with two sizes. The message names the argument.

    Example: with ``a: Float[Array, "B T N"]`` and ``b: Float[Array, "B T N"]``, shapes (2, 50, 8) and (2, 40, 8) are refused as
    ``b: shape (2, 40, 8) is not [B T N]: T is 40 here and 50 in a``.
    """
    signature = inspect.signature(scan)
    annotations = {name: parameter.annotation for name, parameter in signature.parameters.items()}

    @functools.wraps(scan)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs)
        sizes: Sizes = {}
        for name, value in given.arguments.items():
            given.arguments[name] = _check(name, value, annotations[name], sizes)
        return scan(*given.args, **given.kwargs)

    return checked


def _check(name: str, value: Any, annotation: Any, sizes: Sizes) -> Any:
    """Returns the value with its arrays as JAX arrays; enters the size of every letter into ``sizes``."""
    is_union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    options = typing.get_args(annotation) if is_union else (annotation,)
    if value is None and types.NoneType in options:
        return None
    kind = options[0]
    if hasattr(kind, "dim_str"):
        return _check_array(name, value, [option for option in options if option is not types.NoneType], sizes)
    if typing.is_typeddict(kind):
        fields = typing.get_type_hints(kind)
        if not isinstance(value, dict) or set(value) != set(fields):
            raise ValueError(f"{name}: not a dictionary of {', '.join(fields)}")
        return {field: _check(f"{name}[{field!r}]", value[field], fields[field], sizes) for field in fields}
    if typing.get_origin(kind) is tuple and (parts := typing.get_args(kind)):
        if not isinstance(value, tuple) or len(value) != len(parts):
            raise ValueError(f"{name}: not a tuple of {len(parts)} arrays")
        return tuple(_check(f"{name}[{i}]", x, part, sizes) for i, (x, part) in enumerate(zip(value, parts, strict=True)))
    return value


def _check_array(name: str, value: Any, options: list[Any], sizes: Sizes) -> Any:
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise ValueError(f"{name}: {type(value).__name__} is not an array")
    if value.dtype.name not in options[0].dtypes:
        if value.dtype.kind == "c":
            raise ValueError(
                f"{name}: {value.dtype} is complex; scan_diagonal_complex takes real and imaginary parts as a pair"
            )
        raise ValueError(f"{name}: dtype {value.dtype} is not {'bool' if 'bool' in options[0].dtypes else 'floating'}")
    shape = tuple(value.shape)
    axes = next((bound for option in options if (bound := _bind(option.dim_str.split(), shape)) is not None), None)
    if axes is None:
        right = " or ".join(f"[{option.dim_str.strip()}]" for option in options)
        raise ValueError(f"{name}: shape {shape} has {len(shape)} axes and is not {right}")
    known = {letter: sizes.setdefault(letter, (size, name)) for letter, size in axes}
    wrong = [
        f"{letter} is {size} here and {known[letter][0]} in {known[letter][1]}"
        for letter, size in axes
        if size != known[letter][0]
    ]
    if wrong:
        letters = " ".join(letter for letter, _ in axes)
        raise ValueError(f"{name}: shape {shape} is not [{letters}]: {', '.join(wrong)}")
    return jnp.asarray(value)


def _bind(letters: list[str], shape: tuple[int, ...]) -> list[tuple[str, Any]] | None:
    """Returns a size for every letter, a tuple of one or more for ``*N``, or None if there are more or fewer axes."""
    starred = [i for i, letter in enumerate(letters) if letter.startswith("*")]
    if not starred:
        return list(zip(letters, shape, strict=True)) if len(letters) == len(shape) else None
    before, after = starred[0], len(letters) - starred[0] - 1
    if len(shape) <= before + after:
        return None
    end = len(shape) - after
    return list(zip(letters, (*shape[:before], shape[before:end], *shape[end:]), strict=True))
