"""Tables as Markdown and CSV, from the records of their runs alone."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lrnn_jax.config.fields import flatten
from lrnn_jax.errors import UserError
from lrnn_jax.runs.files import write_together
from lrnn_jax.tables.cells import Cell, FilledTable, fill_table, mean_cells, score
from lrnn_jax.tables.declaring import Point, Published, Table
from lrnn_jax.tables.plots import draw_plot
from lrnn_jax.tables.records import Record

_MARKS = {"read": "", "second-hand": " (second-hand)", "unknown": " (origin unknown)"}


def render(table: Table, setting: str, records: Path, folder: Path, formats: Sequence[str] = ("png",)) -> str:
    """Writes ``table.md``, ``table.csv`` and the plot into ``folder`` from the records in another; returns the Markdown."""
    filled = fill_table(table, setting, records)
    markdown = render_markdown(filled)
    heads = {name: "\n".join(filter(None, (name, _trained_on(said)))) for name, said in compare_with_paper(filled).items()}
    writers: dict[str, Callable[[Path], object]] = {
        "table.md": lambda path: path.write_text(markdown, encoding="utf-8"),
        "table.csv": lambda path: path.write_text(render_csv(filled), encoding="utf-8"),
        **{f"plot.{ending}": lambda path: draw_plot(filled, heads, path) for ending in formats},
    }
    try:
        write_together(folder, writers)
    except OSError as error:
        raise UserError(f"cannot write the table in {folder}: {error.strerror}") from error
    return markdown


def compare_with_paper(filled: FilledTable) -> dict[str, dict[str, str]]:
    """Returns for each column in what its task and lengths differ from the paper's setting: what -> in words."""
    found: dict[str, dict[str, str]] = {}
    for column in filled.columns:
        ours, theirs = (
            [_protocol(run.config) for run in runs if run.column.name == column] for runs in (filled.runs, filled.papers)
        )
        names = dict.fromkeys(name for fields in ours for name in fields)
        both = {name: [_join(fields.get(name, "none") for fields in own) for own in (ours, theirs)] for name in names}
        found[column] = {
            name: f"{name} {here} ({filled.table.paper}: {there})"
            for name, (here, there) in both.items()
            if theirs and here != there
        }
    return found


def render_markdown(filled: FilledTable) -> str:
    """Returns the table: published, ours, every seed, gap, wall time; and where it comes from.

    Where there are several columns, an overview comes first: ours, and the published number in brackets. A column's head says
    in what its task and lengths differ from the paper's.
    """
    table, cells = filled.table, filled.cells
    lines = [f"# {table.title}", "", table.claim, ""]
    heads = {
        name: ": ".join(filter(None, (name, ", ".join(said.values())))) for name, said in compare_with_paper(filled).items()
    }
    if len(heads) > 1:
        lines += [*_overview(filled, heads), ""]
    for name, head in heads.items():
        sizes = ["parameters of a layer", "its state"] if table.over_sizes else []
        words = [head, *sizes, "published", "ours", *(f"seed {seed}" for seed in range(table.seeds)), "gap", "wall time"]
        lines += [_line(words), _line(["---"] * len(words))]
        own = [cell for cell in cells if cell.column.name == name]
        lines += [*(_row_line(cell) for cell in own), ""]
        lines += [own[0].column.note, ""] if own[0].column.note else []
    lines += [*describe_cells(filled), f"Published: {table.source}", *table.notes, *_origin_lines(filled)]
    return "\n".join(lines) + "\n"


