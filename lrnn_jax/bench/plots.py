"""Throughput over block size and over length."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrnn_jax.bench.grids import Point, Row

_DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 4)), (0, (8, 3)))
# (program, other sizes) -> points of a line.
Lines = dict[tuple[str, str], list[tuple[float, float]]]
_WORDS = {"batch": "B=", "length": "T=", "width": "D=", "block_size": "m="}


def draw_throughput(rows: Sequence[Row], rate: str, path: Path) -> None:
    """Draws a row of panels per family or layer: over block size where there are several, and over length.

    A colour is a program, and a dash the other sizes.

    Args:
      rows: what was measured.
      rate: what the y axis says; steps are steps, everything else is per position.
      path: of the PNG.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    axes = [axis for axis in ("block_size", "length") if len({getattr(row.point, axis) for row in rows} - {None}) > 1]
    axes = axes or ["length"]
    families, programs = (list(dict.fromkeys(names)) for names in ((r.point.what for r in rows), (r.name for r in rows)))
    colours = {program: f"C{i % 10}" for i, program in enumerate(programs)}
    figure = Figure(figsize=(8.6, 3.0 * len(families) + 0.4), layout="constrained")
    panels = figure.subplots(len(families), len(axes), squeeze=False, sharey="row")
    for family, line_of_panels in zip(families, panels, strict=True):
        own = [row for row in rows if row.point.what == family]
        for panel, axis in zip(line_of_panels, axes, strict=True):
            _draw_lines(panel, collect_lines(own, axis, rate), colours)
            panel.set(xlabel={"block_size": "m", "length": "T"}[axis], yscale="log", title=family)
            if axis == "length":
                panel.set_xscale("log", base=2)
            else:
                panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.grid(alpha=0.3)
        line_of_panels[0].set_ylabel(rate)
    # no version or date inside, so that the same numbers give the same file
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _draw_lines(panel: Any, lines: Lines, colours: Mapping[str, str]) -> None:
    """Draws the lines, and a legend of the programs' colours and, where there are several sizes, of their dashes."""
    sizes = list(dict.fromkeys(size for _, size in lines))
    dashes = {size: _DASHES[i % len(_DASHES)] for i, size in enumerate(sizes)}
    for (program, size), points in lines.items():
        style = {"color": colours[program], "linestyle": dashes[size]}
        panel.plot(*zip(*points, strict=True), marker="o", markersize=2, linewidth=1, **style)
    for program in dict.fromkeys(program for program, _ in lines):
        panel.plot([], [], color=colours[program], label=program)
    for size in filter(None, sizes):
        panel.plot([], [], color="grey", linestyle=dashes[size], label=size)
    if lines:
        panel.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def collect_lines(rows: Sequence[Row], axis: str, rate: str) -> Lines:
    """Returns (``axis``, throughput) of every line, by the program and those of the other sizes that vary."""
    varying = [
        field for field in Point._fields if field not in (axis, "what") and len({getattr(r.point, field) for r in rows}) > 1
    ]
    lines: Lines = {}
    for row in rows:
        x: Any = getattr(row.point, axis)
        if not row.timed.seconds or x is None:
            continue
        sizes = [
            f"{_WORDS.get(field, '')}{getattr(row.point, field)}" for field in varying if getattr(row.point, field) is not None
        ]
        amount = 1 if rate == "steps/s" else row.point.batch if row.point.passes == "decode" else row.point.positions
        lines.setdefault((row.name, " ".join(sizes)), []).append((x, amount / row.timed.seconds))
    return {line: sorted(points) for line, points in lines.items()}
