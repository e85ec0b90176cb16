"""Grazzi et al. 2025, Figure 1: parity by a diagonal LRNN with eigenvalues in [0, 1] and in [-1, 1]."""

from lrnn_jax.tables.declaring import Row, Table

TABLE = Table(
    title="Grazzi et al. 2025, Figure 1: parity by the diagonal LRNN, by the range of its eigenvalues",
    source=(
        "the figure and its text: [0, 1] stays at chance, [-1, 1] solves the task at every length; read as 0.0 and 1.0, "
        "since the paper prints no numbers."
    ),
    claim="Claim of the paper: only with negative eigenvalues does a linear RNN learn parity and extrapolate.",
    metric="scaled_accuracy",
    rows=(
        Row("[0, 1]", "configs/parity.py:diagonal,positive", published=0.0),
        Row("[-1, 1]", "configs/parity.py:diagonal,negative", published=1.0),
    ),
    seeds=3,
    legend="eigenvalues",
)
