"""Orvieto et al. 2023, Figure 4: impulse responses of slowly decaying states, by the range of their phases."""

from typing import Any

from lrnn_jax.tables.plot_style import WIDTH
from lrnn_jax.tables.studies import Rows, Study


def study() -> Study:
    """Returns the figure."""
    shared = {"nu": 0.00005, "phases": (2.0, 0.02), "states": 3}
    return Study(
        title="Orvieto et al. 2023, Figure 4: impulse responses over 16 thousand steps",
        source="Figure 4: 3 states, nu = 0.00005, phases up to 2 pi or pi / 50, L = 16 thousand; the draw of phases is ours.",
        claim=(
            "Claim of the paper: with phases on the whole circle the response of a long memory oscillates all the time; with "
            "small phases it is slow, so that a state sees the long run of its input."
        ),
        compute="lrnn_jax.theory.lru_figures:study_impulse",
        settings={"smoke": {"steps": 1000, "points": 101, **shared}, "cpu": {"steps": 16_000, "points": 301, **shared}},
        figure=draw,
        summary=summarise,
        notes=("`sum` is what a constant input of 1 has added up to, which a fast oscillation cancels.",),
    )


def summarise(rows: Rows) -> Rows:
    """Returns a row per state: its wave, what is left of it at the end, and the largest sum."""
    found = []
    for place in dict.fromkeys((row["largest phase / pi"], row["state"]) for row in rows):
        own = [row for row in rows if (row["largest phase / pi"], row["state"]) == place]
        lag, theta = own[-1]["lag"], own[0]["theta"]
        peak = {"largest sum over the lags kept": max(row["sum"] for row in own)}
        wave = {"steps per wave": 2 * 3.141592653589793 / theta, "waves": theta * lag / (2 * 3.141592653589793)}
        found.append({"largest phase / pi": place[0], "state": place[1], "theta": theta, **wave, **peak})
    return found


def draw(figure: Any, rows: Rows) -> None:
    """Draws the responses of each range of phases, and the sums under them."""
    ranges = list(dict.fromkeys(row["largest phase / pi"] for row in rows))
    figure.set_size_inches(WIDTH, 5.6)
    for column, largest in zip(figure.subplots(2, len(ranges), sharex=True).T, ranges, strict=True):
        for state in dict.fromkeys(row["state"] for row in rows):
            own = [row for row in rows if (row["largest phase / pi"], row["state"]) == (largest, state)]
            lags = [row["lag"] for row in own]
            column[0].plot(lags, [row["response"] for row in own], linewidth=0.8, alpha=0.8)
            column[1].plot(lags, [row["sum"] for row in own], linewidth=0.8, label=f"theta = {own[0]['theta']:.3g}")
        column[0].set_title(f"phases up to {largest:g} pi")
        column[1].set(xlabel="lag", yscale="log")
        column[1].legend()
    figure.axes[0].set_ylabel("impulse response")
    figure.axes[len(ranges)].set_ylabel("response to a constant")
