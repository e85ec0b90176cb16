"""The command ``lrnn``. Heavy libraries are imported by the command that needs them, so that help answers at once."""

import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

from absl import flags

from lrnn_jax.cli.bench import define_bench, run_bench
from lrnn_jax.cli.completion import define_completion, run_completion
from lrnn_jax.cli.config import define_show, run_show
from lrnn_jax.cli.data import define_data, run_data
from lrnn_jax.cli.eval import define_eval, run_eval
from lrnn_jax.cli.export import define_export, run_export
from lrnn_jax.cli.flags import define_config_flags, describe_flags
from lrnn_jax.cli.generate import define_generate, run_generate
from lrnn_jax.cli.list import define_list, run_list
from lrnn_jax.cli.report import define_report, run_report
from lrnn_jax.cli.reproduce import define_reproduce, run_reproduce
from lrnn_jax.cli.runs import define_runs, run_runs
from lrnn_jax.cli.spectra import define_spectra, run_spectra
from lrnn_jax.cli.sweep import define_sweep, run_sweep
from lrnn_jax.cli.text import complain
from lrnn_jax.cli.train import define_train, run_train
from lrnn_jax.errors import Interrupted, Terminated, TrainingFailed, UserError, suggest
from lrnn_jax.training.signals import terminable

# What trains: stopped outside of the training itself, they say what the same command does.
TRAINING = ("train", "sweep", "reproduce")


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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal need not know every letter
    try:
        return _dispatch(arguments)
    except UserError as error:
        return complain(str(error), 2)
    except flags.Error as error:
        return complain(str(error).splitlines()[0], 2)
    except TrainingFailed as error:
        return complain(f"training failed at {error}", 1)
    except Interrupted as error:
        return complain(str(error), 128 + error.signum)
    except KeyboardInterrupt as error:
        name, code = ("SIGTERM", 143) if isinstance(error, Terminated) else ("SIGINT", 130)
        rest = "the same command resumes from the last checkpoint, or starts anew where there is none"
        return complain(f"{name}: nothing more was saved; {rest}" if arguments[0] in TRAINING else "interrupted", code)
    except BrokenPipeError:
        # the reader of our output has gone, as in `lrnn list layers | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # a name that no file can have, a folder that may not be entered
        if not error.filename or not error.strerror:
            raise
        return complain(f"{error.strerror}: {str(error.filename)!r}", 2)


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
    flagged = rest[: rest.index("--")] if "--" in rest else rest
    if "-h" in flagged or "--help" in flagged:
        values = flags.FlagValues()
        command.define(values)
        print(f"lrnn {verb} {command.usage}\n\n{command.summary}\n\n{describe_flags(values)}".rstrip())
        return 0
    # others are ended by SIGTERM at once: an exception would wait for a compiled call to return
    with terminable() if verb in TRAINING else nullcontext():
        return command.run(*parse_flags(verb, rest))


def parse_flags(verb: str, rest: list[str]) -> tuple[flags.FlagValues, list[str]]:
    """Returns the flags of ``lrnn VERB REST...`` and its positional arguments.

    Raises:
      UserError, flags.Error: a flag that there is not, or a value that it does not take; see `main`.
    """
    values = flags.FlagValues()
    if verb == "config" and rest and not rest[0].startswith("-"):
        rest = [f"--config={rest[0]}", *rest[1:]]
    if verb in ("train", "sweep", "config"):
        rest = define_config_flags(rest, values)
    COMMANDS[verb].define(values)
    try:
        return values, values([f"lrnn {verb}", *rest])[1:]
    except flags.UnrecognizedFlagError as error:
        nearest = suggest(error.flagname, values) or f"; usage: lrnn {verb} {COMMANDS[verb].usage}"
        raise UserError(f"unknown flag --{error.flagname}{nearest} (lrnn {verb} --help)") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(str(error).splitlines()[0]) from error


def _help() -> str:
    lines = ["lrnn: train, evaluate and reproduce linear recurrent networks.", "", "usage: lrnn COMMAND [--flags]", ""]
    lines += [f"  {name:<10} {command.summary}" for name, command in COMMANDS.items()]
    lines += [
        "",
        "lrnn COMMAND --help shows a command's flags. To start:",
        "  lrnn train --config=configs/parity.py",
        "  lrnn train --config=configs/parity.py:mamba/positive --config.optim.lr=1e-3 --workdir=runs/x",
        "  lrnn reproduce grazzi2025_fig1 --setting=cpu",
    ]
    return "\n".join(lines)


COMMANDS = {
    "train": Command(
        "trains a config, or resumes where it stopped",
        "--config=FILE[:ARG] [--config.SECTION.FIELD=VALUE ...] [--workdir=DIR]",
        define_train,
        run_train,
    ),
    "config": Command(
        "shows every field of a config, and the rule and the source that set it",
        "FILE[:ARG] [--config.SECTION.FIELD=VALUE ...] [--changed]",
        define_show,
        run_show,
    ),
    "sweep": Command(
        "trains a config's sweep: many runs, side by side where they can share a program",
        "--config=FILE[:ARG] [--sweep=NAME] [--executor=vmap|local|ray] [--plan]",
        define_sweep,
        run_sweep,
    ),
    "runs": Command(
        "lists the runs of a folder, not of its subfolders, with any field or metric as a column",
        "DIR [--where=CONDITION ...] [--by=A,B] [--columns=A,B] [--sort=A] [--csv]",
        define_runs,
        run_runs,
    ),
    "eval": Command("evaluates a run's checkpoint", "--workdir=RUN [--checkpoint=last|best]", define_eval, run_eval),
    "export": Command(
        "writes a run's parameters as safetensors, with its config as JSON",
        "--workdir=RUN --out=DIR [--checkpoint=last|best]",
        define_export,
        run_export,
    ),
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
        "TABLE [--setting=smoke|cpu|...] [--layer=LAYER] [--cells=ROW ...] [--executor=vmap|local|ray] [--plan] [--render]",
        define_reproduce,
        run_reproduce,
    ),
    "report": Command(
        "writes one page of HTML with every table, plot and curve in a folder of results",
        "[DIR] [--out=FILE]",
        define_report,
        run_report,
    ),
    "bench": Command(
        "times scans, layers, training steps or decoding beside what they compete with",
        "scan|layer|train|decode [--family=A,B | --layer=A,B | --config=FILE[:ARG]] [--length=N,N ...] [--out=DIR]",
        define_bench,
        run_bench,
    ),
    "data": Command(
        "lists, makes, checks and shows the data sets on files",
        "list|prepare|check|show [NAME] [--data_dir=DIR] [--seed=N | --archive=FILE] [--split=SPLIT] [--index=N]",
        define_data,
        run_data,
    ),
    "list": Command("lists what there is", "layers|tasks|configs|tables [--verbose]", define_list, run_list),
    "completion": Command(
        'prints what makes a shell complete lrnn: eval "$(lrnn completion bash)"',
        "bash|zsh|fish",
        define_completion,
        run_completion,
    ),
}
