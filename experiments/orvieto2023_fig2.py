"""Orvieto et al. 2023, Figures 2 and 3: eigenvalues of a Glorot matrix, and of diagonals drawn from a disk and a ring."""

from typing import Any

from lrnn_jax.tables.plot_style import WIDTH
from lrnn_jax.tables.studies import Rows, Study


def study() -> Study:
    """Returns the figures."""
    ring = {"r_min": 0.9, "r_max": 0.99}
    return Study(
        title="Orvieto et al. 2023, Figures 2 and 3: where initial eigenvalues lie",
        source="Theorem 1 and Lemma 2; N and the ring are ours.",
        claim="Claim of the paper: a Glorot matrix has eigenvalues uniform on the unit disk, so a diagonal may be drawn there.",
        compute="lrnn_jax.theory.lru_figures:study_eigenvalues",
        settings={"smoke": {"size": 50, **ring}, "cpu": {"size": 500, **ring}},
        figure=draw,
        summary=summarise,
        notes=("A uniform disk has a share of r^2 within the radius r: 0.25 within 0.5, 0.81 within 0.9.",),
    )


def summarise(rows: Rows) -> Rows:
    """Returns shares of the eigenvalues within some radii."""
    found = []
    for name in dict.fromkeys(row["from"] for row in rows):
        radii = [abs(complex(row["re"], row["im"])) for row in rows if row["from"] == name]
        shares = {f"within {r:g}": sum(radius < r for radius in radii) / len(radii) for r in (0.5, 0.9, 1.0)}
        found.append({"from": name, "eigenvalues": len(radii), **shares, "smallest": min(radii), "largest": max(radii)})
    return found


def draw(figure: Any, rows: Rows) -> None:
    """Draws the eigenvalues in the plane, with the unit circle."""
    names = list(dict.fromkeys(row["from"] for row in rows))
    figure.set_size_inches(WIDTH, 8.4)
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    panels[1, 1].set_visible(False)
    for axes, name in zip(panels.flat, names, strict=False):
        own = [row for row in rows if row["from"] == name]
        axes.plot([row["re"] for row in own], [row["im"] for row in own], ".", markersize=3)
        axes.add_artist(_circle())
        axes.set(title=name, xlabel="real part", aspect="equal", xlim=(-1.1, 1.1), ylim=(-1.1, 1.1))
    figure.axes[0].set_ylabel("imaginary part")


def _circle() -> Any:
    from matplotlib.patches import Circle

    return Circle((0, 0), 1.0, fill=False, linewidth=0.8)
