"""The command ``lrnn``. Heavy libraries are imported by the command that needs them, so that help answers at once."""

import ast
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from lrnn_jax.errors import UserError, suggest


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
    values = flags.FlagValues()
    if any(word in ("-h", "--help") for word in rest):
        command.define(values)
        print(f"lrnn {verb} {command.usage}\n\n{command.summary}\n\n{_describe_flags(values)}")
        return 0
    if verb == "train":
        rest = _prepare_config_flags(rest, values)
    command.define(values)
    try:
        positional = values([f"lrnn {verb}", *rest])[1:]
    except flags.UnrecognizedFlagError as error:
        raise UserError(f"unknown flag --{error.flagname}{suggest(error.flagname, values)} (lrnn {verb} --help)") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(str(error).splitlines()[0]) from error
    return command.run(values, positional)


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


def _describe_flags(values: flags.FlagValues) -> str:
    rows = []
    for name in values:
        flag = values[name]
        default = "" if flag.default in (None, "") else f" (default: {flag.default})"
        rows.append(f"  --{name}: {flag.help}{default}")
    return "\n".join(rows)


def _prepare_config_flags(rest: list[str], values: flags.FlagValues) -> list[str]:
    """Finds the config file, checks every override against it, and defines the flags of ml_collections."""
    from ml_collections import config_flags

    from lrnn_jax.config import check_field, find_config, load_config

    rest = list(rest)
    spec, where = _flag_value(rest, "config")
    if spec is not None:
        path, colon, arg = spec.partition(":")
        rest[where : where + 1] = [f"--config={find_config(path)}{colon}{arg}"]
        config = load_config(spec)
        for word in rest:
            name = word.lstrip("-").partition("=")[0]
            if word.startswith("-") and name.removeprefix("no").startswith("config."):
                check_field(config, name.removeprefix("no").removeprefix("config."))
    elif any(word.lstrip("-").startswith("config.") for word in rest):
        raise UserError("--config.FIELD needs --config=FILE first")
    config_flags.register_flag_parser_for_type(list, _ListParser())
    config_flags.DEFINE_config_file("config", None, "config FILE[:ARG]", values, sys_argv=["lrnn", *rest])
    return rest


class _ListParser(flags.ArgumentParser):
    """Reads a Python list, such as ``[3,40]``; ml_collections itself has no parser for lists."""

    syntactic_help = "a list, such as [3,40]"

    def parse(self, argument: Any) -> list[Any]:
        try:
            value = ast.literal_eval(argument) if isinstance(argument, str) else argument
        except (ValueError, SyntaxError):
            value = None
        if not isinstance(value, list):
            raise ValueError(f"{argument!r} is not {self.syntactic_help}")
        return value

    def flag_type(self) -> str:
        return "list"


def _flag_value(arguments: list[str], name: str) -> tuple[str | None, int]:
    """Finds ``--name=value`` or ``--name value``; the second form is rewritten as the first."""
    for i, word in enumerate(arguments):
        if word.lstrip("-") == name and word.startswith("-") and i + 1 < len(arguments):
            arguments[i : i + 2] = [f"--{name}={arguments[i + 1]}"]
        if arguments[i].startswith((f"--{name}=", f"-{name}=")):
            return arguments[i].partition("=")[2], i
    return None, -1


def _define_train(values: flags.FlagValues) -> None:
    if "config" not in values:
        flags.DEFINE_string("config", None, "config FILE[:ARG]; --config.SECTION.FIELD=VALUE overrides a field", values)
    flags.DEFINE_string("workdir", None, "the run's folder (default: runs/<hash of the config>)", values)


def _run_train(values: flags.FlagValues, positional: list[str]) -> int:
    _no_positional(positional)
    if values.config is None:
        raise UserError("lrnn train needs --config=FILE, such as --config=configs/parity.py")
    from lrnn_jax.training.trainer import Interrupted, TrainingFailed, default_workdir, train

    workdir = Path(values.workdir) if values.workdir else default_workdir(values.config)
    try:
        result = train(values.config, workdir)
    except TrainingFailed as error:
        return _complain(f"training failed at {error}", 1)
    except Interrupted as error:
        return _complain(str(error), 128 + error.signum)
    print(_format_metrics(result["metrics"]))
    print(f"\n{workdir / 'result.json'}: {result['steps']} steps, {result['wall_time_s']:.1f} s")
    return 0


def _define_eval(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "the run's folder", values)
    flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "which checkpoint", values)
    flags.DEFINE_list("lengths", None, "length buckets instead of the config's, such as 40-64,512-1024", values)
    flags.DEFINE_integer("examples", None, "examples per bucket instead of the config's", flag_values=values, lower_bound=1)


def _run_eval(values: flags.FlagValues, positional: list[str]) -> int:
    _no_positional(positional)
    if not values.workdir:
        raise UserError("lrnn eval needs --workdir=RUN")
    from lrnn_jax.training.trainer import evaluate_run

    lengths = [_parse_bucket(text) for text in values.lengths] if values.lengths else None
    result = evaluate_run(Path(values.workdir), which=values.checkpoint, lengths=lengths, examples=values.examples)
    print(_format_metrics(result["metrics"]))
    print(f"\n{values.workdir}: {result['checkpoint']} checkpoint, step {result['step']}")
    return 0


