"""How plots look: a width that a page shows at full size, and letters that can be read there."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

# Inches. A page of 830 pixels shows this at 96 to the inch, so that letters have the size they say.
WIDTH = 8.6
FORMATS = ("png", "pdf")
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "figure.titlesize": 10,
}


def paper_style() -> AbstractContextManager[None]:
    """Returns the context in which figures are made and saved."""
    import matplotlib as mpl

    return mpl.rc_context(_STYLE)


def save_figure(figure: Any, path: Path) -> None:
    """Writes a PNG or a PDF by the name's ending; the same figure gives the same bytes, without version or date."""
    undated: dict[str, Any] = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": None}
    figure.savefig(path, dpi=150, metadata=undated)


def in_words(name: str) -> str:
    """Returns a metric's name as a label."""
    return name.replace("_", " ")
