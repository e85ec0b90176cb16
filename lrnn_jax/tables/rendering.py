"""Tables as Markdown, CSV and PNG, from the files of their runs alone."""

import csv
import io
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lrnn_jax.errors import UserError
from lrnn_jax.tables.declaring import (
    Cell,
    Point,
    Record,
    Run,
    Table,
    fill_cells,
    list_points,
    list_runs,
    read_records,
    score,
    summarise,
    tested_part,
)

# Curves of such names are over doubling contexts (`lrnn_jax.tasks.base.Task.curves`).
DOUBLING = "_by_context"


def render(table: Table, scale: str, folder: Path) -> str:
    """Writes ``table.md``, ``table.csv`` and ``plot.png`` from the records in ``folder`` and returns the Markdown."""
    runs = list_runs(table, scale)
    records = read_records(runs, folder)
    cells = fill_cells(table, runs, records)
    markdown = render_markdown(table, scale, runs, records, cells)
    try:
        # in a folder of their own first, so that no reader, and no other process that renders, sees half of one
        with tempfile.TemporaryDirectory(dir=folder, prefix=".render") as scratch:
            Path(scratch, "table.md").write_text(markdown)
            Path(scratch, "table.csv").write_text(render_csv(table, runs, records))
            draw_plot(table, runs, cells, Path(scratch, "plot.png"))
            for file in Path(scratch).iterdir():
                file.replace(folder / file.name)
    except OSError as error:
        raise UserError(f"cannot write the table in {folder}: {error.strerror}") from error
    return markdown


def render_markdown(
    table: Table, scale: str, runs: Sequence[Run], records: Sequence[Record | None], cells: Sequence[Cell]
) -> str:
    """Returns the table: published, ours, every seed, gap, wall time; and where it comes from.

    Where there are several columns, an overview comes first: ours, and the published number in brackets.
    """
    lines = [f"# {table.title}", "", table.claim, ""]
    columns = list(dict.fromkeys(cell.row.column for cell in cells))
    if len(columns) > 1:
        lines += [*_overview(table, cells, columns), ""]
    for column in columns:
        head = [column, "published", "ours", *(f"seed {seed}" for seed in range(table.seeds)), "gap", "wall time"]
        lines += [_line(head), _line(["---"] * len(head))]
        lines += [_row_line(table, cell) for cell in cells if cell.row.column == column]
        lines.append("")
    ours = {
        "mean": "mean ± standard deviation over the seeds that finished",
        "best": "the best seed, ± the standard deviation over those that finished",
        "median": "median ± median absolute deviation over the seeds that finished",
    }[table.statistic]
    lines.append(f"`{table.metric}`; ours: {table.selection.checkpoint} parameters, test stream, {ours}.")
    if len(list_points(table, scale)) > 1:
        chosen = "; ".join(f"{_name(cell)}: {_describe(cell.point)}{_part(cell)}" for cell in cells)
        grid = " | ".join(_describe(point) for point in list_points(table, scale))
        lines.append(f"Chosen from {grid} by the {table.selection.by} validation `{table.metric}`: {chosen}.")
    ran = [run for run, record in zip(runs, records, strict=True) if record is not None and record["status"] != "stale"]
    lines += [f"Scale {scale}: {_describe_setting(ran or runs)}.", f"Published: {table.source}", *table.notes]
    lines += _origin_lines(runs, records, cells)
    return "\n".join(lines) + "\n"


def render_csv(table: Table, runs: Sequence[Run], records: Sequence[Record | None]) -> str:
    """Returns one line per run."""
    origin = ("wall_time_s", "trained_together", "config_hash", "git_commit", "device")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["column", "row", "published", "point", "seed", "status", table.metric, *origin])
    for run, record in zip(runs, records, strict=True):
        record = record or {"status": "missing"}
        value = score(table, record)
        place = [run.row.column, run.row.name, run.row.published, _describe(run.point), run.seed, record["status"]]
        writer.writerow([*place, "" if value is None else value, *(record.get(key, "") for key in origin)])
    return out.getvalue()


