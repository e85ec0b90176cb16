"""ListOps of the Long Range Arena, by any layer: the value of a nested expression.

    lrnn train --config=configs/listops.py:LAYER[/VARIANT],SETTING

LAYER and VARIANT are those of configs/parity.py. The data are the folder ``listops-1000`` of the Arena's release, or one that
`lrnn data prepare listops` makes, in LRNN_DATA_DIR or `task.data_dir`. `smoke` checks that everything runs.

`orvieto2023` is Table 9 of Orvieto et al. 2023, which states no base learning rate but 0.004 for CIFAR; the sweep `base_lr`
goes around it. Its warm-up starts at 1e-7, ours at 0.
"""

from typing import Any

from lrnn_jax.config.settings import Choices, Setting, on
from lrnn_jax.sweeps.combinators import grid, seeds


def cut(longest: int) -> dict[str, Any]:
    """Training and test on expressions of at most so many tokens; longer ones are cut."""
    lengths = [2, longest]
    return {"train.length": lengths, "eval.lengths": [lengths], "eval.headline": lengths}


MODEL = Setting(
    on(
        {
            "model.head": "mean",
            "model.norm": "batchnorm",
            "model.mixer": "glu",
            "optim.lr": 4e-3,
            "optim.final_lr": 1e-7,
            "optim.weight_decay": 0.05,
            "eval.examples": 0,
            "eval.best_metric": "accuracy",
        },
        source="Orvieto et al. 2023, App. D.1 and D.2; 0.004 is App. C.2's for CIFAR; the head as in the code of S5",
    ),
    on(
        {"model.layer.r_min": 0.0, "model.layer.r_max": 0.99},
        layer="lru",
        variant="lru",
        source="Orvieto et al. 2023, Table 8",
        why='the other variants start on the whole disk, "ring" too (Table 7)',
    ),
)
CPU = Setting(
    MODEL,
    on(cut(2048)),
    on(
        {
            "model.width": 64,
            "train.batch_size": 16,
            "train.duration": "3000 steps",
            "train.steps_per_dispatch": 25,
            "eval.every": "20%",
            "eval.batch_size": 50,
        }
    ),
)
SMOKE = Setting(
    CPU,
    on(cut(64)),
    on(
        {
            "model.width": 16,
            "model.depth": 1,
            "train.batch_size": 4,
            "train.duration": "20 steps",
            "train.steps_per_dispatch": 10,
            "eval.every": "50%",
            "eval.batch_size": 4,
            "eval.examples": 4,
        }
    ),
)
ORVIETO = Setting(
    MODEL,
    on(cut(2048), source="the code of S4 and S5: 2048 tokens, which no expression of the release exceeds"),
    on(
        {
            "model.width": 128,
            "model.depth": 6,
            "train.batch_size": 32,
            "train.duration": "80000 steps",
        },
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
)
SETTINGS = {"cpu": CPU, "smoke": SMOKE, "orvieto2023": ORVIETO}

get_config = Choices("listops", SETTINGS)


def sweep_base_lr() -> list[dict[str, Any]]:
    """Base learning rates around 0.004 on the paper's logarithmic grid of 2, three seeds each."""
    return grid({"optim.lr": [1e-3, 2e-3, 4e-3, 8e-3]}, seeds(3))