def render_csv(filled: FilledTable) -> str:
    """Returns one line per run."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    paper = ["published", "spread", "unit", "place", "standing"]
    origin = ["wall_time_s", "trained_together", "run", "git_commit", "device"]
    writer.writerow(["column", "row", *paper, "point", "seed", "status", filled.table.metric, *origin])
    for run, record in zip(filled.runs, filled.records, strict=True):
        number = run.row.published.get(run.column.name)
        said = [number.value, number.spread, number.unit, number.place, number.standing] if number else [""] * len(paper)
        place = [run.column.name, run.row.name, *said, _describe(run.point), run.seed]
        if record is None:
            writer.writerow([*place, "missing", *[""] * (1 + len(origin))])
            continue
        origins = [record.wall_time_s, record.trained_together, record.name, record.git_commit, record.device]
        writer.writerow([*place, record.status, score(filled.table, record), *origins])
    return out.getvalue()


def _overview(filled: FilledTable, heads: Mapping[str, str]) -> list[str]:
    table, cells = filled.table, filled.cells
    means = {cell.row.name: cell.summary[0] for cell in mean_cells(filled) if cell.summary}
    words = ["ours (published)", *heads.values(), *(["mean"] if table.total else [])]
    lines = [_line(words), _line(["---"] * len(words))]
    found = {(cell.row.name, cell.column.name): cell for cell in cells}
    for row in dict.fromkeys(cell.row.name for cell in cells):
        texts = []
        for name in heads:
            cell = found.get((row, name))
            number = "" if cell is None or cell.published is None else f" ({format_published(cell.published, spread=False)})"
            texts.append("" if cell is None else format_ours(cell).partition(" ±")[0] + number)
        if table.total:
            texts.append(f"{means[row]:.3f}" if row in means else "missing")
        lines.append(_line([row, *texts]))
    return lines


def _row_line(cell: Cell) -> str:
    gap = find_gap(cell)
    return _line(
        [
            cell.row.name,
            *(str(size) for size in cell.sizes or ()),
            format_published(cell.published, spread=True),
            format_ours(cell),
            *(format_seed(record, value) for record, value in zip(cell.chosen, cell.scores, strict=True)),
            "" if gap is None else f"{gap:+.3f}",
            "" if cell.seconds is None else f"{cell.seconds:.0f} s",
        ]
    )


def find_gap(cell: Cell) -> float | None:
    """Returns ours less the published number; None where one is missing, or they are of different units."""
    if cell.summary is None or cell.published is None or cell.published.unit:
        return None
    return cell.summary[0] - cell.published.value


def format_published(number: Published | None, *, spread: bool) -> str:
    """Returns the paper's number with its unit and standing, and its spread if asked; nothing where there is none."""
    if number is None:
        return ""
    deviation = f" ± {number.spread:.3f}" if spread and number.spread is not None else ""
    return f"{number.value:.3f}{deviation}{f' {number.unit}' if number.unit else ''}{_MARKS[number.standing]}"


def format_ours(cell: Cell) -> str:
    """Returns the seeds' statistic, its spread, and how many seeds it is of if not all; or why there is none."""
    summary = cell.summary
    if summary is None:
        statuses = {format_seed(record, None) for record in cell.chosen}
        return next((said for said in ("missing", "stale") if said in statuses), "failed")
    good = sum(value is not None for value in cell.scores)
    spread = f" ± {summary[1]:.3f}" if good > 1 else ""
    return f"{summary[0]:.3f}{spread}" + (f" ({good} of {len(cell.scores)})" if good < len(cell.scores) else "")


def format_seed(record: Record | None, value: float | None) -> str:
    """Returns one seed's number, or why there is none."""
    if record is None:
        return "missing"
    if value is None:
        return "not finite" if record.status == "finished" else record.status
    return f"{value:.3f}"


def describe_cells(filled: FilledTable) -> list[str]:
    """Returns sentences on what the numbers are, how they were chosen, and what was trained."""
    return [_describe_numbers(filled.table), *_describe_choice(filled), _describe_setting(filled)]


def _part(cell: Cell) -> str:
    return f" (of {cell.ended} of {cell.runs} runs)" if cell.ended < cell.runs else ""


def _name(cell: Cell) -> str:
    return f"{cell.column.name} {cell.row.name}".strip()


def _describe(point: Point) -> str:
    return ", ".join(f"{field}={value}" for field, value in point.items())


def _trained_on(differences: Mapping[str, str]) -> str:
    """The plot says this of a column's head; the rest stands on its axes."""
    return differences.get("trained on lengths", "")


