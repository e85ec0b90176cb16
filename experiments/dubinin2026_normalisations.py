"""Dubinin et al. 2026, Figure 2: what the joint L1 normalisation of the gates is worth."""

from typing import Any

from lrnn_jax.parts.budgets import fit_blocks
from lrnn_jax.tables.declaring import Column, Row, Table, newcomer

# setting -> block size of its models, their width, and the parameters of one layer
MODELS = {"cpu": (3, 64, 16_000), "dubinin2026": (4, 128, 330_000)}
GATES = ("softmax", "sigmoid", "relu", "tanh", "linear", "silu", "none")


def table(layer: str = "") -> Table:
    """Returns the figure, with a row for ``layer`` if one is given."""
    rows = []
    for setting, (m, width, parameters) in MODELS.items():
        fields: dict[str, Any] = {"model.layer.block_size": m, "model.layer.blocks": fit_blocks(width, m, parameters)}
        settings = ("smoke", setting) if setting == "cpu" else (setting,)
        rows += [Row(f"{name}, m={m}", f"bd_lru/{name}", fields=fields, settings=settings) for name in (*GATES, "fixed")]
    return Table(
        title="Dubinin et al. 2026, Figure 2: normalisations of BD-LRU's gates",
        source="the figure's numbers could not be read; reviews of the paper say that ReLU does very badly.",
        claim=(
            "Claim of the paper: normalising the gates of a row together, so that their magnitudes add up to at most 1, makes "
            "training stable and lets blocks grow."
        ),
        metric="macro_accuracy",
        columns=(
            Column("selective copying", "configs/selective_copying.py"),
            Column("in-context recall", "configs/in_context_recall.py"),
        ),
        rows=(*rows, *newcomer(layer)),
        seeds=3,
        settings=("smoke", "cpu", "dubinin2026"),
        paper="dubinin2026",
        legend="gates",
        notes=(
            "`none` has no normalisation and no bound, `fixed` softmax gates that do not depend on the input, whose layer has "
            "the fewer parameters for it.",
            "At setting cpu ReLU is among the worst on both tasks, as reviews say. Without normalisation recall is solved and "
            "copying fails; tanh solves recall, and copying with one seed of three; gates that do not select fail at both.",
        ),
    )
