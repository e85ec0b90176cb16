"""A paper's table or figure: what it declares, and how it is rendered from the files of its runs alone."""

import csv
import dataclasses
import importlib.util
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lrnn_jax.config import config_hash, less_is_better, set_field
from lrnn_jax.config_files import data_folder, load_own_config
from lrnn_jax.errors import UserError, suggest

Record = dict[str, Any]
Point = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """One published number and the runs that stand beside it.

    Attributes:
      name: what the paper calls the row.
      config: ``FILE:ARG`` of our runs; the scale and the seed are added.
      published: the paper's number; None where it gives none.
      place: where the number stands in the paper.
      grid: points of config fields to choose from by the table's selection; one empty point where there is no choice.
    """

    name: str
    config: str
    published: float | None
    place: str = ""
    grid: Sequence[Point] = ({},)


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which parameters are tested. The point of a row's grid is chosen by the same parameters' mean validation metric.

    Attributes:
      checkpoint: "last" or "best" (by the config's ``eval.best_metric``) parameters of each run.
    """

    checkpoint: str = "last"


@dataclasses.dataclass(frozen=True)
class Table:
    """What a file in ``experiments/`` declares as ``TABLE``.

    Attributes:
      title: one line.
      source: where the published numbers stand, and how they were read.
      claim: what the paper says that they show.
      metric: name in ``result.json``; also the validation metric of the curves.
      rows: the rows.
      seeds: seeds per row, 0..seeds-1.
      scales: scales that the rows' configs have.
      selection: how a point of each row's grid is chosen.
      legend: what the rows are, over the plot's legend.
    """

    title: str
    source: str
    claim: str
    metric: str
    rows: tuple[Row, ...]
    seeds: int
    scales: tuple[str, ...] = ("smoke", "cpu", "paper")
    selection: Selection = Selection()
    legend: str = ""


class Run(NamedTuple):
    """One run behind a cell.

    Attributes:
      row: whose it is.
      point: of the row's grid.
      seed: of the run.
      config: resolved.
    """

    row: Row
    point: Point
    seed: int
    config: ConfigDict


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
        for point in row.grid:
            for seed in range(table.seeds):
                config = load_own_config(f"{row.config},scale={scale}")
                for field, value in {**point, "seed": seed}.items():
                    set_field(config, field, value)
                runs.append(Run(row, dict(point), seed, config))
    return runs


def record_name(run: Run) -> str:
    """Returns the file name of one run's record."""
    return f"{config_hash(run.config)}.json"


def render(table: Table, scale: str, folder: Path) -> str:
    """Writes ``table.md``, ``table.csv`` and ``plot.png`` from the records in ``folder`` and returns the Markdown."""
    runs = list_runs(table, scale)
    records = read_records(runs, folder)
    markdown = render_markdown(table, scale, runs, records)
    (folder / "table.md").write_text(markdown)
    (folder / "table.csv").write_text(render_csv(table, runs, records))
    draw_plot(table, runs, records, folder / "plot.png")
    return markdown


def read_records(runs: Sequence[Run], folder: Path) -> list[Record | None]:
    """Returns each run's record: None where it is missing, ``status`` "stale" where only an older config's is there.

    Raises:
      UserError: a record that is not JSON.
    """
    found: dict[str, Record] = {}
    for file in sorted(folder.glob("*.json")):
        try:
            found[file.name] = json.loads(file.read_text())
        except json.JSONDecodeError as error:
            raise UserError(f"{file} is not a record: {error}") from error
    stale = {(r.get("row"), json.dumps(r.get("point"), sort_keys=True), r.get("seed")) for r in found.values()}
    records: list[Record | None] = []
    for run in runs:
        record = found.get(record_name(run))
        if record is None and (run.row.name, json.dumps(run.point, sort_keys=True), run.seed) in stale:
            record = {"status": "stale"}
        records.append(record)
    return records


def score(table: Table, record: Record | None) -> float | None:
    """Returns a run's number by the table's selection; None where it is missing, stale or failed."""
    if not record or record["status"] != "finished":
        return None
    if table.selection.checkpoint == "best":
        return record["best"]["metrics"][table.metric] if record["best"] else None
    return record["metrics"][table.metric]


def choose_point(table: Table, row: Row, runs: Sequence[Run], records: Sequence[Record | None]) -> Point:
    """Returns the point of the row's grid with the best mean on the selection's split; failed runs count as the worst."""
    sign, worst = -1.0 if less_is_better(table.metric) else 1.0, -1e30

    def quality(point: Point) -> float:
        values = []
        for run, record in zip(runs, records, strict=True):
            if run.row is row and run.point == point:
                value = _validated(table, record)
                values.append(worst if value is None else sign * value)
        return statistics.fmean(values)

    return max(row.grid, key=quality)


def _validated(table: Table, record: Record | None) -> float | None:
    """The validation metric of the parameters that are reported."""
    if not record or record["status"] != "finished":
        return None
    curve = dict(map(tuple, record.get("curve", [])))
    step = record["best"]["step"] if table.selection.checkpoint == "best" and record["best"] else max(curve, default=None)
    return curve.get(step)


def render_markdown(table: Table, scale: str, runs: Sequence[Run], records: Sequence[Record | None]) -> str:
    """Returns the table: published, ours mean and deviation, every seed, gap, wall time; and where it comes from."""
    head = ["", "published", "ours", *(f"seed {seed}" for seed in range(table.seeds)), "gap", "wall time"]
    lines = [f"# {table.title}", "", f"{table.claim}", "", _cells(head), _cells(["---"] * len(head))]
    chosen = []
    for row in table.rows:
        point = choose_point(table, row, runs, records)
        ours = [r for run, r in zip(runs, records, strict=True) if run.row is row and run.point == dict(point)]
        everything = [r for run, r in zip(runs, records, strict=True) if run.row is row and r]
        scores = [score(table, record) for record in ours]
        good = [value for value in scores if value is not None]
        mean = statistics.fmean(good) if good else None
        spread = f" ± {statistics.stdev(good):.3f}" if len(good) > 1 else ""
        part = f" ({len(good)} of {len(ours)})" if good and len(good) < len(ours) else ""
        gap = f"{mean - row.published:+.3f}" if mean is not None and row.published is not None else ""
        wall = sum(record.get("wall_time_s", 0.0) / record.get("trained_together", 1) for record in everything)
        lines.append(
            _cells(
                [
                    row.name,
                    "" if row.published is None else f"{row.published:.3f}",
                    "missing" if mean is None else f"{mean:.3f}{spread}{part}",
                    *(_seed_cell(record, value) for record, value in zip(ours, scores, strict=True)),
                    gap,
                    f"{wall:.0f} s" if everything else "",
                ]
            )
        )
        if len(row.grid) > 1:
            chosen.append(f"{row.name}: {_describe(point)} of {len(row.grid)}")
    lines += [
        "",
        f"`{table.metric}`; ours: {table.selection.checkpoint} parameters, test stream, mean ± standard "
        "deviation over the seeds that finished.",
        *([f"Chosen by the mean validation `{table.metric}`: {'; '.join(chosen)}."] if chosen else []),
        f"Scale {scale}: {_describe_setting(runs)}.",
        f"Published: {table.source}",
        *_origin_lines(runs, records),
    ]
    return "\n".join(lines) + "\n"


def render_csv(table: Table, runs: Sequence[Run], records: Sequence[Record | None]) -> str:
    """Returns one line per run."""
    origin = ("wall_time_s", "trained_together", "config_hash", "git_commit", "device")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "published", "point", "seed", "status", table.metric, *origin])
    for run, record in zip(runs, records, strict=True):
        record = record or {"status": "missing"}
        value = score(table, record)
        place = [run.row.name, run.row.published, _describe(run.point), run.seed, record["status"]]
        writer.writerow([*place, "" if value is None else value, *(record.get(key, "") for key in origin)])
    return out.getvalue()


