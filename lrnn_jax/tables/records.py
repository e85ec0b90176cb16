"""Records: one small file per run, named as the run, which every table that needs the run reads."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lrnn_jax.config.identity import config_hash, name_fields, named_fields
from lrnn_jax.errors import UserError
from lrnn_jax.runs.files import check_seal, read_object, replace_text, seal
from lrnn_jax.runs.folder import RunFolder
from lrnn_jax.runs.results import Result, hash_lines
from lrnn_jax.runs.store import default_workdir
from lrnn_jax.tables.declaring import Run

Curve = Sequence[tuple[float, float | None]]
POSITIONS = 60  # points of a kept curve by position


@dataclasses.dataclass(frozen=True)
class Tested:
    """What the test says of one set of parameters.

    Attributes:
      metrics: by name; "metric/40-64" is of one length bucket.
      positions: curves of the longest bucket by name: (position, value), at some of the positions.
      step: optimiser steps that made the parameters.
    """

    metrics: Mapping[str, float]
    positions: Mapping[str, Curve]
    step: int


@dataclasses.dataclass(frozen=True)
class Record:
    """What is kept of one run: what made it, what it said, and where it comes from.

    Attributes:
      name: of the run, and of the record's file.
      config: what the name is the hash of: the config's fields that are not neutral, by dotted path.
      recipe: ``{"config": FILE:ARG, "fields": {...}}`` that gave this config when the run was trained.
      status: "finished"; "failed" with ``reason``; "stale" where the recipe gives another config today.
      reason: why it failed.
      last: the test of the last parameters; None unless finished.
      best: the test of the best parameters in validation; None where none were kept.
      validation: metric -> (step, value) of each validation.
      wall_time_s: of its program.
      trained_together: runs that shared the program and its wall time.
      git_commit: of the code; with "+" where it had been changed.
      device: where it ran.
      versions: of packages.
    """

    name: str
    config: Mapping[str, Any]
    recipe: Mapping[str, Any]
    status: str
    reason: str | None
    last: Tested | None
    best: Tested | None
    validation: Mapping[str, Curve]
    wall_time_s: float
    trained_together: int
    git_commit: str | None
    device: str
    versions: Mapping[str, str]


def read_records(runs: Sequence[Run], folder: Path) -> list[Record | None]:
    """Returns each run's record: None where it is missing, with ``status`` "stale" where only an older config's is there.

    Raises:
      UserError: a file that is no record.
    """
    records = [load_record(file) if (file := record_file(run, folder)).exists() else None for run in runs]
    if None not in records:
        return records
    older = {_key(recipe): name for name, recipe in _recipes(folder.glob("*.json"))}
    for i, run in enumerate(runs):
        if records[i] is None and _key(_recipe(run)) in older:
            found = load_record(folder / older[_key(_recipe(run))])
            records[i] = dataclasses.replace(found, status="stale", last=None, best=None, validation={})
    return records


def load_record(file: Path) -> Record:
    """Returns the record in a file.

    Raises:
      UserError: it is none, or another run's; says what to do.
    """
    try:
        said = read_object(file)
        if name_fields(said["config"]) != file.stem:
            raise ValueError(f"its config is that of {name_fields(said['config'])}")
        if said["status"] not in ("finished", "failed"):
            raise ValueError(f"its status is {said['status']!r}")
        finished = said["status"] == "finished"
        record = Record(
            name=file.stem,
            config=said["config"],
            recipe={"config": said["recipe"]["config"], "fields": said["recipe"]["fields"]},
            status=said["status"],
            reason=said.get("reason"),
            last=_tested(said, said["steps"]) if finished else None,
            best=_tested(said["best"], said["best"]["step"]) if finished and said["best"] else None,
            validation={metric: _points(curve) for metric, curve in said["validation"].items()},
            wall_time_s=float(said.get("wall_time_s", 0.0)),
            trained_together=int(said.get("trained_together", 1)),
            git_commit=said.get("git_commit") and _text(said, "git_commit"),
            device=_text(said, "device"),
            versions={name: _text(said["versions"], name) for name in ("python", "jax")},
        )
        check_seal(said)
        return record
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{file} is not a record: {reason}; remove it, and the same command makes it anew") from error


def write_record(run: Run, result: Result, store: Path, folder: Path) -> None:
    """Writes a run's record from its result and its validations.

    Raises:
      UserError: its lines of metrics are not those that it wrote.
    """
    run_folder = RunFolder(default_workdir(run.config, store))
    lines = run_folder.parse_metrics()
    if result.get("lines_sha256", "") not in ("", hash_lines(lines)):
        raise UserError(f"{run_folder.metrics_file} is damaged; remove {run_folder.path}, and the same command trains it again")
    lines = [line for line in lines if line["split"] == "validation"]
    # the headline alone: a metric without a bucket in its name
    names = {name for line in lines for name, value in line.items() if "/" not in name and isinstance(value, float)}
    validation = {name: [[line["step"], line[name]] for line in lines if name in line] for name in sorted(names)}
    best = result.get("best") and thin_curves(result["best"])
    said = {**thin_curves(result), **({"best": best} if "best" in result else {}), "validation": validation}
    save_record(run, said, folder)


def save_record(run: Run, said: Mapping[str, Any], folder: Path) -> None:
    """Writes what is said of a run beside what made it: one line per entry, so that records are short and can be compared."""
    entries = {name: value for name, value in said.items() if not name.endswith("_sha256") or name == "params_sha256"}
    entries = seal(json.loads(json.dumps({**entries, "config": named_fields(run.config), "recipe": _recipe(run)})))
    lines = [f"{json.dumps(name)}: {json.dumps(value, sort_keys=True)}" for name, value in sorted(entries.items())]
    replace_text(record_file(run, folder), "{\n" + ",\n".join(lines) + "\n}\n")


def record_file(run: Run, folder: Path) -> Path:
    """Returns where a run's record is."""
    return folder / f"{config_hash(run.config)}.json"


