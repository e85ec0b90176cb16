"""A paper's table or figure: what it declares, the runs behind it, and what their records say."""

import dataclasses
import importlib.util
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lrnn_jax.config.fields import less_is_better, set_field
from lrnn_jax.config.files import data_folder, load_own_config
from lrnn_jax.config.identity import config_hash
from lrnn_jax.errors import UserError, suggest

Record = dict[str, Any]
Point = Mapping[str, Any]

# A note of tables of sequence accuracy.
MEAN_OVER_LENGTHS = (
    "ours: the mean over the lengths tested, the shortest of which is that of the training; the plot shows every length."
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One published number and the runs that stand beside it.

    Attributes:
      name: what the paper calls the row.
      config: ``FILE:ARG`` of our runs; the scale and the seed are added.
      published: the paper's number; None where it gives none.
      column: what the paper calls the column, or the panel of a figure; empty where there is only one.
      fields: config fields that differ from the file's, by dotted path.
    """

    name: str
    config: str
    published: float | None
    column: str = ""
    fields: Point = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which parameters are tested, and how a row's point of the grid is chosen.

    Attributes:
      checkpoint: "last" or "best" (by the config's ``eval.best_metric``) parameters of each run.
      by: "mean" or "median" over a point's seeds of the validation metric of those parameters; the point where it is best is
        reported.
      grids: scale -> points of config fields. One empty point, no choice, for a scale that is not named.
    """

    checkpoint: str = "last"
    by: str = "mean"
    grids: Mapping[str, Sequence[Point]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Table:
    """What a file in ``experiments/`` declares as ``TABLE``.

    Attributes:
      title: one line.
      source: where the published numbers stand, and how they were read.
      claim: what the paper says that they show.
      metric: name in ``result.json``; also the validation metric of the curves.
      rows: the rows, column by column.
      seeds: seeds per row, 0..seeds-1.
      scales: scales that the rows' configs have.
      selection: how a point of each row's grid is chosen.
      statistic: what stands beside the published number: "mean" of the seeds, "best" of them, or "median".
      positions: name of the task's curve by position (`lrnn_jax.tasks.base.Task.curves`) that the plot shows, of the longest
        bucket; empty for the metric over the length buckets.
      legend: what the rows are, over the plot's legend.
      notes: what our setting does differently, and what was found.
    """

    title: str
    source: str
    claim: str
    metric: str
    rows: tuple[Row, ...]
    seeds: int
    scales: tuple[str, ...] = ("smoke", "cpu", "paper")
    selection: Selection = Selection()
    statistic: str = "mean"
    positions: str = ""
    legend: str = ""
    notes: tuple[str, ...] = ()


class Run(NamedTuple):
    """One run behind a cell.

    Attributes:
      row: whose it is.
      point: of the selection's grid.
      seed: of the run.
      config: resolved.
    """

    row: Row
    point: Point
    seed: int
    config: ConfigDict


class Cell(NamedTuple):
    """One row with what its runs say.

    Attributes:
      row: as declared.
      point: the chosen one.
      chosen: the record of each seed at the chosen point; None where it is missing.
      scores: each of them as a number; None where there is none.
      seconds: wall time of all runs behind the row, those of other points included; a shared program's is shared out.
      runs: behind the row, those of other points included.
      ended: how many of them have a record.
    """

    row: Row
    point: Point
    chosen: list[Record | None]
    scores: list[float | None]
    seconds: float | None
    runs: int
    ended: int


def load_table(name: str) -> Table:
    """Returns the table that ``experiments/<name>.py`` declares.

    Raises:
      UserError: no such table; names the nearest.
    """
    folder = data_folder("experiments")
    names = sorted(file.stem for file in folder.glob("*.py"))
    if name not in names:
        raise UserError(f"unknown table {name!r}{suggest(name, names)} (`lrnn list tables` shows all)")
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TABLE


def list_runs(table: Table, scale: str) -> list[Run]:
    """Returns every run behind the table at one of its scales.

    Raises:
      UserError: the table lacks the scale.
    """
    if scale not in table.scales:
        raise UserError(f"--scale={scale!r} is not one of {', '.join(table.scales)}{suggest(scale, table.scales)}")
    runs = []
    for row in table.rows:
        for point in list_points(table, scale):
            for seed in range(table.seeds):
                config = load_own_config(f"{row.config},scale={scale}")
                for field, value in {**row.fields, **point, "seed": seed}.items():
                    set_field(config, field, value)
                runs.append(Run(row, dict(point), seed, config))
    return runs


def list_points(table: Table, scale: str) -> Sequence[Point]:
    """Returns the grid that is tried for every row at a scale."""
    return table.selection.grids.get(scale, ({},))


def record_name(run: Run) -> str:
    """Returns the file name of one run's record."""
    return f"{config_hash(run.config)}.json"


def read_records(runs: Sequence[Run], folder: Path) -> list[Record | None]:
    """Returns each run's record: None where it is missing, ``status`` "stale" where only an older config's is there.

    Raises:
      UserError: a file that is no record.
    """
    found = {file.name: _read_record(file) for file in sorted(folder.glob("*.json"))}
    stale = {_place(r.get("column", ""), r.get("row"), r.get("point"), r.get("seed")) for r in found.values()}
    records: list[Record | None] = []
    for run in runs:
        record = found.get(record_name(run))
        if record is None and _place(run.row.column, run.row.name, run.point, run.seed) in stale:
            record = {"status": "stale"}
        records.append(record)
    return records


def _read_record(file: Path) -> Record:
    try:
        record = json.loads(file.read_text())
        if record["status"] == "finished":
            _ = record["metrics"].items(), record["best"], record["wall_time_s"], record["versions"]["jax"]
        return record
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{file} is not a record: {reason}; remove it, and the same command makes it anew") from error


def fill_cells(table: Table, runs: Sequence[Run], records: Sequence[Record | None]) -> list[Cell]:
    """Returns one cell per row, with the point of the grid that the selection chooses."""
    cells = []
    for row in table.rows:
        own = [(run, record) for run, record in zip(runs, records, strict=True) if run.row is row]
        point = _choose_point(table, own)
        chosen = [record for run, record in own if run.point == point]
        there = [record for _, record in own if record]
        seconds = sum(record.get("wall_time_s", 0.0) / record.get("trained_together", 1) for record in there)
        scores, ended = [score(table, record) for record in chosen], sum(record["status"] != "stale" for record in there)
        cells.append(Cell(row, point, chosen, scores, seconds if there else None, len(own), ended))
    return cells


def score(table: Table, record: Record | None) -> float | None:
    """Returns a run's number by the table's selection; None where it is missing, stale, failed or not finite."""
    part = tested_part(table, record)
    value = part["metrics"].get(table.metric) if part else None
    return value if value is not None and math.isfinite(value) else None


def tested_part(table: Table, record: Record | None) -> Record | None:
    """Returns the record's part on the parameters that the selection takes: ``metrics``, and curves by position if any."""
    if not record or record["status"] != "finished":
        return None
    return record["best"] if table.selection.checkpoint == "best" else record


def summarise(table: Table, scores: Sequence[float | None]) -> tuple[float, float] | None:
    """Returns the table's statistic of the seeds that finished, and its deviation; None where none did.

    The deviation is the standard deviation (of n - 1) beside a mean or a best, the median absolute deviation beside a median.
    """
    good = [value for value in scores if value is not None]
    if not good:
        return None
    if table.statistic == "median":
        median = statistics.median(good)
        return median, statistics.median(abs(value - median) for value in good)
    deviation = statistics.stdev(good) if len(good) > 1 else 0.0
    if table.statistic == "best":
        return (min if less_is_better(table.metric) else max)(good), deviation
    return statistics.fmean(good), deviation


def _place(column: str, row: Any, point: Any, seed: Any) -> tuple[Any, ...]:
    return (column, row, json.dumps(point, sort_keys=True), seed)


def _choose_point(table: Table, own: Sequence[tuple[Run, Record | None]]) -> Point:
    """The point with the fewest failed or missing runs, and among these the best in validation by `Selection.by`."""
    sign = -1.0 if less_is_better(table.metric) else 1.0
    points: list[tuple[Point, list[float | None]]] = []
    for run, record in own:
        if not points or points[-1][0] != run.point:
            points.append((run.point, []))
        points[-1][1].append(_validated(table, record))

    def quality(values: Sequence[float | None]) -> tuple[int, float]:
        good = [sign * value for value in values if value is not None]
        if not good:
            return -len(values), 0.0
        centre = statistics.fmean(good) if table.selection.by == "mean" else statistics.median(good)
        return len(good) - len(values), centre

    return max(points, key=lambda pair: quality(pair[1]))[0]


def _validated(table: Table, record: Record | None) -> float | None:
    """The validation metric of the parameters that are reported."""
    if not record or record["status"] != "finished":
        return None
    curve = dict(map(tuple, record.get("curve", [])))
    step = record["best"]["step"] if table.selection.checkpoint == "best" and record["best"] else max(curve, default=None)
    value = curve.get(step)
    return value if value is not None and math.isfinite(value) else None
