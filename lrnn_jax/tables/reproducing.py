"""From a table's declaration to its rendering: trains the runs that are missing, keeps one record of each."""

import fnmatch
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lrnn_jax.config.files import data_folder
from lrnn_jax.errors import UserError, suggest
from lrnn_jax.runs.folder import RunFolder, write_json
from lrnn_jax.runs.results import Result
from lrnn_jax.runs.store import default_workdir, locked_store, read_status
from lrnn_jax.sweeps.executors import check_executor, execute
from lrnn_jax.sweeps.ray_executor import check_cluster
from lrnn_jax.tables.declaring import Run, Table, list_runs, load_table, read_records, record_name
from lrnn_jax.tables.rendering import render
from lrnn_jax.training.program import make_program

POSITIONS = 60  # points of a plotted curve by position


def reproduce(
    name: str,
    *,
    scale: str,
    workdir: Path,
    results: str | None = None,
    executor: str = "vmap",
    cells: Sequence[str] = (),
    retry_failed: bool = False,
    only_missing: bool = False,
    only_render: bool = False,
    ray_address: str | None = None,
    workers: int | None = None,
) -> tuple[str, int]:
    """Trains what ``experiments/<name>.py`` needs at ``scale`` and renders it.

    Args:
      name: the table.
      scale: one of the table's scales.
      workdir: folder of the runs; finished ones are not run again.
      results: folder of the records and renderings; ``experiments/results`` if None.
      executor: one of `lrnn_jax.sweeps.executors.EXECUTORS`.
      cells: rows to train, ROW or COLUMN/ROW, with wildcards; all if empty.
      retry_failed: tries failed runs again.
      only_missing: trains only runs that have no record, as where records came from another machine or session.
      only_render: trains nothing and reads no run, only the records.
      ray_address: as in `execute`.
      workers: as there.

    Returns:
      The table as Markdown, and how many of its runs failed.

    Raises:
      UserError: no such table, scale or cell, or a config that cannot run.
    """
    check_executor(executor)
    table = load_table(name)
    runs = _choose_cells(list_runs(table, scale), cells)
    folder = (Path(results) if results else _results_folder()) / name / scale
    if only_render:
        if not any(folder.glob("*.json")):
            raise UserError(f"{folder} holds no records to render")
        return f"{render(table, scale, folder)}\nrendered in {folder}", 0
    _check_writable(folder)
    if only_missing:
        records = read_records(runs, folder)
        runs = [run for run, record in zip(runs, records, strict=True) if not record or record["status"] == "stale"]
    if executor == "ray":
        check_cluster(ray_address)
    due = [run for run in runs if read_status(run.config, workdir) != "finished"]
    for run in {(run.row.column, run.row.name): run for run in due}.values():
        make_program(run.config)  # refuses what cannot be trained, absent data too, before hours go into other rows
    failed, text = 0, ""
    with locked_store(workdir):
        # row by row, so that what is there can be looked at while the rest is trained
        for row in dict.fromkeys((run.row.column, run.row.name) for run in runs):
            own = [run for run in runs if (run.row.column, run.row.name) == row]
            found = execute(
                [run.config for run in own],
                workdir,
                executor=executor,
                retry_failed=retry_failed,
                ray_address=ray_address,
                workers=workers,
            )
            failed += sum(result is None or result["status"] != "finished" for result in found)
            for run, result in zip(own, found, strict=True):
                if result:
                    write_json(folder / record_name(run), _record(table, run, result, workdir))
            if any(found):
                text = render(table, scale, folder)
    if not text:
        folder.mkdir(parents=True, exist_ok=True)
        text = render(table, scale, folder)
    return f"{text}\nwritten to {folder}: table.md, table.csv, plot.png", failed


def _check_writable(folder: Path) -> None:
    """Before anything is trained, since it would be found out only hours later; makes nothing yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"cannot write results in {folder}: {there} is not a folder that can be written")


def _choose_cells(runs: Sequence[Run], cells: Sequence[str]) -> list[Run]:
    names = list(dict.fromkeys(_cell_name(run) for run in runs))
    for cell in cells:
        if not any(_matches(name, cell) for name in names):
            raise UserError(f"--cells={cell!r} is not one of {', '.join(names)}{suggest(cell, names)}")
    return [run for run in runs if not cells or any(_matches(_cell_name(run), cell) for cell in cells)]


def _cell_name(run: Run) -> str:
    return f"{run.row.column}/{run.row.name}" if run.row.column else run.row.name


def _matches(name: str, cell: str) -> bool:
    """Brackets are common in the names of rows, so only * and ? are wildcards."""
    return fnmatch.fnmatchcase(name, cell.replace("[", "[[]"))


def _results_folder() -> Path:
    """In a checkout the results stand beside the experiments; an installed wheel writes where it is called."""
    experiments = data_folder("experiments")
    return experiments / "results" if (experiments.parent / "pyproject.toml").exists() else Path("experiments/results")


def _record(table: Table, run: Run, result: Result, store: Path) -> dict[str, Any]:
    lines = RunFolder(default_workdir(run.config, store)).parse_metrics()
    curve = [[line["step"], line[table.metric]] for line in lines if line["split"] == "validation" and table.metric in line]
    place = {"column": run.row.column, "row": run.row.name, "point": dict(run.point), "curve": curve}
    best = result.get("best") and _thin_curves(table, result["best"])
    return {**place, **_thin_curves(table, result), **({"best": best} if "best" in result else {})}


def _thin_curves(table: Table, part: Any) -> dict[str, Any]:
    """Keeps of the curves by position what the table plots, of the longest bucket at some positions: records are small."""
    kept = {name: value for name, value in part.items() if name != "curves"}
    named = {name.partition("/"): curve for name, curve in part.get("curves", {}).items()}
    own = {int(bucket.partition("-")[2]): curve for (name, _, bucket), curve in named.items() if name == table.positions}
    values = own[max(own)] if own else []
    there = [t for t, value in enumerate(values) if value is not None]
    shown = sorted({there[round(i * (len(there) - 1) / (POSITIONS - 1))] for i in range(POSITIONS)}) if there else []
    return {**kept, "positions": [[t + 1, round(values[t], 6)] for t in shown]} if shown else kept