def thin_curves(part: Any) -> dict[str, Any]:
    """Keeps of each curve by position that of the longest sequences, at some positions: records are small."""
    kept = {name: value for name, value in part.items() if name != "curves"}
    longest: dict[str, list[float | None]] = {}
    for path, curve in part.get("curves", {}).items():
        name = path.partition("/")[0]
        longest[name] = max(longest.get(name, []), curve, key=len)
    positions = {}
    for name, values in longest.items():
        there = [t for t, value in enumerate(values) if value is not None]
        shown = sorted({there[round(i * (len(there) - 1) / (POSITIONS - 1))] for i in range(POSITIONS)}) if there else []
        positions[name] = [[t + 1, round(value, 6)] for t in shown if (value := values[t]) is not None]
    return {**kept, "positions": positions} if positions else kept


def _tested(part: Mapping[str, Any], step: int) -> Tested:
    positions = {name: _points(curve) for name, curve in part.get("positions", {}).items()}
    return Tested({name: float(value) for name, value in part["metrics"].items()}, positions, step)


def _points(curve: Sequence[Sequence[Any]]) -> Curve:
    return [(_number(point[0]), None if point[1] is None else _number(point[1])) for point in curve]


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)):
        raise ValueError(f"{value!r} is not a number")
    return value


def _text(said: Mapping[str, Any], name: str) -> str:
    if not isinstance(said[name], str):
        raise ValueError(f"its {name} is {said[name]!r}")
    return said[name]


def _recipe(run: Run) -> dict[str, Any]:
    return {"config": run.spec, "fields": dict(run.fields)}


def _key(recipe: Mapping[str, Any]) -> str:
    return json.dumps(recipe, sort_keys=True)


def _recipes(files: Iterable[Path]) -> list[tuple[str, Any]]:
    """The recipe of every record that can be read; what is damaged is no older record of anything."""
    found = []
    for file in sorted(files):
        try:
            found.append((file.name, read_object(file)["recipe"]))
        except (OSError, ValueError, KeyError):
            continue
    return found
