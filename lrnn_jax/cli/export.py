"""The command ``lrnn export``."""

from absl import flags

from lrnn_jax.cli.flags import define_path, refuse_positional
from lrnn_jax.errors import UserError


def define_export(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define_path("workdir", None, "the run's folder", values)
    define_path("out", None, "the new folder, for model.safetensors and config.json", values)
    flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "which checkpoint", values)


def run_export(values: flags.FlagValues, positional: list[str]) -> int:
    """Writes a run's parameters for other programs, and says what they are."""
    refuse_positional(positional)
    if not values.workdir or not values.out:
        raise UserError("lrnn export needs --workdir=RUN and --out=DIR")
    import jax

    from lrnn_jax.analysis.exporting import export_run

    weights = export_run(values.workdir, values.out, which=values.checkpoint)
    sizes = [leaf.size for leaf in jax.tree.leaves(weights.variables)]
    print(f"{values.out}: {len(sizes)} arrays of {sum(sizes):,} numbers, {values.checkpoint} checkpoint, step {weights.steps}")
    return 0
