"""The command ``lrnn runs``, and the table of runs that other commands end with."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from lrnn_jax.cli.text import align, cell, complain
from lrnn_jax.errors import UserError


def define_runs(values: flags.FlagValues) -> None:
    """Adds the command\'s flags."""
    flags.DEFINE_multi_string(
        "where", [], "condition such as model.layer.name=mamba or scaled_accuracy>=0.9; repeatable", values
    )
    flags.DEFINE_list("columns", None, "fields, metrics (also best/METRIC) and result entries (default: what differs)", values)
    flags.DEFINE_string("sort", None, "column to sort by", values)
    flags.DEFINE_boolean("csv", False, "comma-separated values instead of a table", values)


def run_runs(values: flags.FlagValues, positional: list[str]) -> int:
    """Prints the runs of a folder as a table."""
    if len(positional) != 1:
        raise UserError("lrnn runs needs one DIR, the folder of the runs")
    from lrnn_jax.runs.store import check_column, read_rows, select_rows

    rows = read_rows(Path(positional[0]))
    known = {name for row in rows for name in row}
    for name in [*(values.columns or []), *([values.sort] if values.sort else [])]:
        check_column(name, known)
    rows = select_rows(rows, values.where)
    if values.sort:
        rows.sort(key=lambda row: (row.get(values.sort) is None, row.get(values.sort)))
    print_rows(rows, columns=values.columns, as_csv=values.csv)
    return 0


def run_all(configs: Sequence[Any], store: Path, *, said: str = "", part: bool = False, **options: Any) -> int:
    """Trains many runs and prints one line for each, after ``said``; 1 if any of them failed."""
    from lrnn_jax.runs.store import describe_changes, locked_store, read_rows
    from lrnn_jax.sweeps.executors import execute

    if options["executor"] == "ray":
        from lrnn_jax.sweeps.ray_executor import check_cluster

        check_cluster(options["ray_address"])  # before the folder is made
    with locked_store(store, shared=part):
        for line in filter(None, (said, describe_changes(configs, store))):
            print(line, file=sys.stderr)
        results = execute(configs, store, **options)
    names = {result["config_hash"] for result in results if result}
    print_rows([row for row in read_rows(store) if row["run"] in names])
    failed = sum(result is None or result["status"] != "finished" for result in results)
    if failed:
        again = "the same command" if options.get("retry_failed") else "--retry_failed"
        return complain(f"{failed} of {len(results)} runs failed; {again} tries them again", 1)
    return 0


def print_rows(rows: Sequence[dict[str, Any]], *, columns: Sequence[str] | None = None, as_csv: bool = False) -> None:
    """Prints runs as an aligned table or as comma-separated values."""
    from lrnn_jax.runs.store import default_columns

    columns = ["run", *(c for c in columns if c != "run")] if columns and not as_csv else columns or default_columns(rows)
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row.get(column, "") for column in columns] for row in rows)
    else:
        print(align([tuple(columns), *(tuple(cell(row.get(column)) for column in columns) for row in rows)]))
