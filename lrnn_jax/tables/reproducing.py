"""From a table's declaration to its rendering: trains the runs that are missing, keeps one record of each."""

import fnmatch
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lrnn_jax.config.checks import validate_config
from lrnn_jax.config.files import data_folder
from lrnn_jax.config.identity import config_hash
from lrnn_jax.errors import UserError, suggest
from lrnn_jax.runs.store import describe_changes, locked_store, read_status
from lrnn_jax.sweeps.executors import Name, Progress, check_executor, execute
from lrnn_jax.sweeps.packs import make_each
from lrnn_jax.sweeps.ray_executor import check_cluster
from lrnn_jax.sweeps.sweep import count_repeated, format_plan, plan
from lrnn_jax.tables.declaring import Run, Table, list_runs, load_experiment
from lrnn_jax.tables.plot_style import FORMATS
from lrnn_jax.tables.records import read_records, record_file, write_record
from lrnn_jax.tables.rendering import render
from lrnn_jax.tables.studies import Study, reproduce_study


class Results(NamedTuple):
    """Where a table's records are, and where it is drawn.

    Attributes:
      records: folder of the records of all runs, whichever tables need them.
      table: folder of ``table.md``, ``table.csv`` and ``plot.png``.
    """

    records: Path
    table: Path


def reproduce(
    name: str,
    *,
    setting: str,
    workdir: Path,
    results: str | None = None,
    layer: str = "",
    executor: str = "vmap",
    cells: Sequence[str] = (),
    formats: Sequence[str] = ("png",),
    retry_failed: bool = False,
    only_missing: bool = False,
    only_render: bool = False,
    only_plan: bool = False,
    ray_address: str | None = None,
    workers: int | None = None,
) -> tuple[str, int]:
    """Trains what ``experiments/<name>.py`` needs at ``setting`` and renders it; a study is computed.

    Args:
      name: the table or study.
      setting: one of the table's settings.
      workdir: folder of the runs; finished ones are not run again.
      results: folder of the records and renderings; ``experiments/results`` if None.
      layer: ``LAYER[/VARIANT]``, also ``module:Class[/VARIANT]``, that gets a row of its own in every column; drawn in a folder
        of its own, so that the paper's table stays as it is.
      executor: one of `lrnn_jax.sweeps.executors.EXECUTORS`.
      cells: cells to train, ROW or COLUMN/ROW, with wildcards; all if empty.
      formats: of the plot, of `lrnn_jax.tables.plot_style.FORMATS`.
      retry_failed: tries failed runs again.
      only_missing: trains only runs that have no record, as where records came from another machine or session.
      only_render: trains nothing and reads no run, only the records.
      only_plan: compiles and measures what would be trained, and trains nothing.
      ray_address: as in `execute`.
      workers: as there.

    Returns:
      The table as Markdown, or the plan; and how many of its runs failed.

    Raises:
      UserError: no such table, setting, layer or cell, or a config that cannot run.
    """
    check_executor(executor)
    for ending in formats:
        if ending not in FORMATS:
            raise UserError(f"--format={ending!r} is not one of {', '.join(FORMATS)}{suggest(ending, FORMATS)}")
    table = load_experiment(name, **({"layer": layer} if layer else {}))
    at = _results(results, name, setting, layer)
    if isinstance(table, Study):
        if layer or cells or only_plan or only_missing:
            raise UserError(f"{name} is a study: it has no runs, so --layer, --cells, --plan and --missing say nothing")
        _check_writable(at.table)
        text = reproduce_study(table, setting, at.table, formats=formats, only_render=only_render)
        return f"{text}\nwritten to {at.table}: record.json, {_written(formats)}", 0
    runs = _choose_cells(list_runs(table, setting), cells)
    if only_render:
        if not any(record_file(run, at.records).exists() for run in runs):
            raise UserError(f"{at.records} holds no records of {name} at setting {setting} to render")
        return f"{render(table, setting, at.records, at.table, formats)}\nrendered in {at.table}", 0
    if only_missing:
        records = read_records(runs, at.records)
        runs = [run for run, record in zip(runs, records, strict=True) if not record or record.status == "stale"]
    if only_plan:
        configs = [run.config for run in runs]
        planned = plan(configs, workdir, executor=executor, retry_failed=retry_failed)
        return format_plan(planned, len(configs), count_repeated(configs)), 0
    _check_writable(at.table)
    _check_writable(at.records)
    if executor == "ray":
        check_cluster(ray_address)
    options = {"executor": executor, "retry_failed": retry_failed, "ray_address": ray_address, "workers": workers}
    failed = _train_cells(table, setting, runs, workdir, at, options)
    text = render(table, setting, at.records, at.table, formats)
    return f"{text}\nwritten to {at.table}: {_written(formats)}", failed


