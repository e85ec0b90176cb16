"""The command ``lrnn train``."""

import shlex
from pathlib import Path

from absl import flags

from lrnn_jax.cli.flags import config_flag, define_config, define_path, refuse_positional
from lrnn_jax.cli.runs import run_all
from lrnn_jax.cli.text import format_metrics
from lrnn_jax.errors import UserError


def define_train(values: flags.FlagValues) -> None:
    """Adds the command\'s flags."""
    define_config(values)
    define_path(
        "workdir",
        None,
        "the run's folder (default: runs/<hash of the config>); with seeds above 1 the folder of the runs",
        values,
    )


def run_train(values: flags.FlagValues, positional: list[str]) -> int:
    """Trains one run, or as many as there are seeds, and prints what the test says."""
    refuse_positional(positional)
    if values.config is None:
        raise UserError("lrnn train needs --config=FILE, such as --config=configs/parity.py")
    from lrnn_jax.config.checks import validate_config
    from lrnn_jax.config.identity import split_seeds
    from lrnn_jax.runs.store import default_workdir

    validate_config(values.config)
    flag = config_flag(values)
    words = [f"--config={flag.spec}", *(f"--config.{path}={value}" for path, value in flag.overrides.items())]
    if values.config.seeds != 1:
        return run_all(split_seeds(values.config), Path(values.workdir or "runs"), executor="vmap", retry_failed=True)
    from lrnn_jax.training.loop import train

    workdir = Path(values.workdir) if values.workdir else default_workdir(values.config)
    result = train(values.config, workdir, said=f"lrnn train {shlex.join(words)}")
    print(format_metrics(result["metrics"]))
    print(f"\n{workdir / 'result.json'}: {result['steps']} steps, {result['wall_time_s']:.1f} s")
    return 0
