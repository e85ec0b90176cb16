"""Orvieto et al. 2023, Figure 9: the gain of a recurrence with eigenvalues on a ring, measured and by Proposition 3."""

import statistics
from typing import Any

from lrnn_jax.tables.plot_style import WIDTH
from lrnn_jax.tables.studies import Rows, Study


def study() -> Study:
    """Returns the figure."""
    rings = ((0.0, 0.9), (0.0, 0.99), (0.0, 0.999), (0.9, 0.99), (0.9, 0.999), (0.99, 0.999))
    return Study(
        title="Orvieto et al. 2023, Figure 9: gain of a ring of eigenvalues",
        source="Proposition 3; Figure 9: N = 500, L = 10 thousand, 10 runs, constant and random input; the rings are ours.",
        claim="Claim of the paper: Proposition 3 predicts the gain E|x|^2 / E|B u|^2, more accurately for random inputs.",
        compute="lrnn_jax.theory.lru_figures:study_gains",
        settings={
            "smoke": {"size": 100, "steps": 1000, "runs": 4, "rings": rings[:2]},
            "cpu": {"size": 500, "steps": 10_000, "runs": 10, "rings": rings},
        },
        figure=draw,
        summary=summarise,
        notes=(
            "Inputs are one number per step: 1, or white noise. Eigenvalues, B and input are drawn anew in every run.",
            "What came out: near the unit circle random inputs agree, and constant ones fall short and scatter, because few of "
            "the 500 phases are near 0, and those make nearly all of the gain. Far inside the disk it is the other way round: "
            "the gain of a random input is that of its last few numbers.",
        ),
    )


def summarise(rows: Rows) -> Rows:
    """Returns mean, median and deviation over the runs of each ring and input."""
    found = []
    for ring in dict.fromkeys((row["r_min"], row["r_max"]) for row in rows):
        own = [row for row in rows if (row["r_min"], row["r_max"]) == ring]
        place: dict[str, Any] = {"r_min": ring[0], "r_max": ring[1], "closed form": own[0]["closed form"]}
        for name in ("constant", "random"):
            gains = [row["gain"] for row in own if row["input"] == name]
            place[f"{name}: mean"], place[f"{name}: median"] = statistics.fmean(gains), statistics.median(gains)
            place[f"{name}: deviation"] = statistics.stdev(gains)
        found.append(place)
    return found


def draw(figure: Any, rows: Rows) -> None:
    """Draws the runs of each ring as boxes whose whiskers are the 5th and the 95th percentile, and the closed form."""
    rings = list(dict.fromkeys((row["r_min"], row["r_max"]) for row in rows))
    figure.set_size_inches(WIDTH, 4.0)
    axes = figure.subplots()
    for shift, (name, color) in zip((-0.18, 0.18), (("constant", "C0"), ("random", "C1")), strict=True):
        gains = [
            [row["gain"] for row in rows if (row["r_min"], row["r_max"]) == ring and row["input"] == name] for ring in rings
        ]
        places = [place + shift for place in range(len(rings))]
        boxes = axes.boxplot(gains, positions=places, widths=0.3, whis=(5, 95), patch_artist=True, showfliers=False)
        for box in boxes["boxes"]:
            box.set(facecolor=color, alpha=0.5)
        axes.plot([], [], color=color, linewidth=6, alpha=0.5, label=f"{name} input")
    expected = [next(row["closed form"] for row in rows if (row["r_min"], row["r_max"]) == ring) for ring in rings]
    axes.plot(range(len(rings)), expected, "k_", markersize=40, label="Proposition 3")
    axes.set_xticks(range(len(rings)), [f"[{r_min:g}, {r_max:g}]" for r_min, r_max in rings])
    axes.set(xlabel="ring", ylabel="gain", yscale="log")
    axes.legend()
