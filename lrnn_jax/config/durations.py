"""Durations in exactly one unit, and what they are in optimiser steps."""

import math
import re
from fractions import Fraction

from ml_collections import ConfigDict

from lrnn_jax.errors import UserError, suggest
from lrnn_jax.registry import build_task

MAX_STEPS = 2**31 - 1  # the step counter is an int32
UNITS = ("steps", "examples", "tokens", "epochs", "%")
_PATTERN = re.compile(r"\s*([0-9][0-9_]{0,99}(?:\.[0-9]{1,99})?(?:[eE][0-9]{1,3})?)\s*([A-Za-z]+|%)\s*")


def count_steps(
    field: str,
    duration: str,
    *,
    batch_size: int,
    tokens_per_example: int,
    examples_per_epoch: int | None = None,
    total_steps: int | None = None,
) -> int:
    """Returns ``duration`` in optimiser steps, rounded up.

    Args:
      field: the config field, for messages.
      duration: number and unit, such as "3000 steps", "1e6 tokens", "2 epochs" or "10%".
      batch_size: examples per step.
      tokens_per_example: positions of one example, padding included.
      examples_per_epoch: size of the training set; None where data is made on the fly.
      total_steps: what a percentage refers to; None where a percentage makes no sense.

    Raises:
      UserError: not a number and a unit, or a unit that has no meaning here.
    """
    match = _PATTERN.fullmatch(str(duration))
    if not match:
        raise UserError(f"{field}={duration!r} must be a number and one unit of {', '.join(UNITS)}, such as '3000 steps'")
    number, unit = Fraction(match[1].replace("_", "")), match[2]
    if unit not in UNITS:
        raise UserError(f"{field}={duration!r}: unknown unit {unit!r}{suggest(unit, UNITS)} (one of {', '.join(UNITS)})")
    if unit == "epochs" and examples_per_epoch is None:
        raise UserError(f"{field}={duration!r}: this task makes its data on the fly and has no epochs; give steps")
    if unit == "%" and total_steps is None:
        raise UserError(f"{field}={duration!r}: nothing to take a percentage of; give steps, examples, tokens or epochs")
    per_unit = {
        "steps": Fraction(1),
        "examples": Fraction(1, batch_size),
        "tokens": Fraction(1, batch_size * tokens_per_example),
        "epochs": Fraction(examples_per_epoch or 0, batch_size),
        "%": Fraction(total_steps or 0, 100),
    }
    steps = math.ceil(number * per_unit[unit])
    if steps > MAX_STEPS:
        raise UserError(f"{field}={duration!r} is more than {MAX_STEPS} steps")
    return steps


def train_steps(config: ConfigDict) -> int:
    """Returns the training's length in optimiser steps."""
    return _count_steps(config, "train.duration")


def interval_steps(config: ConfigDict, field: str, *, least: int = 1) -> int:
    """Returns the duration at the dotted path ``field`` in optimiser steps, at least ``least``."""
    return max(least, _count_steps(config, field, total_steps=train_steps(config)))


def _count_steps(config: ConfigDict, field: str, *, total_steps: int | None = None) -> int:
    section, name = field.split(".")
    duration, length = config[section][name], tuple(config.train.length)
    return count_steps(
        field,
        duration,
        batch_size=config.train.batch_size,
        tokens_per_example=length[1],
        # files are read only where a duration is counted in epochs
        examples_per_epoch=build_task(config.task).epoch_examples(length) if "epoch" in str(duration) else None,
        total_steps=total_steps,
    )
