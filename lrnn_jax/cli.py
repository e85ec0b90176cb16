"""The command ``lrnn``. Heavy libraries are imported by the command that needs them, so that help answers at once."""

import csv
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from lrnn_jax.cli_flags import define_config_flags, describe_flags, refuse_positional
from lrnn_jax.cli_generate import define_generate, run_generate
from lrnn_jax.cli_lists import LISTS, list_layers_with_sizes
from lrnn_jax.cli_spectra import define_spectra, run_spectra
from lrnn_jax.cli_text import align, cell, format_metrics
from lrnn_jax.errors import Interrupted, TrainingFailed, UserError, suggest


class Command(NamedTuple):
    """One verb of the command line.

    Attributes:
      summary: one line for ``lrnn --help``.
      usage: the arguments after the verb.
      define: adds the verb's flags.
      run: does the work with the parsed flags and the positional arguments; returns the exit code.
    """

    summary: str
    usage: str
    define: Callable[[flags.FlagValues], None]
    run: Callable[[flags.FlagValues, list[str]], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, 1 for failed training, 2 for a user's mistake, 128 + signal when interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except UserError as error:
        return _complain(str(error), 2)
    except flags.Error as error:
        return _complain(str(error).splitlines()[0], 2)
    except TrainingFailed as error:
        return _complain(f"training failed at {error}", 1)
    except Interrupted as error:
        return _complain(str(error), 128 + error.signum)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except BrokenPipeError:
        # the reader of our output has gone, as in `lrnn list layers | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _complain(message: str, code: int) -> int:
    print(f"lrnn: {message}", file=sys.stderr)
    return code


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        from lrnn_jax import __version__

        print(__version__)
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in COMMANDS:
        raise UserError(f"unknown command {verb!r}{suggest(verb, COMMANDS)} (one of {', '.join(COMMANDS)})")
    command = COMMANDS[verb]
    if any(word in ("-h", "--help") for word in rest):
        values = flags.FlagValues()
        command.define(values)
        print(f"lrnn {verb} {command.usage}\n\n{command.summary}\n\n{describe_flags(values)}")
        return 0
    return command.run(*parse_flags(verb, rest))


def parse_flags(verb: str, rest: list[str]) -> tuple[flags.FlagValues, list[str]]:
    """Returns the flags of ``lrnn VERB REST...`` and its positional arguments.

    Raises:
      UserError, flags.Error: a flag that there is not, or a value that it does not take; see `main`.
    """
    values = flags.FlagValues()
    if verb in ("train", "sweep"):
        rest = define_config_flags(verb, rest, values)
    COMMANDS[verb].define(values)
    try:
        return values, values([f"lrnn {verb}", *rest])[1:]
    except flags.UnrecognizedFlagError as error:
        raise UserError(f"unknown flag --{error.flagname}{suggest(error.flagname, values)} (lrnn {verb} --help)") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(str(error).splitlines()[0]) from error


def _help() -> str:
    lines = ["lrnn: train, evaluate and reproduce linear recurrent networks.", "", "usage: lrnn COMMAND [--flags]", ""]
    lines += [f"  {name:<10} {command.summary}" for name, command in COMMANDS.items()]
    lines += [
        "",
        "lrnn COMMAND --help shows a command's flags. To start:",
        "  lrnn train --config=configs/parity.py",
        "  lrnn train --config=configs/parity.py:mamba,positive --config.optim.lr=1e-3 --workdir=runs/x",
        "  lrnn reproduce grazzi2025_fig1 --scale=cpu",
    ]
    return "\n".join(lines)


def _define_train(values: flags.FlagValues) -> None:
    _define_config(values)
    flags.DEFINE_string(
        "workdir",
        None,
        "the run's folder (default: runs/<hash of the config>); with seeds above 1 the folder of the runs",
        values,
    )


def _define_config(values: flags.FlagValues) -> None:
    if "config" not in values:
        flags.DEFINE_string("config", None, "config FILE[:ARG]; --config.SECTION.FIELD=VALUE overrides a field", values)


def _run_train(values: flags.FlagValues, positional: list[str]) -> int:
    refuse_positional(positional)
    if values.config is None:
        raise UserError("lrnn train needs --config=FILE, such as --config=configs/parity.py")
    from lrnn_jax.config import split_seeds
    from lrnn_jax.config_checks import validate_config
    from lrnn_jax.sweeps.store import default_workdir

    validate_config(values.config)
    if values.config.seeds > 1:
        return _run_all(split_seeds(values.config), Path(values.workdir or "runs"), executor="vmap", retry_failed=True)
    from lrnn_jax.training.trainer import train

    workdir = Path(values.workdir) if values.workdir else default_workdir(values.config)
    result = train(values.config, workdir)
    print(format_metrics(result["metrics"]))
    print(f"\n{workdir / 'result.json'}: {result['steps']} steps, {result['wall_time_s']:.1f} s")
    return 0


def _run_all(configs: Sequence[Any], store: Path, *, said: str = "", part: bool = False, **options: Any) -> int:
    """Trains many runs and prints one line for each, after ``said``; 1 if any of them failed."""
    from lrnn_jax.sweeps.executors import execute
    from lrnn_jax.sweeps.store import locked_store, read_rows

    if options["executor"] == "ray":
        from lrnn_jax.sweeps.ray_executor import check_cluster

        check_cluster(options["ray_address"])  # before the folder is made
    with locked_store(store, shared=part):
        if said:
            print(said, file=sys.stderr)
        results = execute(configs, store, **options)
    names = {result["config_hash"] for result in results if result}
    _print_rows([row for row in read_rows(store) if row["run"] in names])
    failed = sum(result is None or result["status"] != "finished" for result in results)
    if failed:
        again = "the same command" if options.get("retry_failed") else "--retry_failed"
        return _complain(f"{failed} of {len(results)} runs failed; {again} tries them again", 1)
    return 0


def _define_sweep(values: flags.FlagValues) -> None:
    _define_config(values)
    flags.DEFINE_string("sweep", "", "which: def sweep_NAME() of the config file, def sweep() if empty", values)
    flags.DEFINE_string("executor", "vmap", "vmap: side by side in one program | local: one by one | ray: on a cluster", values)
    flags.DEFINE_string("workdir", "runs", "folder of the runs", values)
    flags.DEFINE_boolean("plan", False, "print programs, time and memory, and train nothing", values)
    flags.DEFINE_boolean("retry_failed", False, "try failed runs again", values)
    flags.DEFINE_string("part", None, "I/N: only the I-th of N parts, as in an array job", values)
    _define_ray(values)


def _define_ray(values: flags.FlagValues) -> None:
    flags.DEFINE_string("ray_address", None, "Ray cluster to run on (default: one on this machine)", values)
    flags.DEFINE_integer("workers", None, "runs at a time on this machine's Ray (default: cores)", 1, flag_values=values)


def resolve_flags(values: flags.FlagValues) -> list[Any]:
    """Returns the configs of all runs of the sweep that the flags of ``lrnn sweep`` name, whatever part of it is to run.

    Raises:
      UserError: no config file, no such sweep, or a config that cannot run.
    """
    if values.config is None:
        raise UserError("lrnn sweep needs --config=FILE, such as --config=configs/parity.py")
    from ml_collections import config_flags

    from lrnn_jax.sweeps.sweep import resolve_sweep

    flag = values["config"]
    return resolve_sweep(config_flags.get_config_filename(flag), values.sweep, config_flags.get_override_values(flag))


def _run_sweep(values: flags.FlagValues, positional: list[str]) -> int:
    refuse_positional(positional)
    from lrnn_jax.sweeps.executors import check_executor
    from lrnn_jax.sweeps.sweep import count_repeated, describe_structure, format_plan, plan, take_part

    check_executor(values.executor)
    configs = resolve_flags(values)
    total = len(configs)
    if values.part is not None:
        configs = take_part(configs, values.part)
    structure = describe_structure(configs)
    said = f"{len(configs)} of {total} runs" + (f"; {structure}" if structure else "")
    store = Path(values.workdir)
    if values.plan or not configs:  # there may be more parts than runs
        print(said, file=sys.stderr)
    if not configs:
        return 0
    if values.plan:
        planned = plan(configs, store, executor=values.executor, retry_failed=values.retry_failed)
        print(format_plan(planned, len(configs), count_repeated(configs)))
        return 0
    return _run_all(
        configs,
        store,
        said=said,
        part=values.part is not None,
        executor=values.executor,
        retry_failed=values.retry_failed,
        ray_address=values.ray_address,
        workers=values.workers,
    )


def _define_runs(values: flags.FlagValues) -> None:
    flags.DEFINE_multi_string(
        "where", [], "condition such as model.layer.name=mamba or scaled_accuracy>=0.9; repeatable", values
    )
    flags.DEFINE_list("columns", None, "fields, metrics (also best/METRIC) and result entries (default: what differs)", values)
    flags.DEFINE_string("sort", None, "column to sort by", values)
    flags.DEFINE_boolean("csv", False, "comma-separated values instead of a table", values)


def _run_runs(values: flags.FlagValues, positional: list[str]) -> int:
    if len(positional) != 1:
        raise UserError("lrnn runs needs one DIR, the folder of the runs")
    from lrnn_jax.sweeps.store import check_column, read_rows, select_rows

    rows = read_rows(Path(positional[0]))
    known = {name for row in rows for name in row}
    for name in [*(values.columns or []), *([values.sort] if values.sort else [])]:
        check_column(name, known)
    rows = select_rows(rows, values.where)
    if values.sort:
        rows.sort(key=lambda row: (row.get(values.sort) is None, row.get(values.sort)))
    _print_rows(rows, columns=values.columns, as_csv=values.csv)
    return 0


def _print_rows(rows: Sequence[dict[str, Any]], *, columns: Sequence[str] | None = None, as_csv: bool = False) -> None:
    from lrnn_jax.sweeps.store import default_columns

    columns = ["run", *(c for c in columns if c != "run")] if columns and not as_csv else columns or default_columns(rows)
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row.get(column, "") for column in columns] for row in rows)
    else:
        print(align([tuple(columns), *(tuple(cell(row.get(column)) for column in columns) for row in rows)]))


