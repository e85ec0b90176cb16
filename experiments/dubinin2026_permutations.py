"""Dubinin et al. 2026: composing permutations, S2 to S5, over block size and order."""

from typing import Any

from lrnn_jax.parts.budgets import fit_blocks, fit_channels
from lrnn_jax.tables.declaring import Column, Row, Selection, Table, newcomer

GROUPS = ("S2", "S3", "S4", "S5")
PARAMETERS = 16_000
SMALL: dict[str, Any] = {
    "model.norm": "layernorm",
    "model.mixer": "swiglu",
    "model.mixer_hidden": 176,
    "model.depth": 2,
    "optim.lr": 3e-3,
    "train.batch_size": 64,
    "eval.examples": 512,
}
TASK: dict[str, Any] = {"task.bos": False, "task.padding": False}
# At setting cpu: group -> letters, length and steps. The first positions teach the later ones, so that S4 is learned sooner
# from few elements than from 16; of the 120 elements of S5 no model learns even the product of two in so many steps.
CPU_TASKS = {"S2": ("all", 16, 2000), "S3": ("all", 16, 2000), "S4": ("all", 8, 4000), "S5": ("swaps", 16, 3000)}
WIDTHS = {"cpu": 64, "dubinin2026": 128}


def columns() -> list[Column]:
    """Returns the paper's four tasks, and those of setting cpu."""
    file = "configs/word_problem.py"
    found = [Column(group, file, f"group={group},letters=all", TASK, settings=("dubinin2026",)) for group in GROUPS]
    for group, (letters, length, steps) in CPU_TASKS.items():
        fields = {
            **TASK,
            "train.length": [length, length],
            "train.duration": f"{steps} steps",
            "eval.lengths": [[length, length], [2 * length, 2 * length]],
            "eval.headline": [length, length],
        }
        found.append(Column(group, file, f"group={group},letters={letters}", fields, settings=("smoke", "cpu")))
    return found


def table(layer: str = "") -> Table:
    """Returns the table, with a row for ``layer`` if one is given."""
    rows = []
    for setting, width in WIDTHS.items():
        settings = ("smoke", setting) if setting == "cpu" else (setting,)
        parameters = PARAMETERS * (width // 64) ** 2
        for m in (1, 2, 3, 4, 5):
            fields = {"model.layer.block_size": m, "model.layer.blocks": fit_blocks(width, m, parameters)}
            rows.append(Row(f"BD-LRU m={m}", "bd_lru", fields=fields, settings=settings))
        for m in (2, 4):
            fields = {"model.layer.order": m, "model.layer.channels": fit_channels(width, m, parameters)}
            rows.append(Row(f"H-LRU m={m}", "h_lru", fields=fields, settings=settings))
    heads = {"model.layer.heads": 2, "model.layer.head_dim": 16}
    rows += [
        Row("LSTM", "lstm"),
        Row("Mamba2", "mamba2/positive", fields={"model.layer.expand": 1, "model.layer.state_size": 32}),
        Row("Gated DeltaNet [-1, 1]", "gated_deltanet/negative", fields=heads),
        Row(
            "Gated DeltaProduct-4 [-1, 1]",
            "deltaproduct/negative",
            fields={"model.layer.householders": 4, "model.layer.gated": True, **heads},
        ),
    ]
    return Table(
        title="Dubinin et al. 2026: composition of permutations, S2 to S5, accuracy at every position",
        source="the paper's numbers could not be read.",
        claim=(
            "Claim of the paper: BD-LRU with blocks of a moderate size solves all of S3 to S5 and exceeds linear and "
            "non-linear baselines; H-LRU is limited on permutations."
        ),
        metric="accuracy",
        columns=tuple(columns()),
        rows=(*rows, *newcomer(layer)),
        seeds=3,
        settings=("smoke", "cpu", "dubinin2026"),
        paper="dubinin2026",
        selection=Selection(grids={"smoke": ({**SMALL, "train.duration": "40 steps", "eval.examples": 64},), "cpu": (SMALL,)}),
        over_sizes=True,
        legend="layer",
        notes=(
            "Trained on 16 elements from all of the group, drawn anew for ever at setting cpu (dubinin2026: 100 thousand "
            "sequences), and tested on as many; the test of twice as many is in the records.",
            "A layer's parameters stand in the table: the LRUs have about as many as Mamba2.",
            "At setting cpu S4 is trained on eight elements and S5 on its swaps alone: of 16 elements of S4 nothing was "
            "learned in 2000 steps, and of two arbitrary ones of S5 not even the product. A swap is one reflection, which "
            "Gated DeltaNet and DeltaProduct [-1, 1] have built in. BD-LRU solves S3 from m = 3 and S4 from m = 4 on, and S5 "
            "with m = 5.",
            "The wall times were taken beside other work, some of them at half the speed or less.",
        ),
    )
