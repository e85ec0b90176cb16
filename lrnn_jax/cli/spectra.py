"""The command ``lrnn spectra``."""

import tempfile
from pathlib import Path

from absl import flags

from lrnn_jax.cli.flags import define_path, refuse_positional
from lrnn_jax.cli.text import align
from lrnn_jax.errors import UserError


def define_spectra(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define_path("workdir", None, "the run's folder; spectra.npz and spectra.png are written there", values)
    flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "which checkpoint", values)
    flags.DEFINE_integer("examples", 4, "sequences of the test stream", 1, flag_values=values)
    flags.DEFINE_integer("length", None, "of each (default: the longest of the training)", 1, flag_values=values)


def run_spectra(values: flags.FlagValues, positional: list[str]) -> int:
    """Writes the eigenvalues and their plot, and prints their ranges."""
    refuse_positional(positional)
    if not values.workdir:
        raise UserError("lrnn spectra needs --workdir=RUN")
    import numpy as np

    from lrnn_jax.analysis.spectra import measure_run
    from lrnn_jax.analysis.spectra_plot import draw_spectra, list_spectra

    workdir = Path(values.workdir)
    arrays, step = measure_run(workdir, which=values.checkpoint, examples=values.examples, length=values.length)
    try:
        # in a folder of their own first, so that no reader sees half of one, and the plot is always that of the numbers
        with tempfile.TemporaryDirectory(dir=workdir, prefix=".spectra") as scratch:
            file, plot = Path(scratch, "spectra.npz"), Path(scratch, "spectra.png")
            np.savez_compressed(file, **arrays)
            draw_spectra(file, plot)
            rows = list_spectra(file)
            for made in (file, plot):
                made.replace(workdir / made.name)
    except OSError as error:
        raise UserError(f"cannot write in --workdir={workdir}: {error.strerror}") from error
    print(align(rows))
    sequences, positions = arrays["tokens"].shape
    of_what = f"{values.checkpoint} checkpoint, step {step}; {sequences} test sequences of {positions} tokens"
    print(f"\n{workdir / 'spectra.png'}: {of_what}")
    return 0