def _define_eval(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "the run's folder", values)
    flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "which checkpoint", values)
    flags.DEFINE_list("lengths", None, "length buckets instead of the config's, such as 40-64,512-1024", values)
    flags.DEFINE_integer("examples", None, "examples per bucket instead of the config's", flag_values=values, lower_bound=1)


def _run_eval(values: flags.FlagValues, positional: list[str]) -> int:
    refuse_positional(positional)
    if not values.workdir:
        raise UserError("lrnn eval needs --workdir=RUN")
    from lrnn_jax.training.evaluation import evaluate_run

    lengths = [_parse_bucket(text) for text in values.lengths] if values.lengths else None
    result = evaluate_run(Path(values.workdir), which=values.checkpoint, lengths=lengths, examples=values.examples)
    print(format_metrics(result["metrics"]))
    for name, curve in result["curves"].items():
        if len(curve) <= _LONGEST_CURVE:
            print(f"{name}  " + " ".join("-" if value is None else f"{value:.4g}" for value in curve))
    print(f"\n{values.workdir}: {result['checkpoint']} checkpoint, step {result['step']}")
    return 0


_LONGEST_CURVE = 16  # values that fit on a line


def _parse_bucket(text: str) -> list[int]:
    low, _, high = text.partition("-")
    if not (low + high).isascii() or not low.isdigit() or not (high or low).isdigit():
        raise UserError(f"--lengths={text!r} must be SHORTEST-LONGEST, such as 40-64")
    return [int(low), int(high or low)]


