"""Orvieto et al. 2024: driven differential equations by one linear recurrence and an MLP, over N and the MLP's width."""

from collections.abc import Sequence
from typing import Any

from lrnn_jax.tables.declaring import Column, Row, Table, newcomer
from lrnn_jax.tables.plot_style import WIDTH

SIZES, HIDDEN = (4, 16, 64), (4, 16, 64)
# Phases stay where they start, next to zero: a real eigenvalue in (0, 1).
EIGENVALUES: dict[str, dict[str, Any]] = {
    "complex": {},
    "real": {"model.layer.max_phase": 1e-6, "optim.groups": [["theta_log$", 0.0, 0.0]]},
}
NAMES = {"protein_transduction": "protein transduction", "lotka_volterra": "Lotka-Volterra"}


def table(layer: str = "") -> Table:
    """Returns the figure, with a row for ``layer`` if one is given."""
    sizes = [*((n, HIDDEN[-1]) for n in SIZES), *((SIZES[-1], m) for m in HIDDEN[:-1])]
    rows = [
        Row(f"{kind}, N={n}, MLP {m}", "lru", fields={"model.layer.state_size": n, "model.mixer_hidden": m, **fields})
        for kind, fields in EIGENVALUES.items()
        for n, m in sizes
    ]
    return Table(
        title="Orvieto et al. 2024: driven ODEs learned by one linear recurrence and an MLP",
        source="none: only the paper's abstract could be read.",
        claim=(
            "Claim of the paper: one linear recurrence with real or complex eigenvalues and an MLP after it approximate any "
            "regular causal map; complex eigenvalues near the unit circle help the recurrence to store information."
        ),
        metric="nrmse",
        columns=tuple(Column(said, "configs/driven_ode.py", f"system={name}") for name, said in NAMES.items()),
        rows=(*rows, *newcomer(layer)),
        seeds=3,
        settings=("smoke", "cpu"),
        paper="",
        legend="eigenvalues",
        notes=(
            "The design is ours, because the paper's could not be read: the systems' inputs, lengths, sizes, training and "
            "measure. `nrmse` is 1 for a model that always answers the mean.",
            "N eigenvalues, which are trained, start uniform on the unit disk, the real ones as their absolute values. Real "
            "eigenvalues are positive; each has a real and an imaginary channel, so that both kinds have 2 N numbers as state.",
            "What came out: both kinds follow the protein pathway, which relaxes, and there real eigenvalues are better in the "
            "mean at every size, clearly so with 4 of them; at N = 64 the seeds overlap. Lotka-Volterra's populations "
            "oscillate: there complex eigenvalues are better at every size, and real ones stay near 0.7 whatever N and the "
            "MLP's width are. More eigenvalues and a wider MLP help everywhere, from N = 16 on little for real ones.",
        ),
        figure=draw,
    )


def draw(figure: Any, cells: Sequence[Any]) -> None:
    """Draws each column's error over N with the widest MLP, and over the MLP's width with the largest N."""
    figure.set_size_inches(WIDTH, 6.6)
    panels = figure.subplots(2, len(NAMES), sharey=True)
    for column, pair in zip(NAMES.values(), panels.T, strict=True):
        pair[0].set_title(column)
        for color, kind in enumerate(EIGENVALUES):
            for axes, axis, fixed in zip(
                pair, ("model.layer.state_size", "model.mixer_hidden"), ({"model.mixer_hidden": HIDDEN[-1]},
                {"model.layer.state_size": SIZES[-1]}), strict=True
            ):  # fmt: skip
                own = [cell for cell in cells if cell.column.name == column and cell.row.name.startswith(kind) and cell.summary]
                own = [cell for cell in own if fixed.items() <= cell.row.fields.items()]
                points = sorted((cell.row.fields[axis], cell.summary[0]) for cell in own)
                axes.plot(*zip(*points, strict=True), color=f"C{color}", marker="o", label=kind)
                for cell in own:
                    seeds = [value for value in cell.scores if value is not None]
                    axes.plot([cell.row.fields[axis]] * len(seeds), seeds, f"C{color}.", alpha=0.5)
                axes.set(yscale="log", ylabel="nrmse")
                axes.set_xscale("log", base=2)
                axes.grid(alpha=0.3, which="both")
        pair[0].set_xlabel(f"N, eigenvalues (MLP {HIDDEN[-1]})")
        pair[1].set_xlabel(f"hidden width of the MLP (N = {SIZES[-1]})")
    panels[0, 0].legend()
