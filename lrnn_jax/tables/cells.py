"""What the records say of each cell: the chosen point of its grid, its seeds' numbers, and their statistic."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from lrnn_jax.errors import UserError, suggest
from lrnn_jax.registry import load_layer, load_task
from lrnn_jax.tables.declaring import Column, Point, Published, Row, Run, Table, list_runs
from lrnn_jax.tables.records import Record, Tested, read_records


class Sizes(NamedTuple):
    """What one layer has.

    Attributes:
      parameters: numbers that are trained.
      state: floats in one sequence's state.
    """

    parameters: int
    state: int


class Cell(NamedTuple):
    """One row in one column with what its runs say.

    Attributes:
      column: as declared.
      row: as declared.
      point: the chosen one.
      chosen: the record of each seed at the chosen point; None where it is missing.
      scores: each of them as a number; None where there is none.
      summary: the table's statistic of the seeds that finished, and its deviation; None where none did.
      seconds: wall time of all runs behind the cell, those of other points included; a shared program's is shared out.
      runs: behind the cell, those of other points included.
      ended: how many of them have a record that counts.
      sizes: what one layer has at the chosen point; None where the table does not ask (`Table.over_sizes`).
    """

    column: Column
    row: Row
    point: Point
    chosen: list[Record | None]
    scores: list[float | None]
    summary: tuple[float, float] | None
    seconds: float | None
    runs: int
    ended: int
    sizes: "Sizes | None" = None

    @property
    def published(self) -> Published | None:
        """The paper's number."""
        return self.row.published.get(self.column.name)


class FilledTable(NamedTuple):
    """A table at one of its settings, with what there is to show.

    Attributes:
      table: as declared.
      setting: of the runs.
      runs: behind the table.
      records: of the runs; None where one is missing.
      cells: one per place of the table.
      papers: the runs at the paper's own setting; none where that is this one, or where there is none.
    """

    table: Table
    setting: str
    runs: list[Run]
    records: list[Record | None]
    cells: list[Cell]
    papers: list[Run]

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(dict.fromkeys(cell.column.name for cell in self.cells))


def fill_table(table: Table, setting: str, folder: Path) -> FilledTable:
    """Returns the table at a setting with the records in a folder.

    Raises:
      UserError: the table lacks the setting, or a file is no record.
    """
    runs = list_runs(table, setting)
    records = read_records(runs, folder)
    papers = list_runs(table, table.paper) if table.paper not in ("", setting) else []
    return FilledTable(table, setting, runs, records, fill_cells(table, runs, records), papers)


def fill_cells(table: Table, runs: Sequence[Run], records: Sequence[Record | None]) -> list[Cell]:
    """Returns one cell per place of the table, with the point of the grid that the selection chooses."""
    places: dict[tuple[str, str], list[tuple[Run, Record | None]]] = {}
    for run, record in zip(runs, records, strict=True):
        places.setdefault((run.column.name, run.row.name), []).append((run, record))
    cells = []
    for own in places.values():
        column, row = own[0][0].column, own[0][0].row
        lower = lower_is_better(table, own[0][0])
        point = _choose_point(table, own, lower=lower)
        chosen = [record for run, record in own if run.point == point]
        sizes = layer_sizes(next(run.config for run, _ in own if run.point == point)) if table.over_sizes else None
        there = [record for _, record in own if record]
        seconds = sum(record.wall_time_s / record.trained_together for record in there) if there else None
        scores, ended = [score(table, record) for record in chosen], sum(record.status != "stale" for record in there)
        summary = summarise(table.statistic, scores, lower=lower)
        cells.append(Cell(column, row, point, chosen, scores, summary, seconds, len(own), ended, sizes))
    return cells


def mean_cells(filled: FilledTable) -> list[Cell]:
    """Returns a cell per row that has a number in every column: their mean, and that of each seed; see `Column.group`."""
    means = []
    for row in dict.fromkeys(cell.row.name for cell in filled.cells):
        own = [cell for cell in filled.cells if cell.row.name == row]
        numbers = [cell.summary[0] for cell in own if cell.summary]
        if len(numbers) == len(filled.columns):
            seeds = [[value for value in values if value is not None] for values in zip(*(c.scores for c in own), strict=True)]
            scores = [_mean_of_groups(own, values) if len(values) == len(own) else None for values in seeds]
            means.append(own[0]._replace(summary=(_mean_of_groups(own, numbers), 0.0), scores=scores))
    return means


def _mean_of_groups(cells: Sequence[Cell], numbers: Sequence[float]) -> float:
    groups: dict[str, list[float]] = {}
    for cell, number in zip(cells, numbers, strict=True):
        groups.setdefault(cell.column.group or cell.column.name, []).append(number)
    return statistics.fmean(map(statistics.fmean, groups.values()))


def layer_sizes(config: ConfigDict) -> Sizes:
    """Returns the sizes of one layer of a config's model."""
    fields = {name: value for name, value in config.model.layer.items() if name != "name"}
    layer = load_layer(config.model.layer.name)(width=config.model.width, depth=config.model.depth, **fields)
    return Sizes(layer.parameter_count(), layer.state_count())


def lower_is_better(table: Table, run: Run) -> bool:
    """Says which way the table's metric is good, as the run's task does.

    Raises:
      UserError: the task does not measure it.
    """
    name, known = table.metric.partition("/")[0], load_task(run.config.task.name).METRICS
    if name not in known:
        raise UserError(f"the task {run.config.task.name!r} has no metric {name!r}{suggest(name, known)}")
    return known[name] == "lower"


def score(table: Table, record: Record | None) -> float | None:
    """Returns a run's number by the table's selection; None where it is missing, stale, failed or not finite."""
    part = tested_part(table, record)
    value = part.metrics.get(table.metric) if part else None
    return value if value is not None and math.isfinite(value) else None


def tested_part(table: Table, record: Record | None) -> Tested | None:
    """Returns the test of the parameters that the selection takes."""
    return None if record is None else record.best if table.selection.checkpoint == "best" else record.last


def summarise(statistic: str, scores: Sequence[float | None], *, lower: bool) -> tuple[float, float] | None:
    """Returns a statistic of the seeds that finished, and its deviation; None where none did.

    The deviation is the standard deviation (of n - 1) beside a mean or a best, the median absolute deviation beside a median.
    """
    good = [value for value in scores if value is not None]
    if not good:
        return None
    if statistic == "median":
        median = statistics.median(good)
        return median, statistics.median(abs(value - median) for value in good)
    deviation = statistics.stdev(good) if len(good) > 1 else 0.0
    if statistic == "best":
        return (min if lower else max)(good), deviation
    return statistics.fmean(good), deviation


def _choose_point(table: Table, own: Sequence[tuple[Run, Record | None]], *, lower: bool) -> Point:
    """The point with the fewest failed or missing runs, and among these the best in validation by `Selection.by`."""
    sign = -1.0 if lower else 1.0
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
    if record is None or record.last is None:
        return None
    curve: Mapping[float, float | None] = dict(record.validation.get(table.metric, ()))
    best = table.selection.checkpoint == "best" and record.best
    value = curve.get(best.step if best else max(curve, default=0))
    return value if value is not None and math.isfinite(value) else None
