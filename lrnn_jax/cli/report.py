"""The command ``lrnn report``."""

import sys
from pathlib import Path

from absl import flags

from lrnn_jax.cli.flags import define_path, expand_path
from lrnn_jax.cli.text import complain
from lrnn_jax.errors import UserError


def define_report(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define_path("out", None, "the page (default: report.html in DIR)", values)


def run_report(values: flags.FlagValues, positional: list[str]) -> int:
    """Writes the page; 1 where something in the folder cannot be shown."""
    if len(positional) > 1:
        raise UserError(f"lrnn report takes one DIR, and not {positional[1]!r} too")
    from lrnn_jax.tables.report import write_report
    from lrnn_jax.tables.reproducing import results_folder

    folder = expand_path(positional[0]) if positional else results_folder()
    out = Path(values.out) if values.out else folder / "report.html"
    shown, refused = write_report(folder, out)
    print(f"{out}: {shown} of {shown + len(refused)} tables and studies in {folder}")
    for line in refused:
        print(f"lrnn: {line}", file=sys.stderr)
    return complain(f"{len(refused)} of {shown + len(refused)} cannot be shown; the page says why", 1) if refused else 0
