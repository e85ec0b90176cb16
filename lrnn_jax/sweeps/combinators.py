"""Combinators for ``def sweep()`` in a config file: a sweep is a list of points, a point maps config fields to values.

::

    def sweep():
        return grid({"optim.lr": [1e-3, 1e-2]}, seeds(3))      # 6 runs

A field is a dotted path such as "optim.lr"; the special field "arg" is added to the part after the colon of
``--config=FILE:ARG``, so that one sweep can run over layers.
"""

import builtins
import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lrnn_jax.errors import UserError

Point = dict[str, Any]
Sweep = list[Point]
Values = Mapping[str, Sequence[Any]]
Draw = Callable[[random.Random], Any]


def grid(*parts: Values | Sweep) -> Sweep:
    """Returns every combination: of all values of a mapping's fields, and of all points of the parts.

    Args:
      *parts: mappings from field to values, or sweeps. The last part varies fastest.

    Raises:
      UserError: two parts set the same field, or a field has no list of values.
    """
    return [_merge(points) for points in itertools.product(*(_points(part) for part in parts))]


def zip(*parts: Values | Sweep) -> Sweep:
    """Returns the first points of all parts together, then the second points, and so on.

    Args:
      *parts: mappings from field to values, each field one list to walk along, or sweeps; all equally long.

    Raises:
      UserError: parts of different lengths, two parts set the same field, or a field has no list of values.
    """
    columns: list[Sweep] = []
    for part in parts:
        if isinstance(part, Mapping):
            columns += [[{name: value} for value in _values(name, values)] for name, values in part.items()]
        else:
            columns.append(list(part))
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise UserError(f"zip of sweeps of different lengths {lengths}")
    return [_merge(points) for points in builtins.zip(*columns, strict=True)]


def chain(*sweeps: Sweep) -> Sweep:
    """Returns the points of one sweep after those of the other."""
    return [point for sweep in sweeps for point in sweep]


def seeds(count: int, *, first: int = 0) -> Sweep:
    """Returns ``count`` points with ``seed`` = first, first + 1, ..."""
    return [{"seed": first + i} for i in range(count)]


def one_length(length: int) -> Point:
    """Returns the fields of training and evaluation on sequences of one ``length``."""
    return {
        "train.length": [length, length],
        "eval.lengths": [[length, length]],
        "eval.headline": [length, length],
    }


def cut_length(longest: int) -> Point:
    """Returns the fields of training and evaluation on sequences of at most ``longest`` tokens; longer ones are cut."""
    lengths = [2, longest]
    return {"train.length": lengths, "eval.lengths": [lengths], "eval.headline": lengths}


def difficulties(**changes: Sequence[Any]) -> Sweep:
    """Returns the baseline, a point without fields, and one point for each value of each change, one at a time.

    ::

        difficulties(vocabulary=[32, 64], length=[256])    # 4 points

    Args:
      **changes: a field of the task to its values; ``length`` means `one_length`.
    """
    points: Sweep = [{}]
    for name, values in changes.items():
        points += [one_length(value) if name == "length" else {f"task.{name}": value} for value in _values(name, values)]
    return points


def sample(count: int, fields: Mapping[str, Draw], *, seed: int = 0) -> Sweep:
    """Returns ``count`` points with every field drawn on its own; the same ``seed`` gives the same points.

    Args:
      count: points.
      fields: field to a distribution: `uniform`, `log_uniform` or `choice`.
      seed: of the drawing, not of the runs.
    """
    generator = random.Random(seed)
    return [{name: plain(draw(generator)) for name, draw in fields.items()} for _ in range(count)]


def uniform(low: float, high: float) -> Draw:
    """Returns the uniform distribution on [low, high]."""
    return lambda generator: generator.uniform(low, high)


def log_uniform(low: float, high: float) -> Draw:
    """Returns the distribution on [low, high], 0 < low, whose logarithm is uniform."""
    return lambda generator: math.exp(generator.uniform(math.log(low), math.log(high)))


def choice(values: Sequence[Any]) -> Draw:
    """Returns the uniform distribution over ``values``."""
    values = _values("choice", values)
    return lambda generator: generator.choice(values)


def plain(value: Any) -> Any:
    """Returns NumPy's and JAX's scalars and arrays, also those in a list, as Python's own numbers and lists."""
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    return value.tolist() if hasattr(value, "tolist") else value


def _points(part: Values | Sweep) -> Sweep:
    if not isinstance(part, Mapping):
        return list(part)
    lists = [_values(name, values) for name, values in part.items()]
    return [dict(builtins.zip(part, values, strict=True)) for values in itertools.product(*lists)]


def _values(name: str, values: Any) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UserError(f"a sweep needs a list of values for {name!r}: [{values!r}] instead of {values!r}")
    return list(values)


def _merge(points: Sequence[Point]) -> Point:
    merged: Point = {}
    for point in points:
        for name, value in point.items():
            if name in merged:
                raise UserError(f"a sweep sets {name!r} twice")
            merged[name] = plain(value)
    return merged
