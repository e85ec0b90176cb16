"""A paper's table or figure as a file in ``experiments/`` declares it, and the runs behind it; or a study, which has none."""

import dataclasses
import importlib.util
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ml_collections import ConfigDict

from lrnn_jax.config.fields import set_field
from lrnn_jax.config.files import data_folder, load_own_config
from lrnn_jax.errors import UserError, suggest
from lrnn_jax.tables.studies import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Point = Mapping[str, Any]

# A note of tables of sequence accuracy.
MEAN_OVER_LENGTHS = (
    "ours: the mean over the lengths tested, the shortest of which is that of the training; the plot shows every length."
)
STANDINGS = ("read", "second-hand", "unknown")


@dataclasses.dataclass(frozen=True)
class Published:
    """One number that a paper prints.

    Attributes:
      value: the number.
      place: where it stands, such as "Table 3".
      standing: "read" in the paper or its released files; "second-hand", from somebody's report of it; "unknown".
      unit: of the value; empty where it is that of the table's metric, and only then a gap to ours is a number.
      spread: what the paper prints after ±; None where nothing.
    """

    value: float
    place: str
    standing: str = "read"
    unit: str = ""
    spread: float | None = None

    def __post_init__(self) -> None:
        if self.standing not in STANDINGS:
            raise UserError(f"standing {self.standing!r} of a published number is not one of {', '.join(STANDINGS)}")


