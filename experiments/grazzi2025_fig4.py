"""Grazzi et al. 2025, Figures 4 and 7: word problems of S5 with few letters, all of them, and four tokens per letter."""

from typing import Any

from lrnn_jax.tables.declaring import MEAN_OVER_LENGTHS, Row, Table

ONE, FIVE = {"model.depth": 1}, {"model.depth": 5}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "DeltaNet [-1, 1], 1 layer": ("deltanet,negative", ONE),
    "DeltaNet [-1, 1], 5 layers": ("deltanet,negative", FIVE),
    "DeltaNet [0, 1], 1 layer": ("deltanet,positive", ONE),
    "DeltaNet [0, 1], 5 layers": ("deltanet,positive", FIVE),
    "Mamba [-1, 1], 5 layers": ("mamba,negative", FIVE),
    "Mamba [0, 1], 5 layers": ("mamba,positive", FIVE),
    "full matrix, 1 layer": ("full_matrix", ONE),
}
COLUMNS = {
    "only swaps": "letters=swaps",
    "swaps, 3-permutations": "letters=moved_3",
    "all of S5": "letters=all",
    "4 tokens per transition": "letters=all,tokens=4",
}

TABLE = Table(
    title="Grazzi et al. 2025, Figures 4 and 7: word problems of S5, sequence accuracy by length",
    source="Figures 4 and 7 show curves without numbers, so no published number stands here.",
    claim=(
        "Claim of the paper: DeltaNet [-1, 1] solves swaps with one layer far beyond its training length and 3-permutations "
        "with five; with [0, 1] it goes little beyond, Mamba is poor everywhere, and nothing solves all of S5."
    ),
    metric="sequence_accuracy",
    rows=tuple(
        Row(name, f"configs/word_problem.py:{layer},group=S5,{words}", None, column, fields)
        for column, words in COLUMNS.items()
        for name, (layer, fields) in MODELS.items()
    ),
    seeds=3,
    positions="sequence_accuracy_by_length",
    legend="model",
    notes=(
        MEAN_OVER_LENGTHS,
        "At scale cpu, training ends after 3000 steps of 48 to 192 rows (swaps: 1000 steps of 64 rows), the paper's after "
        "312 500 steps of 512. A model that is wrong at the length of its training has not fitted, and says nothing of what it "
        "could represent.",
        "At scale cpu, all layers have one learning rate, and Mamba has no convolution, as in configs/parity.py.",
    ),
)