def _define_reproduce(values: flags.FlagValues) -> None:
    flags.DEFINE_string("scale", "cpu", "smoke | cpu | paper | released, as far as the table has them", values)
    flags.DEFINE_string("workdir", "runs", "folder of the runs", values)
    flags.DEFINE_string("results", None, "folder of tables and plots (default: experiments/results)", values)
    flags.DEFINE_multi_string("cells", [], "rows to train, ROW or COLUMN/ROW, with * and ?; repeatable (default: all)", values)
    flags.DEFINE_string("executor", "vmap", "vmap: seeds side by side in one program | local: one by one | ray", values)
    flags.DEFINE_boolean("missing", False, "train only what has no record in the results yet", values)
    flags.DEFINE_boolean("render", False, "draw table and plot again from the records; train nothing", values)
    flags.DEFINE_boolean("retry_failed", False, "try failed runs again", values)
    flags.DEFINE_boolean("list", False, "list the tables", values)
    _define_ray(values)


def _run_reproduce(values: flags.FlagValues, positional: list[str]) -> int:
    if values.list:
        print(align(LISTS["tables"]()))
        return 0
    if len(positional) != 1:
        raise UserError("lrnn reproduce needs one TABLE (`lrnn reproduce --list` shows all)")
    from lrnn_jax.sweeps.reproduce import reproduce

    text, failed = reproduce(
        positional[0],
        scale=values.scale,
        workdir=Path(values.workdir),
        results=values.results,
        executor=values.executor,
        cells=values.cells,
        retry_failed=values.retry_failed,
        only_missing=values.missing,
        only_render=values.render,
        ray_address=values.ray_address,
        workers=values.workers,
    )
    print(text)
    return _complain(f"{failed} runs failed; --retry_failed tries them again", 1) if failed else 0


