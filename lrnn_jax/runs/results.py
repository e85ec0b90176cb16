"""What a run's ``result.json`` holds."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict, cast


class Tested(TypedDict):
    """The test of one set of parameters.

    Attributes:
      metrics: means by name, per evaluation set (``accuracy/40-64``) and over the headline lengths (``accuracy``).
      curves: means by position of each evaluation set; None where nothing was weighed.
    """

    metrics: dict[str, float]
    curves: dict[str, list[float | None]]


class BestTested(Tested):
    """The test of the best parameters; ``step`` is how many optimiser steps made them."""

    step: int


class Result(TypedDict):
    """A run that has ended.

    Attributes:
      status: "finished" or "failed".
      steps: optimiser steps that made its parameters.
      reason: why it ended before its time; None where it did not.
      task: name.
      layer: name.
      seed: of initial values, data and dropout.
      parameter_count: elements.
      params_sha256: digest of every parameter's path, dtype, shape and bits.
      wall_time_s: seconds of work over all resumptions, of the whole program where several runs shared one.
      trained_together: runs in that program.
      config_hash, code, settings, git_commit, versions, x64, device, finished_at: where it comes from
        (`lrnn_jax.runs.origin`); results that are older than ``code`` and ``settings`` lack them.
      lines_sha256: `hash_lines` of ``metrics.jsonl``.
      numbers_sha256: `hash_numbers` of this.
      metrics, curves: the test of the last parameters, where it finished.
      best: the test of the best parameters; None where ``eval.best_metric`` names none.
    """

    status: str
    steps: int
    reason: str | None
    task: str
    layer: str
    seed: int
    parameter_count: int
    params_sha256: str
    wall_time_s: float
    trained_together: int
    config_hash: str
    code: NotRequired[str]
    settings: NotRequired[dict[str, Any]]
    git_commit: str | None
    versions: dict[str, str]
    x64: bool
    device: str
    finished_at: str
    lines_sha256: NotRequired[str]
    numbers_sha256: NotRequired[str]
    metrics: NotRequired[dict[str, float]]
    curves: NotRequired[dict[str, list[float | None]]]
    best: NotRequired[BestTested | None]


def hash_numbers(result: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of what a run computed: of everything in its result but its origin and its clock."""
    names = (
        "status",
        "steps",
        "reason",
        "seed",
        "parameter_count",
        "params_sha256",
        "lines_sha256",
        "metrics",
        "curves",
        "best",
    )
    return _hash({name: result.get(name) for name in names})


def hash_lines(lines: Sequence[Mapping[str, Any]]) -> str:
    """Returns the SHA-256 of lines of metrics, but for their clock."""
    return _hash([{name: value for name, value in line.items() if name not in ("elapsed_s", "steps_per_s")} for line in lines])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def check_result(fields: dict[str, Any], name: str) -> Result:
    """Returns a JSON object as a result.

    Raises:
      ValueError: it is none; says what it lacks, and names the file by ``name``.
    """
    if fields.get("numbers_sha256", "") not in ("", hash_numbers(fields)):
        raise ValueError(f"{name}: its numbers are not those that were written")
    if fields.get("status") not in ("finished", "failed"):
        raise ValueError(f"{name}: neither finished nor failed")
    best = fields.get("best") or {"metrics": {}}
    needed = [
        fields.get("metrics", None if fields["status"] == "finished" else {}),
        isinstance(best, dict) and best.get("metrics"),
    ]
    if not all(isinstance(metrics, dict) for metrics in needed):
        raise ValueError(f"{name}: has no metrics")
    return cast(Result, fields)  # what is not looked at here was written by this package
