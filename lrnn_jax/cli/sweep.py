"""The command ``lrnn sweep``."""

import sys
from pathlib import Path
from typing import Any

from absl import flags

from lrnn_jax.cli.flags import config_flag, define_config, define_path, define_ray, refuse_positional
from lrnn_jax.cli.runs import run_all
from lrnn_jax.errors import UserError


def define_sweep(values: flags.FlagValues) -> None:
    """Adds the command\'s flags."""
    define_config(values)
    flags.DEFINE_string("sweep", "", "which: def sweep_NAME() of the config file, def sweep() if empty", values)
    flags.DEFINE_string("executor", "vmap", "vmap: side by side in one program | local: one by one | ray: on a cluster", values)
    define_path("workdir", "runs", "folder of the runs", values)
    flags.DEFINE_boolean("plan", False, "print programs, time and memory, and train nothing", values)
    flags.DEFINE_boolean("retry_failed", False, "try failed runs again", values)
    flags.DEFINE_string("part", None, "I/N: only the I-th of N parts, as in an array job", values)
    define_ray(values)


def resolve_flags(values: flags.FlagValues) -> list[Any]:
    """Returns the configs of all runs of the sweep that the flags of ``lrnn sweep`` name, whatever part of it is to run.

    Raises:
      UserError: no config file, no such sweep, or a config that cannot run.
    """
    if values.config is None:
        raise UserError("lrnn sweep needs --config=FILE, such as --config=configs/parity.py")
    from lrnn_jax.sweeps.sweep import resolve_sweep

    flag = config_flag(values)
    return resolve_sweep(flag.spec, values.sweep, flag.overrides)


def run_sweep(values: flags.FlagValues, positional: list[str]) -> int:
    """Trains the runs of a sweep, or a part of them, or says what they would take."""
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
    return run_all(
        configs,
        store,
        said=said,
        check=False,  # done where the sweep was resolved
        part=values.part is not None,
        executor=values.executor,
        retry_failed=values.retry_failed,
        ray_address=values.ray_address,
        workers=values.workers,
    )
