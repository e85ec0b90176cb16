"""Orvieto et al. 2024: how far back the input is known beside how far back gradients reach, by radius."""

from typing import Any

from lrnn_jax.tables.plot_style import WIDTH
from lrnn_jax.tables.studies import Rows, Study

REACHES = ("gradient", "float32", "float64")


def study() -> Study:
    """Returns the figure."""
    bounds = {"vanished": 1e-3, "tolerance": 0.1}
    radii = (0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)
    return Study(
        title="Orvieto et al. 2024: lags at which the input is known and lags at which gradients have not vanished",
        source="only the paper's abstract could be read, which connects memory and vanishing gradients: the design is ours.",
        claim=(
            "Claim of the paper: complex eigenvalues near the unit circle help the recurrence to store information; this is "
            "connected with vanishing gradients."
        ),
        compute="lrnn_jax.theory.reconstruction:study_horizons",
        settings={
            "smoke": {"steps": 32, "count": 64, "radii": (0.7, 1.0), **bounds},
            "cpu": {"steps": 256, "count": 512, "radii": radii, **bounds},
        },
        figure=draw,
        notes=(
            "`gradient`: lags whose gradient d h_T / d u is at least a thousandth of the last input's. `float32`, `float64`: "
            "lags whose white-noise input is reconstructed by least squares to a tenth of its deviation, in that precision. At "
            "most T.",
            "What came out: gradients depend on the radius alone, information on the phases as well. With evenly spaced phases "
            "both reaches grow as 1 / log(1/r), and the input is known further back than gradients reach: where r^k has fallen "
            "to the N eps below which least squares tells nothing, 1.4 times as far in float32 and 4.3 times in float64. Real "
            "eigenvalues keep a few lags whatever the radius is, with gradients that have not vanished at all: slow decay is "
            "not memory.",
        ),
    )


def draw(figure: Any, rows: Rows) -> None:
    """Draws the reaches over the radius, and the input's over the gradient's."""
    spectra = list(dict.fromkeys(row["spectrum"] for row in rows))
    figure.set_size_inches(WIDTH, 7.0)
    panels = figure.subplots(2, 2, sharey=True).flatten()
    panels[3].axis("off")
    radii = sorted({row["radius"] for row in rows})
    for color, spectrum in enumerate(spectra):
        own = [row for row in rows if row["spectrum"] == spectrum]
        for axes, dtype in zip(panels, ("float32", "float64"), strict=False):
            places = [radii.index(row["radius"]) for row in own]
            axes.plot(places, [row[dtype] for row in own], f"C{color}o-", markersize=4, label=f"{spectrum}: input")
            axes.plot(places, [row["gradient"] for row in own], f"C{color}--", linewidth=1, label=f"{spectrum}: gradient")
            axes.set(xlabel="radius", title=f"known in {dtype}")
            axes.set_xticks(range(len(radii)), [f"{radius:g}" for radius in radii])
        panels[2].plot([row["gradient"] for row in own], [row["float32"] for row in own], f"C{color}o-", markersize=4)
    panels[0].set(yscale="log", ylabel="lags", ylim=(3, 400))
    panels[2].set_ylabel("lags")
    panels[3].legend(*panels[0].get_legend_handles_labels(), loc="center")
    longest = max(row["gradient"] for row in rows)
    panels[2].plot([3, longest], [3, longest], "k:", linewidth=0.8)
    panels[2].set(xscale="log", xlabel="lags that gradients reach", title="one point per radius, float32")
    for axes in panels[:3]:
        axes.grid(alpha=0.3)
