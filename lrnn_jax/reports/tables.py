"""A paper's table or figure: what it declares, and how it is rendered from the files of its runs alone."""

import csv
import dataclasses
import importlib.util
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrnn_jax.config import data_folder
from lrnn_jax.errors import UserError, suggest

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """One published number and the runs that stand beside it.

    Attributes:
      name: what the paper calls the row.
      config: ``FILE:ARG`` of our runs; the scale and the seed are added.
      published: the paper's number; None where it gives none.
    """

    name: str
    config: str
    published: float | None


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
    """

    title: str
    source: str
    claim: str
    metric: str
    rows: tuple[Row, ...]
    seeds: int
    scales: tuple[str, ...] = ("smoke", "cpu", "paper")


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


def record_name(table: Table, row: Row, seed: int) -> str:
    """Returns the file name of one run's record."""
    return f"row{table.rows.index(row)}-seed{seed}.json"


def render(table: Table, folder: Path) -> str:
    """Writes ``table.md``, ``table.csv`` and ``plot.png`` from the records in ``folder`` and returns the Markdown."""
    records = {
        (row.name, seed): json.loads((folder / record_name(table, row, seed)).read_text())
        for row in table.rows
        for seed in range(table.seeds)
        if (folder / record_name(table, row, seed)).exists()
    }
    markdown = render_markdown(table, records)
    (folder / "table.md").write_text(markdown)
    (folder / "table.csv").write_text(render_csv(table, records))
    draw_plot(table, records, folder / "plot.png")
    return markdown


def score(table: Table, record: Record | None) -> float | None:
    """Returns a run's number: its last checkpoint on the test stream; None where it is missing or failed."""
    return record["metrics"][table.metric] if record and record["status"] == "finished" else None


def render_markdown(table: Table, records: Mapping[tuple[str, int], Record]) -> str:
    """Returns the table: published, ours mean and deviation, every seed, gap, wall time; and where it comes from."""
    head = ["", "published", "ours", *(f"seed {seed}" for seed in range(table.seeds)), "gap", "wall time"]
    lines = [f"# {table.title}", "", f"{table.claim}", "", _cells(head), _cells(["---"] * len(head))]
    for row in table.rows:
        ours = [records.get((row.name, seed)) for seed in range(table.seeds)]
        scores = [score(table, record) for record in ours]
        good = [value for value in scores if value is not None]
        mean = statistics.fmean(good) if good else None
        spread = f" ± {statistics.stdev(good):.3f}" if len(good) > 1 else ""
        gap = f"{mean - row.published:+.3f}" if mean is not None and row.published is not None else ""
        wall = sum(record.get("wall_time_s", 0.0) for record in ours if record)
        lines.append(
            _cells(
                [
                    row.name,
                    "" if row.published is None else f"{row.published:.3f}",
                    "missing" if mean is None else f"{mean:.3f}{spread}",
                    *(_seed_cell(record, value) for record, value in zip(ours, scores, strict=True)),
                    gap,
                    f"{wall:.0f} s",
                ]
            )
        )
    lines += [
        "",
        f"`{table.metric}`; ours: last checkpoint, test stream, mean ± standard deviation over the seeds that finished.",
        f"Published: {table.source}",
        *_origin_lines(records),
    ]
    return "\n".join(lines) + "\n"


def render_csv(table: Table, records: Mapping[tuple[str, int], Record]) -> str:
    """Returns one line per run."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "published", "seed", "status", table.metric, "wall_time_s", "config_hash", "git_commit", "device"])
    for row in table.rows:
        for seed in range(table.seeds):
            record = records.get((row.name, seed), {"status": "missing"})
            origin = [record.get(key, "") for key in ("wall_time_s", "config_hash", "git_commit", "device")]
            value = score(table, record)
            writer.writerow([row.name, row.published, seed, record["status"], "" if value is None else value, *origin])
    return out.getvalue()


def draw_plot(table: Table, records: Mapping[tuple[str, int], Record], path: Path) -> None:
    """Draws the metric over training (validation) and over sequence length (test), every seed on its own."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    over_steps, over_length = figure.subplots(1, 2)
    for i, row in enumerate(table.rows):
        for seed in range(table.seeds):
            record = records.get((row.name, seed))
            if not record or record["status"] != "finished":
                continue
            style = {"color": f"C{i}", "alpha": 0.8, "label": row.name if seed == 0 else None}
            over_steps.plot(*zip(*record["curve"], strict=True), **style)
            lengths = sorted(_bucket_scores(table, record))
            over_length.plot(*zip(*lengths, strict=True), marker="o", markersize=3, **style)
        if row.published is not None:
            over_length.axhline(row.published, color=f"C{i}", linestyle=":", linewidth=1)
    over_steps.set(xlabel="training step", ylabel=table.metric.replace("_", " "), title="validation", ylim=(-0.1, 1.05))
    over_length.set(xlabel="longest sequence of the bucket", xscale="log", title="test (dotted: published)", ylim=(-0.1, 1.05))
    for axes in (over_steps, over_length):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(title="eigenvalues" if "eigenvalue" in table.title else None, frameon=False)
    figure.suptitle(table.title, fontsize=10)
    # no version or date inside, so that the same records give the same file
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _bucket_scores(table: Table, record: Record) -> list[tuple[int, float]]:
    prefix = f"{table.metric}/"
    return [
        (int(name.removeprefix(prefix).partition("-")[2]), value)
        for name, value in record["metrics"].items()
        if name.startswith(prefix)
    ]


def _seed_cell(record: Record | None, value: float | None) -> str:
    if record is None:
        return "missing"
    return "failed" if value is None else f"{value:.3f}"


def _origin_lines(records: Mapping[tuple[str, int], Record]) -> list[str]:
    def distinct(key: str) -> str:
        return ", ".join(sorted({str(record.get(key)) for record in records.values()})) or "none"

    versions = {record["versions"]["jax"] for record in records.values()}
    failed = [f"{name} seed {seed}: {r['reason']}" for (name, seed), r in records.items() if r["status"] == "failed"]
    return [
        f"Commit {distinct('git_commit')}; jax {', '.join(sorted(versions)) or 'none'}; {distinct('device')}.",
        *(f"Failed: {line}" for line in failed),
    ]


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
