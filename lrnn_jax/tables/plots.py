"""The plots of a table, from the cells alone: a line per row, its mean over the seeds, with their range as a band.

Six fit what has been declared so far: over training, over the length buckets, over positions, over doubling contexts, over a
layer's sizes, and row by row where one length is tested. A table with another has a `Table.figure` of its own.
"""

import math
import re
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrnn_jax.tables.cells import Cell, FilledTable, Sizes, mean_cells, tested_part
from lrnn_jax.tables.declaring import Row, Run, Table
from lrnn_jax.tables.plot_style import WIDTH, in_words, paper_style, save_figure
from lrnn_jax.tables.records import Record

# Curves of such names are over doubling contexts (`lrnn_jax.tasks.base.Task.curves`).
DOUBLING = "_by_context"
_MARKERS = "os^vDPX*"
# Shades of rows that share a colour, from the lightest to the full one: how much of it is left beside white.
_LIGHTEST = 0.45
Curve = Sequence[tuple[float, float | None]]
Styles = Mapping[str, Mapping[str, Any]]


def draw_plot(filled: FilledTable, heads: Mapping[str, str], path: Path) -> None:
    """Draws one column over training and over length, several as a panel each, over sizes, or the table's own figure.

    Over length, a dashed line stands at the longest training sequence. A column of which nothing has been run has no panel.

    Args:
      filled: the table with its records.
      heads: column name -> what to write over its panel.
      path: of the PNG or PDF.
    """
    from matplotlib.figure import Figure

    table = filled.table
    with paper_style():
        figure = Figure(layout="constrained")
        if table.figure:
            table.figure(figure, filled.cells)
        elif table.over_sizes:
            draw_sizes(filled, heads, figure)
        else:
            _draw_panels(filled, heads, figure)
        figure.suptitle(f"{table.title}\n{_caption(filled)}")
        save_figure(figure, path)


def _caption(filled: FilledTable) -> str:
    seeds = max((sum(value is not None for value in cell.scores) for cell in filled.cells), default=0)
    single = filled.table.over_sizes or _tests_one_length(filled)
    said = f"mean of {seeds} seeds, and {'each of them' if single else 'their range'}" if seeds > 1 else f"{seeds} seed"
    return f"setting {filled.setting}, {said}"


def _tests_one_length(filled: FilledTable) -> bool:
    return not filled.table.positions and all(len(run.config.eval.lengths) == 1 for run in filled.runs)


def _draw_panels(filled: FilledTable, heads: Mapping[str, str], figure: Any) -> None:
    table, columns = filled.table, filled.columns
    cells = {name: [cell for cell in filled.cells if cell.column.name == name] for name in columns}
    drawn = [name for name in columns if _finished(cells[name])] or columns
    single, styles = _tests_one_length(filled), row_styles([cell.row for cell in filled.cells])
    with_training = len(columns) == 1 and not single
    axes = _panels(figure, len(drawn) + with_training, height=1.0 + 0.19 * len(table.rows) if single else 2.9, rows=single)
    if with_training:
        _draw_training(table, axes[0], filled.cells, styles)
    for panel, name in zip(axes[with_training:], drawn, strict=True):
        head = "\n".join(wrap(line, 48 if len(axes) > 1 else 96) for line in heads[name].split("\n"))
        if single:
            draw_rows(table, panel, cells[name], styles, title=head)
        else:
            own = [run for run in filled.papers or filled.runs if run.column.name == name]
            longest = {run.config.train.length[1] for run in filled.runs if run.column.name == name}
            draw_lengths(table, panel, cells[name], styles, papers=own, trained=longest, title=head or "test")
    for panel in axes:
        panel.grid(alpha=0.3)
        if table.metric.partition("/")[0].endswith("accuracy") and not single:
            low, high = panel.dataLim.intervaly
            panel.set_ylim(min(-0.04, low - 0.04), max(1.04, high + 0.04))
    _add_legend("" if single else table.legend, figure, axes)


def _panels(figure: Any, count: int, *, height: float, rows: bool = False) -> list[Any]:
    """Returns so many panels, at most two side by side."""
    across = min(count, 2)
    down = math.ceil(count / across)
    figure.set_size_inches(WIDTH, height * down + 1.2)
    axes = list(figure.subplots(down, across, squeeze=False, sharey=rows).flat)
    for unused in axes[count:]:
        unused.set_visible(False)
    return axes[:count]


