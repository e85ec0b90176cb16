"""Numbers and tables as text on a terminal."""

import re
import sys
from collections.abc import Sequence
from typing import Any


def format_metrics(metrics: dict[str, Any]) -> str:
    """Returns metrics laid out as one row per evaluation set, the headline first, lengths in their order and then names."""

    def order(name: str) -> tuple[bool, int, str]:
        lengths = re.fullmatch(r"(\d+)-\d+", name)
        return (not lengths, int(lengths[1]) if lengths else 0, name)

    names = [name for name in metrics if "/" not in name]
    sets = sorted({name.partition("/")[2] for name in metrics if "/" in name}, key=order)
    rows: list[tuple[str, ...]] = [("lengths", *names), ("headline", *(f"{metrics[name]:.4f}" for name in names))]
    rows += [(each, *(f"{metrics[f'{name}/{each}']:.4f}" for name in names)) for each in sets]
    return align(rows)


def align(rows: Sequence[tuple[str, ...]]) -> str:
    """Returns rows of equally many cells as lines with aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def cell(value: Any) -> str:
    """Returns a table's cell: numbers with four digits, nothing for None."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def complain(message: str, code: int) -> int:
    """Says what went wrong, in one line; returns the exit code."""
    print(f"lrnn: {' '.join(message.split(chr(10)))}", file=sys.stderr)
    return code
