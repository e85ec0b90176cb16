"""Dubinin et al. 2026: language models of equal size over the block size, small and on bytes."""

from typing import Any

from lrnn_jax.parts.budgets import fit_blocks, fit_channels
from lrnn_jax.tables.declaring import Column, Row, Selection, Table, newcomer

# parameters of one layer at setting cpu; at its width an LSTM has 33 thousand
PARAMETERS, WIDTH = 33_000, 64
# m -> blocks of the released configs, whose layers have about 6.5 million parameters
RELEASED = {1: 2112, 2: 844, 4: 302, 8: 96, 16: 28}
SMALL: dict[str, Any] = {
    "model.width": WIDTH,
    "model.depth": 2,
    "model.mixer_hidden": 176,
    "train.length": [256, 256],
    "train.duration": "1000 steps",
    "train.steps_per_dispatch": 50,
    "eval.lengths": [[256, 256], [1024, 1024]],
    "eval.headline": [256, 256],
    "eval.examples": 64,
    "eval.every": "50%",
    "checkpoint.every": "25%",
}
CONFIG = "configs/language_modeling.py"
OURS, THEIRS = ("smoke", "cpu"), ("dubinin2026",)


def table(layer: str = "") -> Table:
    """Returns the table, with a row for ``layer`` if one is given."""
    rows = []
    for m, released in RELEASED.items():
        for settings, blocks in ((OURS, fit_blocks(WIDTH, m, PARAMETERS)), (THEIRS, released)):
            fields = {"model.layer.block_size": m, "model.layer.blocks": blocks}
            rows.append(Row(f"BD-LRU m={m}", "bd_lru", fields=fields, settings=settings, line="BD-LRU"))
    for form in ("companion", "observer"):
        for settings, channels in ((OURS, fit_channels(WIDTH, 16, PARAMETERS)), (THEIRS, 242)):
            form_fields: dict[str, Any] = {"model.layer.order": 16, "model.layer.channels": channels, "model.layer.form": form}
            rows.append(Row(f"H-LRU m=16, {form}", "h_lru", fields=form_fields, settings=settings))
    rows += [
        Row("LSTM", "lstm"),
        Row("Mamba2", "mamba2/positive", fields={"model.layer.expand": 2, "model.layer.state_size": 32}, settings=OURS),
        Row("Mamba2", "mamba2/positive", fields={"model.layer.expand": 3, "model.layer.state_size": 1}, settings=THEIRS),
    ]
    return Table(
        title="Dubinin et al. 2026: perplexity of language models at equal parameters",
        source=(
            "the paper's models have 210 million parameters and read ten billion tokens of FineWeb-Edu; its perplexities could "
            "not be read."
        ),
        claim="Claim of the paper: how a state is mixed, and not its width alone, decides what a layer can do.",
        metric="perplexity",
        columns=(
            Column("code: the Python standard library", CONFIG, fields={"task.data": "stdlib"}, settings=OURS),
            Column("FineWeb-Edu", CONFIG, settings=THEIRS),
        ),
        rows=(*rows, *newcomer(layer)),
        seeds=3,
        settings=("smoke", "cpu", "dubinin2026"),
        paper="",
        selection=Selection(grids={"cpu": (SMALL,)}),
        over_sizes=True,
        legend="layer",
        notes=(
            "The released language models of H-LRU have the observer form, whose coefficients take effect late; the equations "
            "of the paper are the companion form.",
            "At equal parameters the state shrinks as blocks grow; the table has both sizes. Blocks come whole: at setting cpu "
            "the two of m = 16 have a fifth more parameters than the others.",
            "At setting cpu a token is a byte. m = 2 and 4 come first, before Mamba2 and the LSTM; m = 1 and 8 are 0.2 behind, "
            "and m = 16 and H-LRU of order 16 are last.",
            "At setting dubinin2026 the LSTM has the model's width; the released one has 896 hidden features.",
        ),
    )