def _describe_numbers(table: Table) -> str:
    ours = {
        "mean": "mean ± standard deviation over the seeds that finished",
        "best": "the best seed, ± the standard deviation over those that finished",
        "median": "median ± median absolute deviation over the seeds that finished",
    }[table.statistic]
    return f"`{table.metric}`; ours: {table.selection.checkpoint} parameters, test stream, {ours}."


def _describe_choice(filled: FilledTable) -> list[str]:
    table, points = filled.table, filled.table.selection.points(filled.setting)
    if len(points) == 1:
        return []
    chosen = "; ".join(f"{_name(cell)}: {_describe(cell.point)}{_part(cell)}" for cell in filled.cells)
    grid = " | ".join(_describe(point) for point in points)
    return [f"Chosen from {grid} by the {table.selection.by} validation `{table.metric}`: {chosen}."]


def _protocol(config: ConfigDict) -> dict[str, str]:
    """What a number is of: the task's fields, and the lengths of the training and of the test."""
    lengths = {"trained on lengths": _spans([config.train.length]), "tested on lengths": _headline_lengths(config.eval)}
    return {**{f"task.{path}": str(value) for path, value in flatten(config.task)}, **lengths}


def _describe_setting(filled: FilledTable) -> str:
    """What was trained, of what has been run; in brackets what the paper's setting has instead, for the same cells."""
    pairs = zip(filled.runs, filled.records, strict=True)
    runs = [run for run, record in pairs if record and record.status != "stale"] or filled.runs
    cells = {(run.column.name, run.row.name) for run in runs}
    theirs = [run for run in filled.papers if (run.column.name, run.row.name) in cells]
    said = []
    for name, value in _BUDGET.items():
        here, there = (_join(str(value(run.config)) for run in of) for of in (runs, theirs))
        said.append(f"{name} {here}" + (f" ({filled.table.paper}: {there})" if theirs and here != there else ""))
    return f"Setting {filled.setting}: {', '.join(said)}."


def _spans(buckets: Sequence[Sequence[int]]) -> str:
    """Ranges of lengths as text, those that follow on each other as one."""
    joined: list[list[int]] = []
    for first, last in buckets:
        if joined and joined[-1][1] + 1 == first:
            joined[-1][1] = last
        else:
            joined.append([first, last])
    return " + ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in joined)


def _headline_lengths(settings: ConfigDict) -> str:
    """Returns the buckets whose mean, weighted by the lengths that they span, is the number in the table."""
    low, high = settings.headline
    return _spans([[first, last] for first, last in settings.lengths if low <= first <= last <= high])


# What a setting is described by.
_BUDGET: dict[str, Callable[[ConfigDict], Any]] = {
    "train.duration": lambda c: c.train.duration,
    "train.batch_size": lambda c: c.train.batch_size,
    "train.length": lambda c: c.train.length,
    "optim.lr": lambda c: c.optim.lr,
    "model.width": lambda c: c.model.width,
    "model.depth": lambda c: c.model.depth,
    "tested on lengths": lambda c: _headline_lengths(c.eval),
    "examples of each": lambda c: c.eval.examples,
}


def _join(values: Iterable[str]) -> str:
    return " or ".join(sorted(set(values)))


def _origin_lines(filled: FilledTable) -> list[str]:
    there = [record for record in filled.records if record and record.status != "stale"]
    versions = [f"{name} {_list(record.versions[name] for record in there)}" for name in ("jax", "python")]
    pairs = list(zip(filled.runs, filled.records, strict=True))
    names = [(f"{run.column.name} {run.row.name} seed {run.seed}".strip(), record) for run, record in pairs]
    total = sum(cell.seconds or 0.0 for cell in filled.cells)
    devices, commits = _list(record.device for record in there), _list(str(record.git_commit) for record in there)
    return [
        f"Commit {commits}; {'; '.join(versions if there else ['nothing has run'])}; {devices}.",
        f"Wall time of all runs: {total / 60:.1f} min.",
        *(f"Failed: {name}: {record.reason}" for name, record in names if record and record.status == "failed"),
    ]


def _list(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values))) or "none"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
