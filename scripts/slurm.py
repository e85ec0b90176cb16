"""Writes a Slurm array job for a sweep: each task trains one part of it into the same folder.

    python scripts/slurm.py --config=configs/parity.py:mamba --sweep=layers --tasks=20 --workdir=runs > sweep.sbatch
    sbatch sweep.sbatch

The folder must be on a disk that all nodes see. A task that is killed or preempted is queued again and resumes where it was;
finished runs are never run again, so the same job can be submitted as often as it takes.
"""

import shlex
import sys

from absl import app, flags

from lrnn_jax.sweeps.sweep import resolve_sweep

_CONFIG = flags.DEFINE_string("config", None, "config FILE[:ARG]", required=True)
_SWEEP = flags.DEFINE_string("sweep", "", "which sweep of the config file; empty: def sweep()")
_WORKDIR = flags.DEFINE_string("workdir", "runs", "folder of the runs")
_TASKS = flags.DEFINE_integer("tasks", 10, "tasks of the array job", lower_bound=1)
_EXECUTOR = flags.DEFINE_enum("executor", "vmap", ["vmap", "local"], "how each task trains its part")
_OVERRIDE = flags.DEFINE_multi_string(
    "override", [], "FIELD=VALUE for every run, such as train.duration='1000 steps'; repeatable"
)
_TIME = flags.DEFINE_string("time", "24:00:00", "time limit of a task, as Slurm writes it")
_GPUS = flags.DEFINE_integer("gpus", 1, "GPUs per task", lower_bound=0)
_CPUS = flags.DEFINE_integer("cpus", 4, "cores per task", lower_bound=1)


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


def main(argv: list[str]) -> None:
    """Prints the job for the flags."""
    if len(argv) > 1:
        sys.exit(f"unexpected argument {argv[1]!r}")
    overrides = dict(word.split("=", 1) for word in _OVERRIDE.value)
    runs = len(resolve_sweep(_CONFIG.value, _SWEEP.value, {}))
    command = ["lrnn", "sweep", f"--config={_CONFIG.value}", *(f"--config.{name}={value}" for name, value in overrides.items())]
    command += [f"--sweep={_SWEEP.value}", f"--executor={_EXECUTOR.value}", f"--workdir={_WORKDIR.value}"]
    job = format_job(runs=runs, tasks=_TASKS.value, command=command, time=_TIME.value, gpus=_GPUS.value, cpus=_CPUS.value)
    print(job, end="")


if __name__ == "__main__":
    app.run(main)
