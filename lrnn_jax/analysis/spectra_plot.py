"""Spectra of trained transitions as a table and as a plot, from the file that `lrnn spectra` writes."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Tokens that are told apart, the commonest; the others stand together.
MOST_TOKENS = 12
# Points of one token in one panel; beyond, quantiles of the real part stand for all.
MOST_POINTS = 2000
# Imaginary parts below are the rounding of float32.
REAL = 1e-5


class Group(NamedTuple):
    """The eigenvalues of one block at the positions of one token, or of all that are not told apart.

    Attributes:
      name: the token's.
      positions: how many.
      values: ``[positions n]`` complex64.
    """

    name: str
    positions: int
    values: np.ndarray


def read_spectra(file: Path) -> list[list[Group]]:
    """Returns each block's groups, in the order of the tokens' numbers; positions of padding are left out."""
    with np.load(file) as loaded:
        arrays = dict(loaded)
    tokens = arrays["tokens"]
    inside = np.arange(tokens.shape[1])[None] < arrays["lengths"][:, None]
    there, counts = np.unique(tokens[inside], return_counts=True)
    chosen = np.sort(there[np.argsort(-counts, kind="stable")[:MOST_TOKENS]])
    masks = [(arrays["names"][token], inside & (tokens == token)) for token in chosen]
    if len(there) > len(chosen):
        masks.append((f"{len(there) - len(chosen)} others", inside & ~np.isin(tokens, chosen)))
    blocks = sum(name.startswith("block_") for name in arrays)
    return [[Group(str(name), mask.sum(), arrays[f"block_{i}"][mask]) for name, mask in masks] for i in range(blocks)]


def list_spectra(file: Path) -> list[tuple[str, ...]]:
    """Returns a table, its header first: the ranges of each block's eigenvalues at each token."""
    head = ("block", "token", "positions", "smallest Re", "largest Re", "largest |Im|", "largest modulus")
    rows: list[tuple[str, ...]] = [head]
    for i, groups in enumerate(read_spectra(file)):
        for name, positions, values in groups:
            ends = (values.real.min(), values.real.max(), np.abs(values.imag).max(), np.abs(values).max())
            rows.append((str(i), name, str(positions), *(f"{end:z.4f}" for end in ends)))
    return rows


def draw_spectra(file: Path, path: Path) -> None:
    """Draws a panel per block.

    Real eigenvalues stand over the token that they belong to; complex ones in the plane, around the unit circle, in the
    token's colour.
    """
    from matplotlib.figure import Figure

    blocks = read_spectra(file)
    across = min(len(blocks), 4)
    down = math.ceil(len(blocks) / across)
    figure = Figure(figsize=(4.6 * across + 0.4, 4.0 * down + 0.2), layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for i, (axes, groups) in enumerate(zip(panels, blocks, strict=False)):
        real = all(np.abs(group.values.imag).max() < REAL for group in groups)
        (_draw_over_tokens if real else _draw_in_plane)(axes, groups)
        axes.set_title(f"block {i}")
        axes.grid(alpha=0.3)
    for unused in panels[len(blocks) :]:
        unused.set_visible(False)
    # no version or date inside, so that the same numbers give the same file
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _draw_over_tokens(axes: Any, groups: list[Group]) -> None:
    moment = np.random.default_rng(0)
    for i, (_, style, values) in enumerate(_points(groups)):
        axes.plot(i + moment.uniform(-0.3, 0.3, values.shape), values.real, **style)
    names = [name for name, _, _ in _points(groups)]
    axes.set_xticks(range(len(groups)), names, rotation=90 if max(map(len, names)) > 4 else 0)
    axes.set(xlabel="token", ylabel="eigenvalue of $A_t$", xlim=(-0.6, len(groups) - 0.4), ylim=_limits(groups))


def _draw_in_plane(axes: Any, groups: list[Group]) -> None:
    turn = np.exp(2j * np.pi * np.linspace(0.0, 1.0, 181))
    axes.plot(turn.real, turn.imag, color="black", linewidth=0.5)
    for name, style, values in _points(groups):
        axes.plot(values.real, values.imag, label=name, **style)
    axes.legend(title="token", frameon=False, fontsize="x-small", markerscale=4, loc="center left", bbox_to_anchor=(1.0, 0.5))
    limits = _limits(groups)
    axes.set(xlabel="real part", ylabel="imaginary part", xlim=limits, ylim=limits, aspect="equal")


def _points(groups: list[Group]) -> Iterator[tuple[str, dict[str, Any], np.ndarray]]:
    """Yields each group's label, style and points, in the order of their real parts."""
    from matplotlib import colormaps

    for i, group in enumerate(groups):
        values = np.sort(group.values.ravel())
        if len(values) > MOST_POINTS:
            values = values[np.linspace(0, len(values) - 1, MOST_POINTS).astype(int)]
        # its ten strong colours before the ten pale ones
        colour = colormaps["tab20"](2 * i % 20 + i // 10)
        style = {"linestyle": "", "marker": ".", "markersize": 4, "markeredgewidth": 0, "alpha": 0.5, "color": colour}
        yield group.name.replace("$", r"\$"), style, values


def _limits(groups: list[Group]) -> tuple[float, float]:
    largest = max(1.05, *(float(np.abs(group.values).max()) for group in groups)) + 0.05
    return -largest, largest
