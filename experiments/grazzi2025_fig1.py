"""Grazzi et al. 2025, Figure 1: parity by a diagonal LRNN with eigenvalues in [0, 1] and in [-1, 1]."""

from lrnn_jax.tables.declaring import Column, Published, Row, Table, newcomer

PLACE = "Figure 1 and its text"


def table(layer: str = "") -> Table:
    """Returns the figure, with a row for ``layer`` if one is given."""
    return Table(
        title="Grazzi et al. 2025, Figure 1: parity by the diagonal LRNN, by the range of its eigenvalues",
        source=(
            "the figure and its text: [0, 1] stays at chance, [-1, 1] solves the task at every length; read as 0.0 and 1.0, "
            "since the paper prints no numbers."
        ),
        claim="Claim of the paper: only with negative eigenvalues does a linear RNN learn parity and extrapolate.",
        metric="scaled_accuracy",
        columns=(Column("", "configs/parity.py"),),
        rows=(
            Row("[0, 1]", "diagonal/positive", {"": Published(0.0, PLACE)}),
            Row("[-1, 1]", "diagonal/negative", {"": Published(1.0, PLACE)}),
            *newcomer(layer),
        ),
        seeds=3,
        settings=("smoke", "cpu", "grazzi2025", "grazzi2025-released"),
        legend="eigenvalues",
    )
