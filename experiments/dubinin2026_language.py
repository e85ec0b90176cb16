"""Dubinin et al. 2026: language models of equal size over the block size, small and on bytes."""

from typing import Any

from lrnn_jax.parts.budgets import fit_blocks, fit_channels
from lrnn_jax.tables.declaring import Column, Row, Selection, Table, newcomer

# parameters of one layer; at a width of 64 an LSTM has 33 thousand
PARAMETERS, WIDTH = 33_000, 64
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


def table(layer: str = "") -> Table:
    """Returns the table, with a row for ``layer`` if one is given."""
    rows = []
    for m in (1, 2, 4, 8, 16):
        fields = {"model.layer.block_size": m, "model.layer.blocks": fit_blocks(WIDTH, m, PARAMETERS)}
        rows.append(Row(f"BD-LRU m={m}", "bd_lru", fields=fields, line="BD-LRU"))
    for form in ("companion", "observer"):
        form_fields: dict[str, Any] = {
            "model.layer.order": 16,
            "model.layer.channels": fit_channels(WIDTH, 16, PARAMETERS),
            "model.layer.form": form,
        }
        rows.append(Row(f"H-LRU m=16, {form}", "h_lru", fields=form_fields))
    rows += [
        Row("LSTM", "lstm"),
        Row("Mamba2", "mamba2/positive", fields={"model.layer.expand": 2, "model.layer.state_size": 32}),
    ]
    return Table(
        title="Dubinin et al. 2026, with small models: perplexity per byte at equal parameters",
        source=(
            "the paper's models have 210 million parameters and read ten billion tokens of FineWeb-Edu; its perplexities could "
            "not be read."
        ),
        claim="Claim of the paper: how a state is mixed, and not its width alone, decides what a layer can do.",
        metric="perplexity",
        columns=(Column("code: the Python standard library", "configs/language_modeling.py", fields={"task.data": "stdlib"}),),
        rows=(*rows, *newcomer(layer)),
        seeds=3,
        settings=("smoke", "cpu"),
        paper="",
        selection=Selection(grids={"cpu": (SMALL,)}),
        over_sizes=True,
        legend="layer",
        notes=(
            "The released language models of H-LRU have the observer form, whose coefficients take effect late; the equations "
            "of the paper are the companion form.",
            "At equal parameters the state shrinks as blocks grow; the table has both sizes.",
        ),
    )
