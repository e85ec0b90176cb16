"""Orvieto et al. 2024: the input back from a linear recurrence's last state, by spectrum, size, radius and precision."""

from typing import Any

from lrnn_jax.tables.plot_style import WIDTH
from lrnn_jax.tables.studies import Rows, Study

GOOD = 0.01  # a reconstruction of less relative error than this
DTYPES = ("float32", "float64")


def study() -> Study:
    """Returns the figure."""
    small = {"steps": 16, "ratios": (0.5, 1.0, 2.0), "radii": (0.5, 1.0), "lengths": (8, 16), "dimensions": 4}
    full = {
        "steps": 64,
        "ratios": (0.125, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0),
        "radii": (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0),
        "lengths": (8, 12, 16, 20, 24, 28, 32, 48, 64, 128, 256, 512),
        "dimensions": 8,
    }
    return Study(
        title="Orvieto et al. 2024: the input reconstructed by least squares from the last state of a linear recurrence",
        source="only the paper's abstract could be read: spectra, sizes, data and decoder are ours.",
        claim=(
            "Claim of the paper: a linear recurrence is a lossless encoder of its input, with real eigenvalues too; complex "
            "ones near the unit circle greatly help it to store information."
        ),
        compute="lrnn_jax.theory.reconstruction:study_reconstruction",
        settings={"smoke": small, "cpu": full},
        figure=draw,
        summary=summarise,
        notes=(
            "N eigenvalues of a real matrix, closed under conjugation, hold N real numbers. State and decoder compute in the "
            f"precision that is named. A cell counts as reconstructed below a relative error of {GOOD:g}; every error and "
            "condition number stands in table.csv.",
            "The ring has absolute values from 0.99 to 1 and random phases, the disk those of the uniform distribution; roots "
            "of unity are N evenly spaced points of the circle.",
            "What came out: with real eigenvalues N = T is lossless in float64 for short inputs only, because the condition "
            "number grows exponentially with T, and more eigenvalues do not help. On the unit circle it is lossless in float32 "
            "at every T tried if the phases are evenly spaced. Random phases lie too near to each other at N = T, and need "
            "about N = 1.5 T. Where inputs have P dimensions that the decoder knows, N well below T suffices, for real "
            "eigenvalues too; evenly spaced phases with N below T cannot tell an input from that N steps before.",
        ),
    )


def summarise(rows: Rows) -> Rows:
    """Returns a row per spectrum: from where on, or up to where, it reconstructs."""
    spectra = list(dict.fromkeys(row["spectrum"] for row in rows))
    return [_summarise_one([row for row in rows if row["spectrum"] == spectrum], spectrum) for spectrum in spectra]


def _summarise_one(rows: Rows, spectrum: str) -> dict[str, Any]:
    steps = next(row["T"] for row in rows)
    square = next(row for row in rows if row["walk"] == "N/T" and row["N"] == row["T"])
    found: dict[str, Any] = {"spectrum": spectrum, f"condition at N = T = {steps}": square["condition"]}
    smooth = next(row["data"] for row in rows if row["data"] != "white noise")
    for dtype in DTYPES:
        # up to the first length that is not reconstructed
        lengths = [row for row in rows if row["walk"] == "T"]
        good = [row["T"] for i, row in enumerate(lengths) if all(before[dtype] < GOOD for before in lengths[: i + 1])]
        found[f"longest T at N = T, {dtype}"] = max(good, default="none")
    for name, data in (("", "white noise"), (f" ({smooth})", smooth)):
        for dtype in DTYPES:
            good = [row["N"] for row in rows if row["walk"] == "N/T" and row["data"] == data and row[dtype] < GOOD]
            found[f"smallest N at T = {steps}{name}, {dtype}"] = min(good, default="none")
    for dtype in DTYPES:
        good = [row["radius"] for row in rows if row["walk"] == "radius" and row[dtype] < GOOD]
        found[f"smallest radius at N = T = {steps}, {dtype}"] = min(good, default="none")
    return found


def draw(figure: Any, rows: Rows) -> None:
    """Draws a row per walk: the condition number, and the errors in float32 and, dashed, in float64."""
    walks = [("N/T", "white noise"), ("N/T", next(row["data"] for row in rows if row["data"] != "white noise"))]
    walks += [("radius", "white noise"), ("T", "white noise")]
    spectra = list(dict.fromkeys(row["spectrum"] for row in rows))
    figure.set_size_inches(WIDTH, 2.5 * len(walks) + 0.6)
    panels = figure.subplots(len(walks), 2, sharex="row", sharey="col")
    for (walk, data), (left, right) in zip(walks, panels, strict=True):
        for axes, value, line in ((left, "condition", "-"), (right, DTYPES[0], "-"), (right, DTYPES[1], "--")):
            for color, spectrum in enumerate(spectra):
                own = [row for row in rows if (row["walk"], row["data"], row["spectrum"]) == (walk, data, spectrum)]
                at = [
                    row["N"] / row["T"] if walk == "N/T" else 1.02 - row["radius"] if walk == "radius" else row["T"]
                    for row in own
                ]
                axes.plot(at, [row[value] for row in own], f"C{color}o{line}", markersize=3, label=spectrum)
            axes.set(yscale="log", xlabel=walk)
            axes.grid(alpha=0.3)
        right.axhline(GOOD, color="black", linestyle=":", linewidth=0.8)
        steps = {row["T"] for row in rows if row["walk"] == walk}
        where = "N = T" if walk == "T" else f"T = {min(steps)}" if walk == "N/T" else f"N = T = {min(steps)}"
        left.set_title(f"{data}, {where}", loc="left")
        left.set_ylabel("condition number")
        right.set_ylabel("error, float32 and (dashed) float64")
        if walk == "radius":
            ticks = [row["radius"] for row in rows if row["walk"] == walk and row["spectrum"] == spectra[0]]
            shown = [radius for radius in ticks if radius in (0.5, 0.8, 0.9, 0.95, 0.99, 1.0)]
            left.set_xscale("log")
            left.invert_xaxis()
            left.minorticks_off()
            left.set_xticks([1.02 - radius for radius in shown], [f"{radius:g}" for radius in shown])
        if walk == "T":
            left.set_xscale("log", base=2)
    panels[0, 0].set_ylim(0.5, 1e21)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
