"""Spectra of trained transitions as a plot."""

from pathlib import Path

import numpy as np

# More tokens than this are not told apart by colour.
COLOURS = 10


def draw_spectra(file: Path, path: Path) -> None:
    """Draws what `lrnn_jax.training.spectra.save_spectra` wrote, a panel per block.

    Real eigenvalues stand over the token that they belong to; complex ones in the plane, around the unit circle, in the
    token's colour.
    """
    from matplotlib.figure import Figure

    arrays = np.load(file)
    tokens, names = arrays["tokens"], sorted((name for name in arrays if name != "tokens"), key=lambda n: int(n[6:]))
    figure = Figure(figsize=(4.2 * len(names) + 0.4, 4.0), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        values = arrays[name]
        where = np.broadcast_to(tokens[..., None], values.shape)
        if np.abs(values.imag).max() < 1e-5:
            jitter = np.random.default_rng(0).uniform(-0.3, 0.3, values.shape)
            axes.plot((where + jitter).ravel(), values.real.ravel(), ".", markersize=2, alpha=0.4)
            axes.set(xlabel="token", ylabel="eigenvalue of A", ylim=(-1.1, 1.1))
            axes.axhline(0.0, color="black", linewidth=0.5)
        else:
            axes.add_patch(_unit_circle())
            axes.scatter(values.real.ravel(), values.imag.ravel(), s=2, alpha=0.4, c=where.ravel() % COLOURS, cmap="tab10")
            axes.set(xlabel="real part", ylabel="imaginary part", xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal")
        axes.set_title(f"block {int(name[6:])}")
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _unit_circle() -> object:
    from matplotlib.patches import Circle

    return Circle((0.0, 0.0), 1.0, fill=False, color="black", linewidth=0.5)