def wrap(text: str, width: int) -> str:
    """Returns lines of about equal length."""
    return textwrap.fill(text, min(width, len(text) // math.ceil(len(text) / width) + 6)) if text else ""


def draw_rows(table: Table, axes: Any, cells: Sequence[Cell], styles: Styles, *, title: str) -> None:
    """Draws one number per row, that of each seed small behind it, and the paper's as a hollow diamond."""
    names = [row.name for row in table.rows if any(cell.row.name == row.name for cell in cells)]
    for cell in cells:
        place = names.index(cell.row.name)
        style = styles[cell.row.line or cell.row.name]
        seeds = [value for value in cell.scores if value is not None]
        axes.plot(seeds, [place] * len(seeds), "|", color=style["color"], markersize=9, alpha=0.6)
        if cell.summary:
            axes.plot([cell.summary[0]], [place], "o", color=style["color"], markersize=6)
        if cell.published and not cell.published.unit:
            axes.plot([cell.published.value], [place], "D", color="black", markerfacecolor="none", markersize=5)
    axes.plot([], [], "o", color="black", label="ours")
    if any(cell.published and not cell.published.unit for cell in cells):
        axes.plot([], [], "D", color="black", markerfacecolor="none", label="published, at the paper's scale")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set(xlabel=in_words(table.metric))
    axes.set_title(title)


def draw_sizes(filled: FilledTable, heads: Mapping[str, str], figure: Any) -> None:
    """Draws each column's numbers over the parameters of one layer, and beside it over its state; every seed is a small dot.

    A table with a total has the mean over its columns alone.
    """
    table = filled.table
    cells = {name: [cell for cell in filled.cells if cell.column.name == name and cell.summary] for name in filled.columns}
    if table.total:
        cells, heads = {"": mean_cells(filled)}, {"": "mean over the tasks"}
    figure.set_size_inches(WIDTH, 2.8 * len(cells) + 1.6)
    panels = figure.subplots(len(cells), 2, squeeze=False, sharey="row")
    styles = row_styles([cell.row for cell in filled.cells])
    for (name, own), line_of_panels in zip(cells.items(), panels, strict=True):
        for size, panel in zip(Sizes._fields, line_of_panels, strict=True):
            for line in dict.fromkeys(cell.row.line or cell.row.name for cell in own):
                drawn = [cell for cell in own if (cell.row.line or cell.row.name) == line]
                points = sorted((getattr(cell.sizes, size), cell.summary[0]) for cell in drawn if cell.summary)
                panel.plot(*zip(*points, strict=True), **{**styles[line], "markersize": 5}, label=line)
                for cell in drawn:
                    seeds = [value for value in cell.scores if value is not None]
                    dots = {"color": styles[line]["color"], "marker": styles[line]["marker"], "linestyle": ""}
                    panel.plot([getattr(cell.sizes, size)] * len(seeds), seeds, **dots, markersize=2, alpha=0.6)
            panel.set(xscale="log", xlabel=f"{in_words(size)} of a layer")
            panel.grid(alpha=0.3)
        line_of_panels[0].set_ylabel(in_words(table.metric))
        line_of_panels[0].set_title(heads[name], loc="left")
    _add_legend(table.legend, figure, list(panels.flat))


def _add_legend(title: str, figure: Any, axes: Sequence[Any]) -> None:
    lines = {label: line for panel in axes for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    if lines:
        longest = max(map(len, lines))
        columns = 2 if longest > 36 else 3 if longest > 22 else 4
        figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=columns, title=title or None)


def _draw_training(table: Table, axes: Any, cells: Sequence[Cell], styles: Styles) -> None:
    for cell in cells:
        curves = [record.validation.get(table.metric, ()) for record in _finished([cell])]
        draw_band(axes, curves, styles[cell.row.line or cell.row.name], cell.row.name, marked=False)
    axes.set(xlabel="training step", ylabel=in_words(table.metric))
    axes.set_title("validation")


def draw_lengths(
    table: Table, axes: Any, cells: Sequence[Cell], styles: Styles, *, papers: Sequence[Run], trained: set[int], title: str
) -> None:
    """Draws one column's test over the length buckets, or over the positions of the longest, with the published numbers.

    Args:
      table: as declared.
      axes: the panel.
      cells: of the column.
      styles: see `row_styles`.
      papers: runs at the paper's setting, whose lengths the published numbers are of.
      trained: the longest training sequences.
      title: of the panel.
    """
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    for longest in trained:
        axes.axvline(longest, color="black", linestyle=(0, (1, 2)), linewidth=1, label="longest in training")
    for cell in cells:
        curves = [by_length(table, record) for record in _finished([cell])]
        draw_band(axes, curves, styles[cell.row.line or cell.row.name], cell.row.name, marked=not table.positions)
    if not table.positions:
        _draw_published(axes, cells, papers, styles)
    what, across = (table.positions, "position") if table.positions else (table.metric, "longest sequence of the bucket")
    if table.positions.endswith(DOUBLING):
        across = "tokens before, at least"
    axes.set(xlabel=across, ylabel=in_words(what.partition("/")[0]), xscale="log")
    axes.set_title(title)
    shortest, longest = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if longest < 100 * shortest else (1,)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def draw_band(axes: Any, curves: Sequence[Curve], style: Mapping[str, Any], label: str, *, marked: bool) -> None:
    """Draws the mean of some seeds' curves at the places that all have, their range as a band, and each as a thin line."""
    values = [{x: y for x, y in curve if y is not None} for curve in curves]
    places = sorted(set.intersection(*map(set, values))) if values else []
    if not places:
        return
    own = {name: value for name, value in style.items() if marked or not name.startswith("marker")}
    if len(values) > 1:
        for curve in values:
            axes.plot(*zip(*sorted(curve.items()), strict=True), color=style["color"], linewidth=0.5, alpha=0.5)
        low, high = ([choose(curve[x] for curve in values) for x in places] for choose in (min, max))
        axes.fill_between(places, low, high, color=style["color"], alpha=0.15, linewidth=0)
    means = [statistics.fmean(curve[x] for curve in values) for x in places]
    axes.plot(places, means, **own, linewidth=1.6, markerfacecolor="none", label=label)


def _draw_published(axes: Any, cells: Sequence[Cell], papers: Sequence[Run], styles: Styles) -> None:
    """A dotted line over the lengths that a published number is of, with a mark at the longest."""
    shown = [cell for cell in cells if cell.published and not cell.published.unit and cell.summary]
    for cell in shown:
        assert cell.published is not None
        spans = [run.config.eval for run in papers if run.row.name == cell.row.name]
        for span in spans[:1]:
            low, high = span.headline
            places = [last for first, last in span.lengths if low <= first and last <= high]
            colour = styles[cell.row.line or cell.row.name]["color"]
            ends = [min(places), max(places)]
            axes.plot(ends, [cell.published.value] * 2, color=colour, linestyle=":", linewidth=1.2)
            axes.plot(ends[1:], [cell.published.value], "*", color=colour, markersize=9, markeredgecolor="black", zorder=5)
    if shown:
        axes.plot([], [], "*:", color="grey", markeredgecolor="black", markersize=9, label="published, over its lengths")


def by_length(table: Table, record: Record) -> list[tuple[float, float | None]]:
    """Returns a finished run's curve: (longest sequence of the bucket, value), or (position, value)."""
    part = tested_part(table, record)
    assert part is not None
    if table.positions:
        curve = part.positions.get(table.positions, ())
        return [(2 ** (t - 1) if table.positions.endswith(DOUBLING) else t, value) for t, value in curve]
    buckets = [(re.fullmatch(f"{re.escape(table.metric)}/\\d+-(\\d+)", name), value) for name, value in part.metrics.items()]
    return sorted((int(match[1]), value) for match, value in buckets if match)


def _finished(cells: Sequence[Cell]) -> list[Record]:
    """The records behind the cells that have a number."""
    return [
        record for cell in cells for record, value in zip(cell.chosen, cell.scores, strict=True) if record and value is not None
    ]


def row_styles(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Returns the line of each row by its name, or of all rows of one `Row.line` by that.

    A colour stands for a layer; eigenvalues in [0, 1] alone, the variant "positive", are dashed; what else distinguishes rows
    of a layer, such as block size, Householders or depth, is a shade, the last the darkest. Each line has a marker of its own,
    the first the largest, so that lines which coincide are seen.
    """
    from matplotlib.colors import to_rgb

    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.line or row.name, row)
    systems = list(dict.fromkeys(_split(row)[0] for row in first.values()))
    alike: dict[tuple[str, bool], list[str]] = {}
    for name, row in first.items():
        system, variant = _split(row)
        alike.setdefault((system, variant == "positive"), []).append(name)
    styles = {}
    for number, (name, row) in enumerate(first.items()):
        system, variant = _split(row)
        own = alike[system, variant == "positive"]
        left = 1.0 if len(own) == 1 else _LIGHTEST + (1 - _LIGHTEST) * own.index(name) / (len(own) - 1)
        colour = to_rgb(f"C{systems.index(system) % 10}")
        styles[name] = {
            "color": tuple(1 - left * (1 - part) for part in colour),
            "linestyle": "--" if variant == "positive" else "-",
            "marker": _MARKERS[number % len(_MARKERS)],
            "markersize": max(3.0, 7.5 - 0.7 * number),
        }
    return styles


def _split(row: Row) -> tuple[str, str]:
    system, _, variant = row.layer.partition("/")
    return system, variant
