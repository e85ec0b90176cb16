"""The command ``lrnn runs``, and the table of runs that other commands end with."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from lrnn_jax.cli.flags import expand_path
from lrnn_jax.cli.text import align, cell, complain
from lrnn_jax.errors import UserError


def define_runs(values: flags.FlagValues) -> None:
    """Adds the command\'s flags."""
    flags.DEFINE_multi_string(
        "where", [], "condition such as model.layer.name=mamba or scaled_accuracy>=0.9; repeatable", values
    )
    flags.DEFINE_list(
        "by",
        None,
        "means over seeds: a row for all runs equal in these fields; with nothing after =, in all that differ",
        values,
    )
    flags.DEFINE_list("columns", None, "fields, metrics (also best/METRIC) and result entries (default: what differs)", values)
    flags.DEFINE_string("sort", None, "column to sort by", values)
    flags.DEFINE_boolean("csv", False, "comma-separated values instead of a table", values)


def run_runs(values: flags.FlagValues, positional: list[str]) -> int:
    """Prints the runs of a folder as a table."""
    if len(positional) != 1:
        raise UserError("lrnn runs needs one DIR, the folder of the runs")
    from lrnn_jax.runs.store import check_column, read_rows, select_rows

    rows = read_rows(expand_path(positional[0]))
    known = {"folder", *(name for row in rows for name in row)}
    for name in [*(values.columns or []), *(values.by or []), *([values.sort] if values.sort and values.by is None else [])]:
        check_column(name, known)
    rows = select_rows(rows, values.where)
    if values.by is not None:
        rows, columns = _average(rows, values.by, values.columns)
    if values.sort:
        if rows and values.by is not None:
            check_column(values.sort, set(rows[0]))
        rows.sort(key=lambda row: (row.get(values.sort) is None, row.get(values.sort)))
    if values.by is not None:
        print_table(rows, columns, as_csv=values.csv)
    else:
        print_rows(rows, columns=values.columns, as_csv=values.csv, in_order=bool(values.sort))
    return 0


def _average(rows: Sequence[dict[str, Any]], by: Sequence[str], metrics: Sequence[str] | None) -> tuple[list[Any], list[str]]:
    """Returns the means and their columns; says what they are taken over besides the seeds."""
    from lrnn_jax.runs.naming import HEADLINES, average_runs, differing_fields

    named = ["task.name", "model.layer.name"]
    differ = [*(path for path in named if len({row.get(path) for row in rows}) > 1), *differing_fields(rows)]
    by = [*by] or [*dict.fromkeys([*differ, "model.layer.name"])]
    mixed = [path for path in dict.fromkeys(differ) if path not in by]
    if mixed:
        print(f"each row is a mean over runs that differ in more than the seed: {', '.join(mixed)}", file=sys.stderr)
    metrics = metrics or [name for name in HEADLINES if any(name in row for row in rows)]
    spread = [f"{name}{end}" for name in metrics for end in ("", "_sd")]
    return average_runs(rows, by, metrics), [*by, "runs", "finished", *spread]


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


def print_rows(
    rows: Sequence[dict[str, Any]], *, columns: Sequence[str] | None = None, as_csv: bool = False, in_order: bool = False
) -> None:
    """Prints runs as an aligned table, named by what they differ in, or as comma-separated values, named by their folders.

    The table is in the order of its names, but for rows that are ``in_order`` already.
    """
    from lrnn_jax.runs.naming import differing_fields, name_runs
    from lrnn_jax.runs.store import default_columns

    rows = [{**row, "folder": row["run"]} for row in rows]
    if as_csv:
        print_table(rows, columns or default_columns(rows), as_csv=True)
        return
    named = ("run", "task.name", "model.layer.name", "seed", *differing_fields(rows))
    chosen = columns or [*(name for name in default_columns(rows) if name not in named), "folder"]
    names = name_runs(rows)
    shown = [{**row, "run": name} for row, name in zip(rows, names, strict=True)]
    if not in_order:
        shown.sort(key=lambda row: str(row["run"]))
    print_table(shown, ["run", *(name for name in chosen if name != "run")])


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, as_csv: bool = False) -> None:
    """Prints columns of rows, aligned or as comma-separated values."""
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row.get(column, "") for column in columns] for row in rows)
    else:
        print(align([tuple(columns), *(tuple(cell(row.get(column)) for column in columns) for row in rows)]))