def draw_plot(table: Table, runs: Sequence[Run], records: Sequence[Record | None], path: Path) -> None:
    """Draws the metric over training (validation) and over sequence length (test), every seed on its own."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    over_steps, over_length = figure.subplots(1, 2)
    for i, row in enumerate(table.rows):
        point = dict(choose_point(table, row, runs, records))
        label: str | None = row.name
        for run, record in zip(runs, records, strict=True):
            if run.row is not row or run.point != point or not record or score(table, record) is None:
                continue
            style = {"color": f"C{i}", "alpha": 0.8, "label": label}
            label = None
            over_steps.plot(*zip(*record["curve"], strict=True), **style)
            over_length.plot(*zip(*_bucket_scores(table, record), strict=True), marker="o", markersize=3, **style)
        if row.published is not None:
            over_length.axhline(row.published, color=f"C{i}", linestyle=":", linewidth=1)
    over_steps.set(xlabel="training step", ylabel=table.metric.replace("_", " "), title="validation", ylim=(-0.1, 1.05))
    over_length.set(xlabel="longest sequence of the bucket", xscale="log", title="test (dotted: published)", ylim=(-0.1, 1.05))
    for axes in (over_steps, over_length):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(title=table.legend or None, frameon=False)
    figure.suptitle(table.title, fontsize=10)
    # no version or date inside, so that the same records give the same file
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _bucket_scores(table: Table, record: Record) -> list[tuple[int, float]]:
    prefix = f"{table.metric}/"
    metrics = record["best"]["metrics"] if table.selection.checkpoint == "best" else record["metrics"]
    return sorted(
        (int(name.removeprefix(prefix).partition("-")[2]), value) for name, value in metrics.items() if name.startswith(prefix)
    )


def _seed_cell(record: Record | None, value: float | None) -> str:
    if record is None:
        return "missing"
    return record["status"] if value is None else f"{value:.3f}"


def _describe(point: Point) -> str:
    return ", ".join(f"{field}={value}" for field, value in point.items())


def _describe_setting(runs: Sequence[Run]) -> str:
    """What was trained, for a reader who compares it with the paper's setting."""
    fields = ("train.duration", "train.batch_size", "optim.lr", "model.width", "model.depth")
    names = {}
    for field in fields:
        section, name = field.split(".")
        values = sorted({str(run.config[section][name]) for run in runs})
        names[field] = f"{field} {' or '.join(values)}"
    return ", ".join(names.values())


def _origin_lines(runs: Sequence[Run], records: Sequence[Record | None]) -> list[str]:
    there = [record for record in records if record and record["status"] != "stale"]

    def distinct(key: str) -> str:
        return ", ".join(sorted({str(record.get(key)) for record in there})) or "none"

    versions = {record["versions"]["jax"] for record in there}
    pairs = list(zip(runs, records, strict=True))
    failed = [f"{run.row.name} seed {run.seed}: {r['reason']}" for run, r in pairs if r and r["status"] == "failed"]
    return [
        f"Commit {distinct('git_commit')}; jax {', '.join(sorted(versions)) or 'none'}; {distinct('device')}.",
        *(f"Failed: {line}" for line in failed),
    ]


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