def draw_plot(table: Table, runs: Sequence[Run], cells: Sequence[Cell], path: Path) -> None:
    """Draws every seed on its own: with one column the metric over training and over length, else a panel per column.

    Over length, a dashed line stands at the longest training sequence. A column of which nothing has been run has no panel.
    """
    from matplotlib.figure import Figure

    columns = list(dict.fromkeys(cell.row.column for cell in cells))
    drawn = [column for column in columns if any(cell.row.column == column and _seeds([cell]) for cell in cells)] or columns
    panels = 2 if len(columns) == 1 else len(drawn)
    across = min(panels, 4)
    down = math.ceil(panels / across)
    figure = Figure(figsize=(4.2 * across + 1.8, 3.2 * down + 0.3), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for unused in axes[panels:]:
        unused.set_visible(False)
    if len(columns) == 1:
        _draw_training(table, axes[0], cells)
        _draw_lengths(table, axes[1], runs, cells, title="test" if table.positions else "test (dotted: published)")
    else:
        for panel, column in zip(axes, drawn, strict=False):
            own = [cell for cell in cells if cell.row.column == column]
            _draw_lengths(table, panel, [run for run in runs if run.row.column == column], own, title=column)
    for panel in axes[:panels]:
        panel.grid(alpha=0.3)
        if table.metric.partition("/")[0].endswith("accuracy"):
            panel.set_ylim(-0.1, 1.05)
    lines = {label: line for panel in axes for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    if lines:
        where: dict[str, Any] = {"loc": "outside right center", "title": table.legend or None}
        figure.legend(list(lines.values()), list(lines), frameon=False, fontsize="small", **where)
    figure.suptitle(table.title, fontsize=10)
    # no version or date inside, so that the same records give the same file
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _draw_training(table: Table, axes: Any, cells: Sequence[Cell]) -> None:
    for style, record in _seeds(cells):
        axes.plot(*zip(*record["curve"], strict=True), **style)
    axes.set(xlabel="training step", ylabel=_words(table.metric), title="validation")


def _draw_lengths(table: Table, axes: Any, runs: Sequence[Run], cells: Sequence[Cell], *, title: str) -> None:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    for longest in {run.config.train.length[1] for run in runs}:
        axes.axvline(longest, color="black", linestyle="--", linewidth=0.7, label="longest in training")
    for style, record in _seeds(cells):
        points = _by_length(table, record)
        axes.plot(*zip(*points, strict=True), **style, **({} if table.positions else {"marker": "o", "markersize": 3}))
    if not table.positions:
        for i, cell in enumerate(cells):
            if cell.row.published is not None and _seeds([cell]):
                axes.axhline(cell.row.published, color=f"C{i}", linestyle=":", linewidth=1)
    shown, across = (table.positions, "position") if table.positions else (table.metric, "longest sequence of the bucket")
    if table.positions.endswith(DOUBLING):
        across = "tokens before, at least"
    axes.set(xlabel=across, ylabel=_words(shown.partition("/")[0]), xscale="log", title=title)
    shortest, longest = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if longest < 100 * shortest else (1,)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _seeds(cells: Sequence[Cell]) -> list[tuple[dict[str, Any], Record]]:
    """Every finished run behind the cells with its line's style: a colour per row, one label."""
    lines = []
    for i, cell in enumerate(cells):
        label: str | None = cell.row.name
        for record, value in zip(cell.chosen, cell.scores, strict=True):
            if record and value is not None:
                lines.append(({"color": f"C{i}", "alpha": 0.8, "label": label}, record))
                label = None
    return lines


def _by_length(table: Table, record: Record) -> list[tuple[float, float]]:
    part = tested_part(table, record)
    assert part is not None
    if table.positions:
        return [(2 ** (t - 1) if table.positions.endswith(DOUBLING) else t, value) for t, value in part["positions"]]
    prefix = f"{table.metric}/"
    buckets = [(name.removeprefix(prefix), value) for name, value in part["metrics"].items() if name.startswith(prefix)]
    return sorted((int(bucket.partition("-")[2]), value) for bucket, value in buckets)


def _overview(table: Table, cells: Sequence[Cell], columns: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(cell.row.name for cell in cells))
    lines = [_line(["ours (published)", *columns]), _line(["---"] * (len(columns) + 1))]
    found = {(cell.row.name, cell.row.column): cell for cell in cells}
    for name in names:
        texts = []
        for column in columns:
            cell = found.get((name, column))
            published = "" if cell is None or cell.row.published is None else f" ({cell.row.published:.3f})"
            texts.append("" if cell is None else _ours(table, cell).partition(" ±")[0] + published)
        lines.append(_line([name, *texts]))
    return lines


def _row_line(table: Table, cell: Cell) -> str:
    summary, published = summarise(table, cell.scores), cell.row.published
    return _line(
        [
            cell.row.name,
            "" if published is None else f"{published:.3f}",
            _ours(table, cell),
            *(_seed_text(record, value) for record, value in zip(cell.chosen, cell.scores, strict=True)),
            "" if summary is None or published is None else f"{summary[0] - published:+.3f}",
            "" if cell.seconds is None else f"{cell.seconds:.0f} s",
        ]
    )


def _ours(table: Table, cell: Cell) -> str:
    summary = summarise(table, cell.scores)
    if summary is None:
        statuses = [_seed_text(record, None) for record in cell.chosen]
        return "failed" if "missing" not in statuses and "stale" not in statuses else "missing"
    good = sum(value is not None for value in cell.scores)
    spread = f" ± {summary[1]:.3f}" if good > 1 else ""
    return f"{summary[0]:.3f}{spread}" + (f" ({good} of {len(cell.scores)})" if good < len(cell.scores) else "")


def _seed_text(record: Record | None, value: float | None) -> str:
    if record is None:
        return "missing"
    if value is None:
        return "not finite" if record["status"] == "finished" else record["status"]
    return f"{value:.3f}"


def _part(cell: Cell) -> str:
    return f" (of {cell.ended} of {cell.runs} runs)" if cell.ended < cell.runs else ""


def _name(cell: Cell) -> str:
    return f"{cell.row.column} {cell.row.name}".strip()


def _describe(point: Point) -> str:
    return ", ".join(f"{field}={value}" for field, value in point.items())


def _describe_setting(runs: Sequence[Run]) -> str:
    """What was trained, for a reader who compares it with the paper's setting."""
    fields = ("train.duration", "train.batch_size", "train.length", "optim.lr", "model.width", "model.depth")
    values = {field: [run.config[field.partition(".")[0]][field.partition(".")[2]] for run in runs] for field in fields}
    values["tested on lengths"] = [_headline_lengths(run.config.eval) for run in runs]
    values["examples of each"] = [run.config.eval.examples for run in runs]
    return ", ".join(f"{name} {' or '.join(sorted({str(value) for value in of}))}" for name, of in values.items())


def _headline_lengths(settings: ConfigDict) -> str:
    """The buckets whose mean, weighted by the lengths that they span, is the number in the table."""
    low, high = settings.headline
    spans = [
        f"{first}" if first == last else f"{first}-{last}" for first, last in settings.lengths if low <= first <= last <= high
    ]
    return " + ".join(spans)


def _origin_lines(runs: Sequence[Run], records: Sequence[Record | None], cells: Sequence[Cell]) -> list[str]:
    there = [record for record in records if record and record["status"] != "stale"]

    def distinct(key: str) -> str:
        return ", ".join(sorted({str(record.get(key)) for record in there})) or "none"

    versions = [f"{name} {', '.join(sorted({record['versions'][name] for record in there}))}" for name in ("jax", "python")]
    pairs = list(zip(runs, records, strict=True))
    names = [(f"{run.row.column} {run.row.name} seed {run.seed}".strip(), record) for run, record in pairs]
    total = sum(cell.seconds or 0.0 for cell in cells)
    return [
        f"Commit {distinct('git_commit')}; {'; '.join(versions if there else ['nothing has run'])}; {distinct('device')}.",
        f"Wall time of all runs: {total / 60:.1f} min.",
        *(f"Failed: {name}: {record['reason']}" for name, record in names if record and record["status"] == "failed"),
    ]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
