"""Writes a Slurm array job for a sweep: each task trains one part of it into the same folder.

    python scripts/slurm.py --config=configs/parity.py --sweep=layers --tasks=20 --workdir=runs > sweep.sbatch
    sbatch sweep.sbatch

The folder must be on a disk that all nodes see. A task that is killed or preempted is queued again and resumes where it was;
finished runs are never run again, so the same job can be submitted as often as it takes.
"""

import shlex
import sys
from collections.abc import Sequence

from absl import flags

from lrnn_jax.cli.flags import describe_flags
from lrnn_jax.cli.main import parse_flags
from lrnn_jax.cli.sweep import resolve_flags
from lrnn_jax.errors import UserError, suggest


def define(values: flags.FlagValues) -> None:
    """Adds the script's flags."""
    flags.DEFINE_string("config", None, "config FILE[:ARG]", values, required=True)
    flags.DEFINE_string("sweep", "", "which sweep of the config file; empty: def sweep()", values)
    flags.DEFINE_string("workdir", "runs", "folder of the runs", values)
    flags.DEFINE_integer("tasks", 10, "tasks of the array job", lower_bound=1, flag_values=values)
    flags.DEFINE_enum("executor", "vmap", ["vmap", "local"], "how each task trains its part", values)
    flags.DEFINE_multi_string(
        "override", [], "FIELD=VALUE for every run, such as train.duration='1000 steps'; repeatable", values
    )
    flags.DEFINE_string("time", "24:00:00", "time limit of a task, as Slurm writes it", values)
    flags.DEFINE_integer("gpus", 1, "GPUs per task", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("cpus", 4, "cores per task", lower_bound=1, flag_values=values)


def format_job(*, runs: int, tasks: int, command: list[str], time: str, gpus: int, cpus: int) -> str:
    """Returns the job's text: ``tasks`` array tasks, but no more than there are runs."""
    tasks = min(tasks, runs)
    lines = [
        "#!/bin/bash",
        "#SBATCH --job-name=lrnn",
        f"#SBATCH --array=1-{tasks}",
        f"#SBATCH --time={time}",
        f"#SBATCH --cpus-per-task={cpus}",
        *([f"#SBATCH --gpus-per-task={gpus}", "#SBATCH --ntasks=1"] if gpus else []),
        "#SBATCH --requeue",
        "#SBATCH --signal=B:TERM@120",
        f"# {runs} runs in {tasks} parts",
        "# SIGTERM goes to the shell; it hands it on, the run saves itself, and the task is queued again",
        "trap 'kill -TERM $child; wait $child; scontrol requeue ${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}' TERM",
        f"{shlex.join(command)} --part=${{SLURM_ARRAY_TASK_ID}}/{tasks} &",
        "child=$!",
        "wait $child",
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str]) -> int:
    """Prints the job for the flags; returns 0, or 2 for a user's mistake."""
    values = flags.FlagValues()
    define(values)
    if any(word in ("-h", "--help") for word in argv):
        print(f"{__doc__}\n{describe_flags(values)}")
        return 0
    try:
        print(_write_job(values, argv), end="")
    except (UserError, flags.Error) as error:
        print(f"slurm.py: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    return 0


def _write_job(values: flags.FlagValues, argv: Sequence[str]) -> str:
    try:
        positional = values(["slurm.py", *argv])[1:]
    except flags.UnrecognizedFlagError as error:
        raise UserError(f"unknown flag --{error.flagname}{suggest(error.flagname, values)}") from error
    if positional:
        raise UserError(f"unexpected argument {positional[0]!r}; flags start with --")
    for word in values.override:
        if not word.partition("=")[0] or "=" not in word:
            raise UserError(f"--override={word!r} must be FIELD=VALUE")
    arguments = [f"--config={values.config}", *(f"--config.{word}" for word in values.override)]
    arguments += [f"--sweep={values.sweep}", f"--executor={values.executor}", f"--workdir={values.workdir}"]
    # what every task will do with them, so that a job which would be refused is not written
    sweep, _ = parse_flags("sweep", arguments)
    runs = len(resolve_flags(sweep))
    command = ["lrnn", "sweep", *arguments]
    return format_job(runs=runs, tasks=values.tasks, command=command, time=values.time, gpus=values.gpus, cpus=values.cpus)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
