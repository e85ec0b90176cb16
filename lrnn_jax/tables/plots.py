"""The plots of a table, from the cells alone: every seed a line of its own.

Five fit what has been declared so far: over training, over the length buckets, over positions, over doubling contexts, over a
layer's sizes. A table with another has a `Table.figure` of its own.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrnn_jax.tables.cells import Cell, FilledTable, Sizes, mean_cells, tested_part
from lrnn_jax.tables.declaring import Run, Table
from lrnn_jax.tables.records import Record

# Curves of such names are over doubling contexts (`lrnn_jax.tasks.base.Task.curves`).
DOUBLING = "_by_context"


def draw_plot(filled: FilledTable, heads: Mapping[str, str], path: Path) -> None:
    """Draws one column over training and over length, several as a panel each, over sizes, or the table's own figure.

    Over length, a dashed line stands at the longest training sequence. A column of which nothing has been run has no panel.

    Args:
      filled: the table with its records.
      heads: column name -> what to write over its panel.
      path: of the PNG.
    """
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    if filled.table.figure:
        filled.table.figure(figure, filled.cells)
    elif filled.table.over_sizes:
        draw_sizes(filled, heads, figure)
    else:
        _draw_panels(filled, heads, figure)
    figure.suptitle(filled.table.title, fontsize=10)
    # no version or date inside, so that the same records give the same file
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _draw_panels(filled: FilledTable, heads: Mapping[str, str], figure: Any) -> None:
    table, columns = filled.table, filled.columns
    cells = {name: [cell for cell in filled.cells if cell.column.name == name] for name in columns}
    drawn = [name for name in columns if _seeds(table, cells[name])] or columns
    panels = 2 if len(columns) == 1 else len(drawn)
    across = min(panels, 4)
    down = math.ceil(panels / across)
    figure.set_size_inches(4.2 * across + 1.8, 3.3 * down + 0.3)
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for unused in axes[panels:]:
        unused.set_visible(False)
    if len(columns) == 1:
        _draw_training(table, axes[0], filled.cells)
    for panel, name in zip(axes[1:] if len(columns) == 1 else axes, drawn, strict=False):
        own = [run for run in filled.runs if run.column.name == name]
        draw_lengths(table, panel, own, cells[name], title=heads[name] or "test")
    for panel in axes[:panels]:
        panel.grid(alpha=0.3)
        if table.metric.partition("/")[0].endswith("accuracy"):
            panel.set_ylim(-0.1, 1.05)
    _add_legend(table, figure, axes)


def draw_sizes(filled: FilledTable, heads: Mapping[str, str], figure: Any) -> None:
    """Draws each column's numbers over the parameters of one layer, and under it over its state; every seed is a small dot.

    A table with a total has the mean over its columns alone.
    """
    table = filled.table
    lines = list(dict.fromkeys(row.line or row.name for row in table.rows))
    cells = {name: [cell for cell in filled.cells if cell.column.name == name and cell.summary] for name in filled.columns}
    if table.total:
        cells, heads = {"": mean_cells(filled)}, {"": "mean over the tasks"}
    figure.set_size_inches(4.2 * len(cells) + 1.8, 6.6)
    panels = figure.subplots(2, len(cells), squeeze=False, sharey="col")
    for (name, own), column in zip(cells.items(), panels.T, strict=True):
        for size, panel in zip(Sizes._fields, column, strict=True):
            for line in dict.fromkeys(cell.row.line or cell.row.name for cell in own):
                style = {"color": f"C{lines.index(line)}", "marker": "os^v"[lines.index(line) // 10 % 4]}
                drawn = [cell for cell in own if (cell.row.line or cell.row.name) == line]
                points = sorted((getattr(cell.sizes, size), cell.summary[0]) for cell in drawn if cell.summary)
                panel.plot(*zip(*points, strict=True), **style, markersize=5, label=line)
                for cell in drawn:
                    seeds = [value for value in cell.scores if value is not None]
                    panel.plot([getattr(cell.sizes, size)] * len(seeds), seeds, **style, linestyle="", markersize=2, alpha=0.6)
            panel.set(xscale="log", xlabel=f"{_words(size)} of a layer", ylabel=_words(table.metric))
            panel.grid(alpha=0.3)
        column[0].set_title(heads[name], fontsize="small")
    _add_legend(table, figure, list(panels.flat))


def _add_legend(table: Table, figure: Any, axes: Sequence[Any]) -> None:
    lines = {label: line for panel in axes for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    if lines:
        where: dict[str, Any] = {"loc": "outside right center", "title": table.legend or None}
        figure.legend(list(lines.values()), list(lines), frameon=False, fontsize="small", **where)


def _draw_training(table: Table, axes: Any, cells: Sequence[Cell]) -> None:
    for style, record in _seeds(table, cells):
        axes.plot(*zip(*record.validation.get(table.metric, ()), strict=True), **style)
    axes.set(xlabel="training step", ylabel=_words(table.metric))
    axes.set_title("validation", fontsize="medium")


def draw_lengths(table: Table, axes: Any, runs: Sequence[Run], cells: Sequence[Cell], *, title: str) -> None:
    """Draws one column's test over the length buckets, or over the positions of the longest, with the published numbers."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    for longest in {run.config.train.length[1] for run in runs}:
        axes.axvline(longest, color="black", linestyle="--", linewidth=0.7, label="longest in training")
    for style, record in _seeds(table, cells):
        points = by_length(table, record)
        axes.plot(*zip(*points, strict=True), **style, **({} if table.positions else {"marker": "o", "markersize": 3}))
    if not table.positions:
        shown = [cell for cell in cells if cell.published and not cell.published.unit and _seeds(table, [cell])]
        for cell in shown:
            axes.axhline(cell.row.published[cell.column.name].value, color=_colour(table, cell), linestyle=":", linewidth=1)
        if shown:
            axes.plot([], [], color="black", linestyle=":", linewidth=1, label="published")
    what, across = (table.positions, "position") if table.positions else (table.metric, "longest sequence of the bucket")
    if table.positions.endswith(DOUBLING):
        across = "tokens before, at least"
    axes.set(xlabel=across, ylabel=_words(what.partition("/")[0]), xscale="log")
    axes.set_title(title, fontsize="small" if "\n" in title else "medium")
    shortest, longest = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if longest < 100 * shortest else (1,)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def by_length(table: Table, record: Record) -> list[tuple[float, float | None]]:
    """Returns a finished run's curve: (longest sequence of the bucket, value), or (position, value)."""
    part = tested_part(table, record)
    assert part is not None
    if table.positions:
        curve = part.positions.get(table.positions, ())
        return [(2 ** (t - 1) if table.positions.endswith(DOUBLING) else t, value) for t, value in curve]
    buckets = [(re.fullmatch(f"{re.escape(table.metric)}/\\d+-(\\d+)", name), value) for name, value in part.metrics.items()]
    return sorted((int(match[1]), value) for match, value in buckets if match)


def _seeds(table: Table, cells: Sequence[Cell]) -> list[tuple[dict[str, Any], Record]]:
    """Every finished run behind the cells with its line's style: a colour per row, one label."""
    lines = []
    for cell in cells:
        label: str | None = cell.row.name
        for record, value in zip(cell.chosen, cell.scores, strict=True):
            if record and value is not None:
                lines.append(({"color": _colour(table, cell), "alpha": 0.8, "label": label}, record))
                label = None
    return lines


def _colour(table: Table, cell: Cell) -> str:
    return f"C{[row.name for row in table.rows].index(cell.row.name)}"


def _words(name: str) -> str:
    return name.replace("_", " ")
