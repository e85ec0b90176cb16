"""Orvieto et al. 2024: the input back from a linear recurrence's last state by a trained MLP, over N and spectrum."""

from collections.abc import Sequence
from typing import Any

from lrnn_jax.tables.declaring import Column, Row, Table, newcomer
from lrnn_jax.tables.plot_style import WIDTH

SIZES = (8, 16, 32)
# Initial eigenvalues; real ones keep the phases they start with, next to zero.
SPECTRA: dict[str, dict[str, Any]] = {
    "ring": {"model.layer.r_min": 0.99, "model.layer.r_max": 0.9999},
    "disk": {},
    "real": {"model.layer.max_phase": 1e-6, "optim.groups": [["theta_log$", 0.0, 0.0]]},
}
DATA = {"noise": "white noise", "smooth": "smooth, P=8"}


def table(layer: str = "") -> Table:
    """Returns the figure, with a row for ``layer`` if one is given."""
    rows = [
        Row(f"{name}, N={n}", "lru", fields={"model.layer.state_size": n, **fields}, line=name)
        for name, fields in SPECTRA.items()
        for n in SIZES
    ]
    return Table(
        title="Orvieto et al. 2024: 32 inputs reconstructed from the last state by a trained MLP",
        source="none: only the paper's abstract could be read.",
        claim=(
            "Claim of the paper: an MLP reads a linear recurrence's last state, which encodes the input without loss; complex "
            "eigenvalues near the unit circle greatly help."
        ),
        metric="nrmse",
        columns=tuple(Column(said, "configs/reconstruction.py", f"data={name}") for name, said in DATA.items()),
        rows=(*rows, *newcomer(layer)),
        seeds=3,
        settings=("smoke", "cpu"),
        paper="",
        legend="eigenvalues",
        notes=(
            "The design is ours, because the paper's could not be read. `nrmse` is 1 for a model that always answers the mean.",
            "N eigenvalues are trained together with the MLP; the state has 2 N numbers, its real and imaginary parts, of "
            "which real eigenvalues make N alike. The ring starts at absolute values from 0.99 to 0.9999, disk and real ones, "
            "which are positive, anywhere below 1.",
            "What came out: of white noise the ring holds what 2 N numbers and the last input, which the layer passes on, can "
            "hold (N = 8: 17 of 32, at best an error of sqrt(15/32) = 0.685), and 32 complex eigenvalues near the circle give "
            "nearly everything back; real ones do not get below 0.9 with any N. Of smooth inputs, which have 8 dimensions, the "
            "ring suffices with N = 8 in one seed of three and with N = 32 in all; real eigenvalues again do not.",
        ),
        figure=draw,
    )


def draw(figure: Any, cells: Sequence[Any]) -> None:
    """Draws each column's error over N."""
    figure.set_size_inches(WIDTH, 3.8)
    for axes, column in zip(figure.subplots(1, len(DATA), sharey=True), DATA.values(), strict=True):
        for color, name in enumerate(SPECTRA):
            own = [cell for cell in cells if cell.column.name == column and cell.row.line == name and cell.summary]
            sizes = [cell.row.fields["model.layer.state_size"] for cell in own]
            axes.plot(sizes, [cell.summary[0] for cell in own], f"C{color}o-", label=name)
            for size, cell in zip(sizes, own, strict=True):
                seeds = [value for value in cell.scores if value is not None]
                axes.plot([size] * len(seeds), seeds, f"C{color}.", alpha=0.5)
        axes.set(title=column, xlabel="N, eigenvalues", ylabel="nrmse", yscale="log")
        axes.set_xscale("log", base=2)
        axes.grid(alpha=0.3, which="both")
        axes.legend()
