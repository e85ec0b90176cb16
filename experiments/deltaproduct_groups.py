"""Siems et al. 2025 (DeltaProduct): word problems of S3, S4, A5 and S5 by one layer, over the Householders per token."""

from lrnn_jax.tables.declaring import MEAN_OVER_LENGTHS, Column, Row, Table, newcomer

GROUPS = ("S3", "S4", "A5", "S5")
RANGES = {"[-1, 1]": "deltaproduct/negative", "[0, 1]": "deltaproduct/positive"}
# With [0, 1] the paper's README says that n_h = 1 and 2 fail on S3; more rows would show no more.
ROWS = [("[-1, 1]", n) for n in (1, 2, 3, 4)] + [("[0, 1]", n) for n in (1, 2)]
ONE_LAYER = {"model.depth": 1}


def table(layer: str = "") -> Table:
    """Returns the table, with a row for one layer of ``layer`` if it is given."""
    rows = [
        Row(f"n_h = {n}, {values}", RANGES[values], fields={**ONE_LAYER, "model.layer.householders": n}) for values, n in ROWS
    ]
    return Table(
        title="Siems et al. 2025: word problems by one layer of DeltaProduct with n_h Householders",
        source="Figure 1 and those after it show curves without numbers, so no published number stands here.",
        claim=(
            "Claim of the paper: with [-1, 1], n_h = 2 solves S3, S4 and A5 (their rotations of space), S5 needs n_h = 4, "
            "n_h = 1 fails on all, and with [0, 1] S3 is not solved."
        ),
        metric="sequence_accuracy",
        columns=tuple(Column(group, "configs/word_problem.py", f"group={group},letters=all") for group in GROUPS),
        rows=(*rows, *newcomer(layer, {"": ONE_LAYER})),
        seeds=3,
        settings=("smoke", "cpu", "siems2025"),
        paper="siems2025",
        positions="sequence_accuracy_by_length",
        legend="DeltaProduct",
        notes=(MEAN_OVER_LENGTHS,),
    )
