"""ListOps of the Long Range Arena, by any layer: the value of a nested expression.

    lrnn train --config=configs/listops.py:LAYER[/VARIANT],SETTING

LAYER and VARIANT are those of configs/parity.py. The data are the folder ``listops-1000`` of the Arena's release, or one that
`lrnn data prepare listops` makes, in LRNN_DATA_DIR or `task.data_dir`. At `cpu`, which sees 80,000 of the 96,000 expressions
that `prepare` makes, an LRU is right on 36 % of the 2,000 of the test; the most frequent value is 17 % of them. `smoke` checks
that everything runs.

`orvieto2023` is Table 9 of Orvieto et al. 2023, which states no base learning rate but 0.004 for CIFAR; the sweep `base_lr`
goes around it. Its warm-up starts at 1e-7, ours at 0.
"""

from typing import Any

from lrnn_jax.config.files import load_settings
from lrnn_jax.config.settings import Choices, Setting, on
from lrnn_jax.sweeps.combinators import cut_length, grid, seeds

ARENA = load_settings("image_classification")
OWN = Setting(
    on(
        {"model.layer.r_min": 0.0, "model.layer.r_max": 0.99},
        layer="lru",
        variant="lru",
        source="Orvieto et al. 2023, Table 8",
        why="the other variants start on the whole disk",
    ),
    on(
        {"model.layer.r_min": 0.0, "model.layer.r_max": 1.0},
        layer="lru",
        variant="ring",
        source="Orvieto et al. 2023, Table 7",
        why="the other variants start on the whole disk",
    ),
)
SETTINGS = {
    "cpu": Setting(ARENA["cpu"], OWN, on({**cut_length(2048), "optim.lr": 2e-3, "train.duration": "5000 steps"})),
    "smoke": Setting(ARENA["smoke"], OWN, on(cut_length(64))),
    "orvieto2023": Setting(
        ARENA["orvieto2023"],
        OWN,
        on(cut_length(2048), source="the code of S4 and S5: 2048 tokens, which no expression of the release exceeds"),
        on(
            {"model.width": 128, "model.dropout": 0.0, "train.batch_size": 32, "train.duration": "80000 steps"},
            source="Orvieto et al. 2023, Table 9",
        ),
        on(
            {"optim.recurrent_lr": 0.5},
            layer="lru rnn s4 s4d s5",
            source="Orvieto et al. 2023, Table 9",
            why="the learning-rate factor of what makes the recurrence",
        ),
        on(
            {"model.layer.state_size": 256},
            layer="lru rnn s5",
            source="Orvieto et al. 2023, Table 9",
            why="N, which was tuned for S5; S4D's own is not given",
        ),
    ),
}

get_config = Choices("listops", SETTINGS)


def sweep_base_lr() -> list[dict[str, Any]]:
    """Base learning rates around 0.004 on the paper's logarithmic grid of 2, three seeds each."""
    return grid({"optim.lr": [1e-3, 2e-3, 4e-3, 8e-3]}, seeds(3))