def _define_list(values: flags.FlagValues) -> None:
    flags.DEFINE_boolean("verbose", False, "layers: also the sizes of parameters and state", values)
    flags.DEFINE_integer("width", 128, "layers: the model width D of those sizes", 1, flag_values=values)


def _run_list(values: flags.FlagValues, positional: list[str]) -> int:
    if len(positional) != 1:
        raise UserError(f"lrnn list needs one of {', '.join(LISTS)}")
    what = positional[0]
    if what not in LISTS:
        raise UserError(f"cannot list {what!r}{suggest(what, LISTS)} (one of {', '.join(LISTS)})")
    if values.verbose and what != "layers":
        raise UserError(f"--verbose is for layers; `lrnn list {what}` has no more to say")
    if values["width"].present and not values.verbose:
        raise UserError("--width is for the sizes that `lrnn list layers --verbose` shows; leave it out, or add --verbose")
    print(align(list_layers_with_sizes(values.width) if values.verbose else LISTS[what]()))
    return 0


COMMANDS = {
    "train": Command(
        "trains a config, or resumes where it stopped",
        "--config=FILE[:ARG] [--config.SECTION.FIELD=VALUE ...] [--workdir=DIR]",
        _define_train,
        _run_train,
    ),
    "sweep": Command(
        "trains a config's sweep: many runs, side by side where they can share a program",
        "--config=FILE[:ARG] [--sweep=NAME] [--executor=vmap|local|ray] [--plan]",
        _define_sweep,
        _run_sweep,
    ),
    "runs": Command(
        "lists the runs in a folder, with any field or metric as a column",
        "DIR [--where=CONDITION ...] [--columns=A,B] [--sort=A] [--csv]",
        _define_runs,
        _run_runs,
    ),
    "eval": Command("evaluates a run's checkpoint", "--workdir=RUN [--checkpoint=last|best]", _define_eval, _run_eval),
    "generate": Command(
        "writes text with a trained language model",
        "--workdir=RUN [--prompt=TEXT] [--tokens=N] [--temperature=X] [--top_k=N] [--top_p=X] [--seed=N]",
        define_generate,
        run_generate,
    ),
    "spectra": Command(
        "measures and draws the eigenvalues of a trained run's transitions, by token",
        "--workdir=RUN [--checkpoint=last|best] [--examples=N] [--length=N]",
        define_spectra,
        run_spectra,
    ),
    "reproduce": Command(
        "trains what a paper's table or figure needs and writes it beside the paper's numbers",
        "TABLE [--scale=smoke|cpu|paper|released] [--cells=ROW ...] [--executor=vmap|local|ray] [--render]",
        _define_reproduce,
        _run_reproduce,
    ),
    "list": Command("lists what there is", "layers|tasks|configs|tables [--verbose]", _define_list, _run_list),
}
