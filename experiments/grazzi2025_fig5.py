"""Grazzi et al. 2025, Table 4, Figures 5 and 10, on a laptop: byte-level language models, perplexity over length."""

from typing import Any

from lrnn_jax.tables.declaring import Column, Row, Selection, Table, newcomer

MODELS = {
    "DeltaNet [0, 1]": "deltanet/positive",
    "DeltaNet [-1, 1]": "deltanet/negative",
    "Mamba [0, 1]": "mamba/positive",
    "Mamba [-1, 1]": "mamba/negative",
}
# Rows run on across documents, as the paper packs them: a context then is all that stands before in the row.
COLUMNS: dict[str, dict[str, Any]] = {
    "code: the Python standard library": {"task.data": "stdlib", "task.reset": False},
    "text: IMDB reviews": {"task.data": "tfds:imdb_reviews/plain_text", "task.reset": False},
}
SMALL: dict[str, Any] = {
    "model.width": 64,
    "model.depth": 2,
    "model.mixer_hidden": 128,
    "train.length": [256, 256],
    "train.duration": "1000 steps",
    "train.steps_per_dispatch": 50,
    "eval.lengths": [[256, 256], [2048, 2048]],
    "eval.headline": [256, 256],
    "eval.examples": 64,
    "eval.every": "50%",
    "checkpoint.every": "25%",
}


def table(layer: str = "") -> Table:
    """Returns the figures, with a row for ``layer`` if one is given."""
    return Table(
        title="Grazzi et al. 2025, Table 4, Figures 5 and 10, with small models: perplexity per byte",
        source=(
            "the paper's models have 340 and 370 million parameters and read 100 billion tokens of FineWeb (its perplexities "
            "on Wikitext: DeltaNet [0, 1] 24.68, [-1, 1] 24.54; Mamba [0, 1] 24.84, [-1, 1] 25.02). These have a hundred "
            "thousand and read bytes, so no published number stands beside theirs."
        ),
        claim=(
            "Claim of the paper: the range makes little difference on text; over length, DeltaNet [-1, 1] has the lower "
            "perplexity on code and mathematics, and Mamba [-1, 1] the higher one."
        ),
        metric="perplexity",
        columns=tuple(Column(name, "configs/language_modeling.py", fields=fields) for name, fields in COLUMNS.items()),
        rows=(*(Row(name, ours) for name, ours in MODELS.items()), *newcomer(layer)),
        seeds=3,
        settings=("smoke", "cpu"),
        paper="",
        selection=Selection(grids={"cpu": (SMALL,)}),
        positions="perplexity_by_context",
        legend="model",
        notes=(
            "Trained on rows of 256 bytes. The curves are of rows of 2048: position 2^n to 2^(n+1) - 1 of them, together; the "
            "last point, 2048, is one position of each row and therefore noisy.",
            "The corpora: the sources of the standard library of the Python that trained, below; 50,000 film reviews, half of "
            "them for the test (`LRNN_DATA_DIR` must hold them).",
        ),
    )
