"""Orvieto et al. 2023, Table 5: sCIFAR over the ring of the initial eigenvalues, by parametrisation and normalisation."""

from lrnn_jax.tables.declaring import Column, Published, Row, Selection, Table, newcomer

# r_max -> r_min 0, 0.5, 0.9: test accuracy, per cent, and its standard error
GRIDS = {
    "(a) Exp": (
        "lru/exp",
        {
            0.9: ((87.6, 0.4), (87.8, 0.1), (87.9, 0.2)),
            0.99: ((83.8, 0.9), (85.8, 1.2), (81.9, 3.8)),
            0.999: ((83.9, 0.2), (84.8, 0.4), (84.8, 0.8)),
        },
    ),
    "(b) Stable Exp": (
        "lru/ring",
        {
            0.9: ((86.2, 0.2), (86.6, 0.3), (87.3, 0.1)),
            0.99: ((87.8, 0.2), (87.7, 0.1), (88.1, 0.0)),
            0.999: ((87.4, 0.2), (87.4, 0.1), (87.5, 0.4)),
        },
    ),
    "(c) + gamma": (
        "lru/lru",
        {
            0.9: ((86.4, 0.1), (86.5, 0.1), (88.3, 0.1)),
            0.99: ((88.1, 0.1), (88.4, 0.1), (89.0, 0.2)),
            0.999: ((88.1, 0.1), (88.6, 0.0), (89.0, 0.1)),
        },
    ),
}
SMALLEST = (0.0, 0.5, 0.9)


def table(layer: str = "") -> Table:
    """Returns the three grids, a row per ring and parametrisation, with a row for ``layer`` if one is given."""
    rows = []
    for name, (own, grid) in GRIDS.items():
        for largest, numbers in grid.items():
            for smallest, (mean, error) in zip(SMALLEST, numbers, strict=True):
                # the paper's corner r_min = r_max = 0.9 is a circle; ours has a width
                ring = {"model.layer.r_min": min(smallest, largest - 1e-4), "model.layer.r_max": largest}
                settings = ("orvieto2023",) if smallest == 0.5 else ()
                published = {"sCIFAR": Published(mean / 100, "Table 5", spread=error / 100 or None)}
                line = f"{name}, r_max {largest:g}"
                rows.append(
                    Row(f"{name}, ring {smallest:g} to {largest:g}", own, published, ring, settings=settings, line=line)
                )
    return Table(
        title="Orvieto et al. 2023, Table 5: sCIFAR over the ring of the initial eigenvalues",
        source="Table 5: test accuracy, mean and standard error of three seeds, learning rate 0.004.",
        claim=(
            "Claim of the paper: without a stable parametrisation eigenvalues near the unit circle hurt; with it, and more "
            "with the normalisation, they help."
        ),
        metric="accuracy",
        columns=(Column("sCIFAR", "configs/image_classification.py"),),
        rows=(*rows, *newcomer(layer)),
        seeds=3,
        settings=("smoke", "cpu", "orvieto2023"),
        paper="orvieto2023",
        # as in orvieto2023_ladder, whose rows of these rings are the same runs
        selection=Selection(grids={"cpu": ({"train.duration": "1000 steps", "eval.every": "50%", "eval.examples": 2000},)}),
        legend="parametrisation and ring",
        notes=(
            "At setting cpu r_min is 0 or 0.9.",
            "(c) has the logarithm of the phase as its parameter, (a) and (b) the phase.",
            "The circle of radius 0.9 is a ring from 0.8999 to 0.9 here.",
        ),
    )
