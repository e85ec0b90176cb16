"""Siems et al. 2025 (DeltaProduct): word problems of S3, S4, A5 and S5 by one layer, over the Householders per token."""

from lrnn_jax.tables.declaring import MEAN_OVER_LENGTHS, Row, Table

GROUPS = ("S3", "S4", "A5", "S5")
RANGES = {"[-1, 1]": "negative", "[0, 1]": "positive"}
# With [0, 1] the paper's README says that n_h = 1 and 2 fail on S3; more rows would show no more.
ROWS = [("[-1, 1]", n) for n in (1, 2, 3, 4)] + [("[0, 1]", n) for n in (1, 2)]

TABLE = Table(
    title="Siems et al. 2025: word problems by one layer of DeltaProduct with n_h Householders",
    source="Figure 1 and those after it show curves without numbers, so no published number stands here.",
    claim=(
        "Claim of the paper: with [-1, 1], n_h = 2 solves S3, S4 and A5 (their rotations of space), S5 needs n_h = 4, n_h = 1 "
        "fails on all, and with [0, 1] S3 is not solved."
    ),
    metric="sequence_accuracy",
    rows=tuple(
        Row(
            f"n_h = {n}, {values}",
            f"configs/word_problem.py:deltaproduct,{RANGES[values]},group={group},letters=all",
            None,
            group,
            {"model.depth": 1, "model.layer.householders": n},
        )
        for group in GROUPS
        for values, n in ROWS
    ),
    seeds=3,
    positions="sequence_accuracy_by_length",
    legend="DeltaProduct",
    notes=(MEAN_OVER_LENGTHS,),
)