def _train_cells(
    table: Table, setting: str, runs: Sequence[Run], workdir: Path, at: Results, options: Mapping[str, Any]
) -> int:
    """Trains cell by cell, so that what is there can be looked at while the rest is trained; refuses first what cannot run."""
    due = [run.config for run in runs if read_status(run.config, workdir) != "finished"]
    for config in due:
        validate_config(config)
    made = make_each(due)  # refuses absent data too, before hours go into other rows
    progress = _follow(runs, [config for config in due if options["retry_failed"] or read_status(config, workdir) != "failed"])
    failed = 0
    with locked_store(workdir):
        if changes := describe_changes([run.config for run in runs], workdir):
            print(changes, file=sys.stderr)
        for cell in dict.fromkeys(_cell_name(run) for run in runs):
            own = [run for run in runs if _cell_name(run) == cell]
            found = execute([run.config for run in own], workdir, check=False, made=made, progress=progress, **options)
            failed += sum(result is None or result["status"] != "finished" for result in found)
            for run, result in zip(own, found, strict=True):
                if result:
                    write_record(run, result, workdir, at.records)
            if any(found):
                render(table, setting, at.records, at.table)
    return failed


def _written(formats: Sequence[str]) -> str:
    return ", ".join(["table.md", "table.csv", *(f"plot.{ending}" for ending in formats)])


def _follow(runs: Sequence[Run], due: Sequence[ConfigDict]) -> Progress:
    """Returns what says how far the whole table is: by row, column, layer, point of the grid and seed."""
    configs = {config_hash(run.config): run.config for run in runs}
    names = {}
    for run in runs:
        layer, point = run.config.model.layer.name, [f"{path.rpartition('.')[2]}={value}" for path, value in run.point.items()]
        shown = "" if run.row.name.startswith(layer) else f" ({layer})"
        names[config_hash(run.config)] = Name(", ".join([f"{_cell_name(run)}{shown}", *point]), run.seed)
    return Progress(configs, names, {config_hash(config) for config in due})


def _results(results: str | None, name: str, setting: str, layer: str) -> Results:
    root = Path(results) if results else results_folder()
    folder = root / name / setting
    return Results(root / "runs", folder / name_folder(layer) if layer else folder)


def name_folder(layer: str) -> str:
    """Returns the folder that the table of a newcomer's layer has within that of its setting."""
    return re.sub(r"[^\w.-]+", "-", layer)


def _check_writable(folder: Path) -> None:
    """Before anything is trained, since it would be found out only hours later; makes nothing yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"cannot write results in {folder}: {there} is not a folder that can be written")


def _choose_cells(runs: Sequence[Run], cells: Sequence[str]) -> list[Run]:
    names = list(dict.fromkeys(_cell_name(run) for run in runs))
    for cell in cells:
        if not any(_matches(run, cell) for run in runs):
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            rule = "* stands for any letters, ? for one"
            raise UserError(f"--cells={cell!r} is not one of {', '.join(names[:8])}{more}{suggest(cell, names)}; {rule}")
    return [run for run in runs if not cells or any(_matches(run, cell) for cell in cells)]


def _cell_name(run: Run) -> str:
    return f"{run.column.name}/{run.row.name}" if run.column.name else run.row.name


def _matches(run: Run, cell: str) -> bool:
    """A row alone means all its columns. Brackets are common in the names of rows, so only * and ? are wildcards."""
    pattern = cell.replace("[", "[[]")
    return any(fnmatch.fnmatchcase(name, pattern) for name in (run.row.name, _cell_name(run)))


def results_folder() -> Path:
    """Returns where results are kept: in a checkout beside the experiments; an installed wheel writes where it is called."""
    experiments = data_folder("experiments")
    return experiments / "results" if (experiments.parent / "pyproject.toml").exists() else Path("experiments/results")
