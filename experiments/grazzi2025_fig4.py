"""Grazzi et al. 2025, Figures 4 and 7: word problems of S5 with few letters, all of them, and four tokens per letter."""

from typing import Any

from lrnn_jax.tables.declaring import MEAN_OVER_LENGTHS, Column, Row, Table, newcomer

DEPTHS: dict[str, dict[str, Any]] = {", 1 layer": {"model.depth": 1}, ", 5 layers": {"model.depth": 5}}
MODELS = {
    "DeltaNet [-1, 1], 1 layer": "deltanet/negative",
    "DeltaNet [-1, 1], 5 layers": "deltanet/negative",
    "DeltaNet [0, 1], 1 layer": "deltanet/positive",
    "DeltaNet [0, 1], 5 layers": "deltanet/positive",
    "Mamba [-1, 1], 5 layers": "mamba/negative",
    "Mamba [0, 1], 5 layers": "mamba/positive",
    "full matrix, 1 layer": "full_matrix",
}
COLUMNS = {
    "only swaps": "letters=swaps",
    "swaps, 3-permutations": "letters=moved_3",
    "all of S5": "letters=all",
    "4 tokens per transition": "letters=all,tokens=4",
}


def table(layer: str = "") -> Table:
    """Returns the figures, with a row for ``layer`` at each depth if one is given."""
    rows = [Row(name, ours, fields=DEPTHS[f", {name.rpartition(', ')[2]}"]) for name, ours in MODELS.items()]
    return Table(
        title="Grazzi et al. 2025, Figures 4 and 7: word problems of S5, sequence accuracy by length",
        source="Figures 4 and 7 show curves without numbers, so no published number stands here.",
        claim=(
            "Claim of the paper: DeltaNet [-1, 1] solves swaps with one layer far beyond its training length and "
            "3-permutations with five; with [0, 1] it goes little beyond, Mamba is poor everywhere, and nothing solves "
            "all of S5."
        ),
        metric="sequence_accuracy",
        columns=tuple(Column(name, "configs/word_problem.py", f"group=S5,{words}") for name, words in COLUMNS.items()),
        rows=(*rows, *newcomer(layer, DEPTHS)),
        seeds=3,
        positions="sequence_accuracy_by_length",
        legend="model",
        notes=(
            MEAN_OVER_LENGTHS,
            "At setting cpu, training ends after 3000 steps of 48 to 192 rows (swaps: 1000 steps of 64 rows), the paper's "
            "after 312 500 steps of 512. A model that is wrong at the length of its training has not fitted, and says nothing "
            "of what it could represent.",
            "At setting cpu, all layers have one learning rate, and Mamba has no convolution, as in configs/parity.py.",
        ),
    )
