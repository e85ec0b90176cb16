"""Throughput over block size and over length."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lrnn_jax.bench.grids import Point, Row

_WORDS = {"batch": "B=", "length": "T=", "width": "D=", "block_size": "m="}


def draw_throughput(rows: Sequence[Row], rate: str, path: Path) -> None:
    """Draws a panel over block size where there are several, and one over length; one line per program and other sizes.

    Args:
      rows: what was measured.
      rate: what the y axis says; steps are steps, everything else is per position.
      path: of the PNG.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    axes = [axis for axis in ("block_size", "length") if len({getattr(row.point, axis) for row in rows} - {None}) > 1]
    axes = axes or ["length"]
    figure = Figure(figsize=(5.5 * len(axes) + 3.5, 4.2), layout="constrained")
    for panel, axis in zip(figure.subplots(1, len(axes), squeeze=False).flat, axes, strict=True):
        for i, (label, points) in enumerate(collect_lines(rows, axis, rate).items()):
            style = {"color": f"C{i % 10}", "linestyle": ("-", "--", ":", "-.")[i // 10 % 4]}
            panel.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label, **style)
        panel.set(xlabel={"block_size": "m", "length": "T"}[axis], ylabel=rate, yscale="log")
        if axis == "length":
            panel.set_xscale("log", base=2)
        else:
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    # no version or date inside, so that the same numbers give the same file
    figure.savefig(path, dpi=150, metadata={"Software": None})


def collect_lines(rows: Sequence[Row], axis: str, rate: str) -> dict[str, list[tuple[float, float]]]:
    """Returns (``axis``, throughput) of every line, by its label: the program, and of the other sizes those that vary."""
    varying = [
        field for field in Point._fields if field not in (axis, "what") and len({getattr(r.point, field) for r in rows}) > 1
    ]
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        x: Any = getattr(row.point, axis)
        if not row.timed.seconds or x is None:
            continue
        sizes = [
            f"{_WORDS.get(field, '')}{getattr(row.point, field)}" for field in varying if getattr(row.point, field) is not None
        ]
        amount = 1 if rate == "steps/s" else row.point.batch if row.point.passes == "decode" else row.point.positions
        lines.setdefault(" ".join([row.point.what, row.name, *sizes]), []).append((x, amount / row.timed.seconds))
    return {label: sorted(points) for label, points in lines.items()}