def _parse_bucket(text: str) -> list[int]:
    low, _, high = text.partition("-")
    if not low.isdigit() or not (high or low).isdigit():
        raise UserError(f"--lengths={text!r} must be SHORTEST-LONGEST, such as 40-64")
    return [int(low), int(high or low)]


def _define_reproduce(values: flags.FlagValues) -> None:
    flags.DEFINE_string("scale", "cpu", "smoke | cpu | paper, as far as the table has them", values)
    flags.DEFINE_string("workdir", "runs", "folder of the runs", values)
    flags.DEFINE_string("results", None, "folder of tables and plots (default: experiments/results)", values)


def _run_reproduce(values: flags.FlagValues, positional: list[str]) -> int:
    if len(positional) != 1:
        raise UserError("lrnn reproduce needs one TABLE (`lrnn list tables` shows all)")
    from lrnn_jax.sweeps.reproduce import reproduce

    print(reproduce(positional[0], scale=values.scale, workdir=Path(values.workdir), results=values.results))
    return 0


def _define_nothing(values: flags.FlagValues) -> None:
    """A command without flags."""


def _run_list(_: flags.FlagValues, positional: list[str]) -> int:
    if len(positional) != 1:
        raise UserError(f"lrnn list needs one of {', '.join(_LISTS)}")
    what = positional[0]
    if what not in _LISTS:
        raise UserError(f"cannot list {what!r}{suggest(what, _LISTS)} (one of {', '.join(_LISTS)})")
    print(_align(_LISTS[what]()))
    return 0


def _list_layers() -> list[tuple[str, ...]]:
    from lrnn_jax.registry import LAYERS, load_layer

    rows: list[tuple[str, ...]] = [("layer", "methods", "source")]
    return rows + [(name, ", ".join(load_layer(name).METHODS), load_layer(name).SOURCE) for name in LAYERS]


def _list_tasks() -> list[tuple[str, ...]]:
    from lrnn_jax.registry import TASKS, load_task

    rows: list[tuple[str, ...]] = [("task", "lengths", "what")]
    for name in TASKS:
        task = load_task(name)
        lengths = f"{task.EVAL_LENGTHS[0][0]}-{task.EVAL_LENGTHS[-1][1]}"
        rows.append((name, lengths, (task.__doc__ or "").splitlines()[0]))
    return rows


def _list_configs() -> list[tuple[str, ...]]:
    return [("config", "what"), *_list_files("configs", suffix=".py")]


def _list_tables() -> list[tuple[str, ...]]:
    return [("table", "what"), *_list_files("experiments", suffix="")]


def _list_files(folder: str, *, suffix: str) -> list[tuple[str, ...]]:
    from lrnn_jax.config import data_folder

    prefix = f"{folder}/" if suffix else ""
    rows: list[tuple[str, ...]] = []
    for file in sorted(data_folder(folder).glob("*.py")):
        doc = ast.get_docstring(ast.parse(file.read_text())) or ""
        rows.append((f"{prefix}{file.stem}{suffix}", doc.splitlines()[0] if doc else ""))
    return rows


_LISTS: dict[str, Callable[[], list[tuple[str, ...]]]] = {
    "layers": _list_layers,
    "tasks": _list_tasks,
    "configs": _list_configs,
    "tables": _list_tables,
}


def _no_positional(positional: list[str]) -> None:
    if positional:
        raise UserError(f"unexpected argument {positional[0]!r}; flags start with --")


def _format_metrics(metrics: dict[str, Any]) -> str:
    """Lays metrics out as one row per length bucket, the headline first."""
    names = [name for name in metrics if "/" not in name]
    buckets = sorted({name.partition("/")[2] for name in metrics if "/" in name}, key=lambda b: int(b.partition("-")[0]))
    rows: list[tuple[str, ...]] = [("lengths", *names), ("headline", *(f"{metrics[name]:.4f}" for name in names))]
    rows += [(bucket, *(f"{metrics[f'{name}/{bucket}']:.4f}" for name in names)) for bucket in buckets]
    return _align(rows)


def _align(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


COMMANDS = {
    "train": Command(
        "trains a config, or resumes where it stopped",
        "--config=FILE[:ARG] [--config.SECTION.FIELD=VALUE ...] [--workdir=DIR]",
        _define_train,
        _run_train,
    ),
    "eval": Command("evaluates a run's checkpoint", "--workdir=RUN [--checkpoint=last|best]", _define_eval, _run_eval),
    "reproduce": Command(
        "trains what a paper's table or figure needs and writes it beside the paper's numbers",
        "TABLE [--scale=smoke|cpu|paper]",
        _define_reproduce,
        _run_reproduce,
    ),
    "list": Command("lists what there is", "layers|tasks|configs|tables", _define_nothing, _run_list),
}
