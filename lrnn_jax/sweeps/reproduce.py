"""From a table's declaration to its rendering: trains the runs that are missing, keeps one record of each."""

import json
import sys
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lrnn_jax.config import data_folder, load_config, set_field, validate_config
from lrnn_jax.errors import UserError, suggest
from lrnn_jax.reports.tables import Row, Table, load_table, record_name, render
from lrnn_jax.training.runs import RunFolder, write_json
from lrnn_jax.training.trainer import TrainingFailed, default_workdir, train


def reproduce(name: str, *, scale: str, workdir: Path, results: str | None) -> str:
    """Trains what ``experiments/<name>.py`` needs at ``scale``, renders it, and returns the table as Markdown.

    Args:
      name: the table.
      scale: one of the table's scales.
      workdir: folder of the runs, each in a folder named by its config's hash; finished ones are not run again.
      results: folder of the records and renderings; ``experiments/results`` if None.

    Raises:
      UserError: no such table or scale, or a config that cannot run.
    """
    table = load_table(name)
    if scale not in table.scales:
        raise UserError(f"--scale={scale!r} is not one of {', '.join(table.scales)}{suggest(scale, table.scales)}")
    runs = [(row, seed, _run_config(row, scale, seed)) for row in table.rows for seed in range(table.seeds)]
    for _, _, config in runs:
        validate_config(config)
    folder = (Path(results) if results else _results_folder()) / name / scale
    for i, (row, seed, config) in enumerate(runs):
        print(f"run {i + 1}/{len(runs)}: {row.name}, seed {seed}", file=sys.stderr)
        run = RunFolder(workdir / default_workdir(config).name)
        try:
            result = train(config, run.path)
        except TrainingFailed as error:
            print(f"failed: {error}", file=sys.stderr)
            result = run.read_result() or {}
        write_json(folder / record_name(table, row, seed), _record(table, row, result, run))
    return f"{render(table, folder)}\nwritten to {folder}: table.md, table.csv, plot.png"


def _run_config(row: Row, scale: str, seed: int) -> ConfigDict:
    config = load_config(f"{row.config},scale={scale}")
    set_field(config, "seed", seed)
    return config


def _results_folder() -> Path:
    """In a checkout the results stand beside the experiments; an installed wheel writes where it is called."""
    experiments = data_folder("experiments")
    return experiments / "results" if (experiments.parent / "pyproject.toml").exists() else Path("experiments/results")


def _record(table: Table, row: Row, result: dict[str, Any], run: RunFolder) -> dict[str, Any]:
    lines = [json.loads(text) for text in run.metrics_file.read_text().splitlines()]
    curve = [[line["step"], line[table.metric]] for line in lines if line["split"] == "validation"]
    return {"row": row.name, "config": row.config, "curve": curve, **result}