@dataclasses.dataclass(frozen=True)
class Column:
    """One task of a table, or one panel of a figure.

    Attributes:
      name: what the paper calls it; empty where there is only one.
      config: the config file of our runs.
      options: the task's options in the part after the colon.
      fields: config fields that differ from the file's, by dotted path.
      note: what has to be known of this column; printed under it.
      settings: settings at which there is the column; all if empty.
      group: columns of one group count as one in the mean over the columns, that of their own mean; alone if empty.
    """

    name: str
    config: str
    options: str = ""
    fields: Point = dataclasses.field(default_factory=dict)
    note: str = ""
    settings: tuple[str, ...] = ()
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """One model of a table.

    Attributes:
      name: what the paper calls it.
      layer: ``LAYER[/VARIANT]`` of our runs, as in the part after the colon.
      published: column name -> the paper's number; a column that is not named has none.
      fields: config fields that differ from the file's, by dotted path.
      columns: names of the columns that have the row; all if empty.
      settings: settings at which there is the row; all if empty.
      line: rows of one line are joined in a plot over sizes; the row's name if empty.
    """

    name: str
    layer: str
    published: Mapping[str, Published] = dataclasses.field(default_factory=dict)
    fields: Point = dataclasses.field(default_factory=dict)
    columns: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    line: str = ""


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which parameters are tested, and how a cell's point of the grid is chosen.

    Attributes:
      checkpoint: "last" or "best" (by the config's ``eval.best_metric``) parameters of each run.
      by: "mean" or "median" over a point's seeds of the validation metric of those parameters; the point where it is best is
        reported.
      grids: setting -> points of config fields. One empty point, no choice, for a setting that is not named.
    """

    checkpoint: str = "last"
    by: str = "mean"
    grids: Mapping[str, Sequence[Point]] = dataclasses.field(default_factory=dict)

    def points(self, setting: str) -> Sequence[Point]:
        """Returns the grid that is tried for every cell at a setting."""
        return self.grids.get(setting, ({},))


@dataclasses.dataclass(frozen=True)
class Table:
    """What ``table()`` of a file in ``experiments/`` returns.

    Attributes:
      title: one line.
      source: where the published numbers stand, and how they were read.
      claim: what the paper says that they show.
      metric: name in ``result.json``; also the validation metric of the curves.
      columns: the tasks.
      rows: the models; each has a cell in every column, unless it says otherwise.
      seeds: seeds per cell, 0..seeds-1.
      settings: settings that the columns' configs have.
      paper: the one of them that is the paper's own: where another trains or tests on something else, a column's head says so.
        Empty where none is.
      selection: how a point of each cell's grid is chosen.
      statistic: what stands beside the published number: "mean" of the seeds, "best" of them, or "median".
      positions: name of the task's curve by position (`lrnn_jax.tasks.base.Task.curves`) that the plot shows, of the longest
        bucket; empty for the metric over the length buckets.
      total: the overview ends with the mean over the columns (see `Column.group`), of rows that have a number in each.
      over_sizes: the parameters and the state of one layer stand in the table, and the plot is over them.
      legend: what the rows are, over the plot's legend.
      notes: what our settings do differently, and what was found.
      figure: draws the cells into an empty figure, where `lrnn_jax.tables.plots` has nothing that fits.
    """

    title: str
    source: str
    claim: str
    metric: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    seeds: int
    settings: tuple[str, ...] = ("smoke", "cpu", "grazzi2025")
    paper: str = "grazzi2025"
    selection: Selection = Selection()
    statistic: str = "mean"
    positions: str = ""
    total: bool = False
    over_sizes: bool = False
    legend: str = ""
    notes: tuple[str, ...] = ()
    figure: "Callable[[Figure, Sequence[Any]], None] | None" = None

    def places(self, setting: str) -> Iterator[tuple[Column, Row]]:
        """Yields every cell that the table has at a setting, column by column."""
        for column, row in itertools.product(self.columns, self.rows):
            there = not row.columns or column.name in row.columns
            if there and all(not part.settings or setting in part.settings for part in (column, row)):
                yield column, row


class Run(NamedTuple):
    """One run behind a cell.

    Attributes:
      column: whose it is.
      row: whose it is.
      point: of the selection's grid.
      seed: of the run.
      spec: ``FILE:ARG`` of its config.
      fields: what differs from that config, by dotted path.
      config: resolved.
    """

    column: Column
    row: Row
    point: Point
    seed: int
    spec: str
    fields: Point
    config: ConfigDict


def newcomer(layer: str, models: Mapping[str, Point] | None = None) -> tuple[Row, ...]:
    """Returns rows for a layer that the paper does not have; none where ``layer`` is empty.

    Args:
      layer: ``LAYER[/VARIANT]``, also from outside as ``module:Class[/VARIANT]``.
      models: what to add to the row's name -> its config fields, such as {", 1 layer": {"model.depth": 1}}; one row with none
        if left out.
    """
    return tuple(Row(f"{layer}{name}", layer, fields=fields) for name, fields in (models or {"": {}}).items()) if layer else ()


def load_table(name: str, **options: str) -> Table:
    """Returns the table that ``table(**options)`` of ``experiments/<name>.py`` declares.

    Raises:
      UserError: no such table, or a study; names the nearest.
    """
    declared = load_experiment(name, **options)
    if isinstance(declared, Study):
        raise UserError(f"{name!r} is a study, which no layer is trained for")
    return declared


def load_experiment(name: str, **options: str) -> Table | Study:
    """Returns what ``table(**options)`` or ``study()`` of ``experiments/<name>.py`` declares.

    Raises:
      UserError: no such file; names the nearest.
    """
    folder = data_folder("experiments")
    names = sorted(file.stem for file in folder.glob("*.py"))
    if name not in names:
        raise UserError(f"unknown table {name!r}{suggest(name, names)} (`lrnn list tables` shows all)")
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.study() if hasattr(module, "study") else module.table(**options)


def list_runs(table: Table, setting: str) -> list[Run]:
    """Returns every run behind the table at one of its settings.

    Raises:
      UserError: the table lacks the setting, or a config does not exist.
    """
    if setting not in table.settings:
        raise UserError(f"--setting={setting!r} is not one of {', '.join(table.settings)}{suggest(setting, table.settings)}")
    runs = []
    for column, row in table.places(setting):
        spec = find_spec(column, row, setting)
        base = load_own_config(spec)
        for point in table.selection.points(setting):
            for seed in range(table.seeds):
                fields = {**column.fields, **row.fields, **point, "seed": seed}
                config = ConfigDict(base.to_dict()).lock()  # its sections too are its own
                for field, value in fields.items():
                    set_field(config, field, value)
                runs.append(Run(column, row, dict(point), seed, spec, fields, config))
    return runs


def find_spec(column: Column, row: Row, setting: str) -> str:
    """Returns the ``FILE:ARG`` of a cell's config at a setting."""
    return f"{column.config}:{','.join(filter(None, (row.layer, setting, column.options)))}"
