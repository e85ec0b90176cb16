"""Grazzi et al. 2025, App. E.2.2: the word problem of Z60, addition modulo 60, with one and two tokens per transition."""

from lrnn_jax.tables.declaring import MEAN_OVER_LENGTHS, Column, Row, Selection, Table, newcomer

MODELS = {
    "DeltaNet [-1, 1]": "deltanet/negative",
    "DeltaNet [0, 1]": "deltanet/positive",
    "Mamba [-1, 1]": "mamba/negative",
    "Mamba [0, 1]": "mamba/positive",
}
COLUMNS = {"Z60": "tokens=1", "2 tokens per transition": "tokens=2"}


def table(layer: str = "") -> Table:
    """Returns the figure, with a row for ``layer`` if one is given."""
    return Table(
        title="Grazzi et al. 2025, App. E.2.2: the word problem of Z60, sequence accuracy by length",
        source="the figure of App. E.2.2 shows curves of one seed without numbers, so no published number stands here.",
        claim=(
            "Claim of the paper: Mamba [-1, 1] is the best, [0, 1] worse, a second token helps little, and nothing goes far "
            "beyond its training length."
        ),
        metric="sequence_accuracy",
        columns=tuple(Column(name, "configs/word_problem.py", f"group=Z60,{words}") for name, words in COLUMNS.items()),
        rows=(*(Row(name, ours) for name, ours in MODELS.items()), *newcomer(layer)),
        seeds=3,
        # one layer of single reflections or of real decays cannot add modulo 60 (Theorems 2 and 6)
        selection=Selection(grids={"cpu": ({"model.depth": 2},)}),
        positions="sequence_accuracy_by_length",
        legend="model",
        notes=(MEAN_OVER_LENGTHS, "At setting cpu, Mamba has no convolution, as in configs/parity.py."),
    )
