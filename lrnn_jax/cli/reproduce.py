"""The command ``lrnn reproduce``."""

from pathlib import Path

from absl import flags

from lrnn_jax.cli.flags import define_path, define_ray
from lrnn_jax.cli.list import LISTS
from lrnn_jax.cli.text import align, complain
from lrnn_jax.errors import UserError


def define_reproduce(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    flags.DEFINE_string("setting", "cpu", "smoke | cpu | one named after a paper, as far as the table has them", values)
    flags.DEFINE_string("layer", "", "NAME or module:Class, with /VARIANT, that gets a further row in every column", values)
    define_path("workdir", "runs", "folder of the runs", values)
    define_path("results", None, "folder of tables and plots (default: experiments/results)", values)
    flags.DEFINE_multi_string("cells", [], "rows to train, ROW or COLUMN/ROW, with * and ?; repeatable (default: all)", values)
    flags.DEFINE_string("executor", "vmap", "vmap: seeds side by side in one program | local: one by one | ray", values)
    flags.DEFINE_list("format", ["png"], "of the plot: png, pdf or both", values)
    flags.DEFINE_boolean("missing", False, "train only what has no record in the results yet", values)
    flags.DEFINE_boolean("plan", False, "print programs, time and memory of what would be trained; train nothing", values)
    flags.DEFINE_boolean("render", False, "draw table and plot again from the records; train nothing", values)
    flags.DEFINE_boolean("retry_failed", False, "try failed runs again", values)
    flags.DEFINE_boolean("list", False, "list the tables", values)
    define_ray(values)


def run_reproduce(values: flags.FlagValues, positional: list[str]) -> int:
    """Trains what a table lacks and prints it."""
    if values.list:
        print(align(LISTS["tables"]()))
        return 0
    if len(positional) != 1:
        raise UserError("lrnn reproduce needs one TABLE (`lrnn reproduce --list` shows all)")
    from lrnn_jax.tables.reproducing import reproduce

    text, failed = reproduce(
        positional[0],
        setting=values.setting,
        workdir=Path(values.workdir),
        results=values.results,
        layer=values.layer,
        executor=values.executor,
        cells=values.cells,
        formats=values.format,
        retry_failed=values.retry_failed,
        only_missing=values.missing,
        only_render=values.render,
        only_plan=values.plan,
        ray_address=values.ray_address,
        workers=values.workers,
    )
    print(text)
    return complain(f"{failed} runs failed; --retry_failed tries them again", 1) if failed else 0
