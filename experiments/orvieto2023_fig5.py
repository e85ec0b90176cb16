"""Orvieto et al. 2023, Figure 5: Path-X with and without the normalisation and the small initial phases."""

import math

from lrnn_jax.tables.declaring import Column, Row, Selection, Table, newcomer

RING = {"model.layer.r_min": 0.999, "model.layer.r_max": 0.9999}
FULL = {**RING, "model.layer.max_phase": 2 * math.pi}
UNSCALED = {"model.layer.gamma": False}
SMALL = {**RING, "model.layer.max_phase": math.pi / 10}


def table(layer: str = "") -> Table:
    """Returns the figure, with a row for ``layer`` if one is given."""
    return Table(
        title="Orvieto et al. 2023, Figure 5: normalisation and initial phase on Path-X",
        source="Figure 5 shows curves of three runs over 100 thousand iterations, and no numbers.",
        claim=(
            "Claim of the paper: with eigenvalues this near to the unit circle the loss starts high and does not fall without "
            "the normalisation; with it the training set is learned, and with phases from [0, pi/10] too the test set as well."
        ),
        metric="loss",
        columns=(Column("Path-X", "configs/pathfinder.py", "128"),),
        rows=(
            Row("no gamma, phase [0, 2 pi]", "lru/lru", fields={**FULL, **UNSCALED}),
            Row("no gamma, phase [0, pi/10]", "lru/lru", fields={**SMALL, **UNSCALED}),
            Row("gamma, phase [0, 2 pi]", "lru/lru", fields=FULL),
            Row("gamma, phase [0, pi/10]", "lru/lru", fields=SMALL),
            *newcomer(layer),
        ),
        seeds=3,
        settings=("smoke", "cpu", "orvieto2023"),
        paper="orvieto2023",
        selection=Selection(
            grids={
                "cpu": (
                    {
                        "model.width": 32,
                        "model.final_norm": False,
                        "train.batch_size": 4,
                        "train.duration": "200 steps",
                        "train.steps_per_dispatch": 5,
                        "eval.every": "10%",
                        "eval.batch_size": 10,
                        "eval.examples": 40,
                    },
                ),
                "orvieto2023": ({"train.duration": "100000 steps"},),
            }
        ),
        legend="layer",
        notes=(
            "Cross entropy of the test; guessing has log 2 = 0.693.",
            "At setting cpu only the beginning is seen, 200 steps of 4 images: how high the loss is, not what is learned.",
        ),
    )
