"""The command ``lrnn eval``."""

from pathlib import Path

from absl import flags

from lrnn_jax.cli.flags import define_path, refuse_positional
from lrnn_jax.cli.text import format_metrics
from lrnn_jax.errors import UserError, name_fields


def define_eval(values: flags.FlagValues) -> None:
    """Adds the command\'s flags."""
    define_path("workdir", None, "the run's folder", values)
    flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "which checkpoint", values)
    flags.DEFINE_list("lengths", None, "length buckets instead of the config's, such as 40-64,512-1024", values)
    flags.DEFINE_integer("examples", None, "examples per bucket instead of the config's", flag_values=values, lower_bound=1)


def run_eval(values: flags.FlagValues, positional: list[str]) -> int:
    """Evaluates a checkpoint and prints its metrics."""
    refuse_positional(positional)
    if not values.workdir:
        raise UserError("lrnn eval needs --workdir=RUN")
    from lrnn_jax.training.evaluation import evaluate_run

    lengths = [_parse_bucket(text) for text in values.lengths] if values.lengths else None
    try:
        result = evaluate_run(Path(values.workdir), which=values.checkpoint, lengths=lengths, examples=values.examples)
    except UserError as error:
        raise UserError(name_fields(str(error), {"lengths": "--lengths", "examples": "--examples"})) from error
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
