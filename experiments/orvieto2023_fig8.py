"""Orvieto et al. 2023, Figure 8: one eigenvalue to a power, by Adam, in real and imaginary part and in modulus and phase."""

from typing import Any

from lrnn_jax.tables.plot_style import WIDTH
from lrnn_jax.tables.studies import Rows, Study

SOLVED = 1e-6


def study() -> Study:
    """Returns the figure."""
    shared = {"power": 100, "radius": 0.99, "phases": (0.0, 0.125, 0.25, 0.375, 0.5), "offset": 0.03, "every": 10}
    return Study(
        title="Orvieto et al. 2023, Figure 8: Adam on |lambda^100 - target^100|^2 / 2",
        source=(
            "Figure 8: the loss, k = 100, Adam, 500 iterations, a start of the right modulus and the wrong phase; targets, "
            "learning rates and the start's phase (0.03 away) are ours."
        ),
        claim="Claim of the paper: in Re+Im learning slows down as the target's phase goes to pi / 2; in Exp it does not.",
        compute="lrnn_jax.theory.lru_figures:study_landscape",
        settings={
            "smoke": {"steps": 100, "lrs": (1e-3,), **shared},
            "cpu": {"steps": 500, "lrs": (3e-4, 1e-3, 3e-3), **shared},
        },
        figure=draw,
        summary=summarise,
        notes=(
            f"A number is that of the first step kept at which the loss is below {SOLVED:g}; none where there is no such step.",
            "What came out: in Exp the course does not depend on the target's phase, as it cannot. In Re+Im it is slowest or "
            "fails where the phase is pi / 4 and both axes mix, and as fast at pi / 2 as at 0, where the axes have changed "
            "places: with this start it is not the approach to pi / 2 itself that is slow.",
        ),
    )


def summarise(rows: Rows) -> Rows:
    """Returns the steps until the loss is small: a row per learning rate and phase."""
    found = []
    for lr, phase in dict.fromkeys((row["lr"], row["phase / pi"]) for row in rows):
        place: dict[str, Any] = {"lr": lr, "phase / pi": phase}
        for name in ("Re+Im", "Exp"):
            own = [row for row in rows if (row["lr"], row["phase / pi"], row["parametrisation"]) == (lr, phase, name)]
            place[f"{name}: steps"] = next((row["step"] for row in own if row["loss"] < SOLVED), "none")
            place[f"{name}: last loss"] = own[-1]["loss"]
        found.append(place)
    return found


def draw(figure: Any, rows: Rows) -> None:
    """Draws the losses: a row per learning rate, a column per parametrisation."""
    lrs, names = (list(dict.fromkeys(row[key] for row in rows)) for key in ("lr", "parametrisation"))
    figure.set_size_inches(WIDTH, 2.8 * len(lrs) + 0.6)
    panels = figure.subplots(len(lrs), len(names), sharex=True, sharey=True, squeeze=False)
    for line, lr in zip(panels, lrs, strict=True):
        for axes, name in zip(line, names, strict=True):
            for phase in dict.fromkeys(row["phase / pi"] for row in rows):
                own = [row for row in rows if (row["lr"], row["phase / pi"], row["parametrisation"]) == (lr, phase, name)]
                axes.plot([row["step"] for row in own], [row["loss"] for row in own], label=f"{phase:g} pi")
            axes.set(yscale="log", title=f"{name}, learning rate {lr:g}", ylim=(1e-12, 10.0))
            axes.grid(alpha=0.3)
        line[0].set_ylabel("loss")
    panels[0, 0].legend(title="phase of the target")
    for axes in panels[-1]:
        axes.set_xlabel("step of Adam")
