"""Pathfinder and Path-X of the Long Range Arena, by any layer: whether one curve joins the two dots.

    lrnn train --config=configs/pathfinder.py:LAYER[/VARIANT],SETTING,RESOLUTION

LAYER and VARIANT are those of configs/parity.py. RESOLUTION is 32 (the default), 64, 128 (Path-X) or 256. The data are the
folders ``pathfinder32/curv_contour_length_14`` and so on of the Arena's release, or what `lrnn data prepare pathfinder` makes,
in LRNN_DATA_DIR or `task.data_dir`. `smoke` checks that everything runs.

`orvieto2023` is Table 9 of Orvieto et al. 2023, which states no base learning rate but 0.004 for CIFAR; the sweep `base_lr`
goes around it. Its warm-up starts at 1e-7, ours at 0.
"""

import math
from typing import Any

from lrnn_jax.config.settings import Choices, Setting, on
from lrnn_jax.sweeps.combinators import grid, seeds


def square(resolution: int) -> dict[str, Any]:
    """Images of one resolution."""
    same = [resolution**2, resolution**2]
    return {"task.resolution": resolution, "train.length": same, "eval.lengths": [same], "eval.headline": same}


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
        {"model.layer.bidirectional": True},
        layer="lru s4 s4d s5",
        source="Orvieto et al. 2023, App. D.1",
        why="in this paper they run from both ends on Pathfinder and Path-X only",
    ),
    on(
        {"model.layer.r_min": 0.9, "model.layer.r_max": 0.999},
        layer="lru",
        variant="lru ring",
        source="Orvieto et al. 2023, Tables 7 and 8",
        why="the other variants start on the whole disk",
    ),
)
CPU = Setting(
    MODEL,
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
    on(
        {
            "model.width": 192,
            "model.depth": 6,
            "train.batch_size": 64,
            "train.duration": "500000 steps",
        },
        source="Orvieto et al. 2023, Table 9",
    ),
    on(
        {"optim.recurrent_lr": 0.25},
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
    on(
        {"model.width": 128, "model.mixer": "half_glu1", "train.batch_size": 32, "train.duration": "250000 steps"},
        when={"task.resolution": 128},
        source="Orvieto et al. 2023, Table 9 and App. D.1, for Path-X",
    ),
    on(
        {"model.layer.r_min": 0.999, "model.layer.r_max": 0.9999, "model.layer.max_phase": math.pi / 10},
        layer="lru",
        variant="lru ring",
        when={"task.resolution": 128},
        source="Orvieto et al. 2023, Table 8, for Path-X",
        why="the ring of the LRU",
    ),
)
SETTINGS = {"cpu": CPU, "smoke": SMOKE, "orvieto2023": ORVIETO}

get_config = Choices("pathfinder", SETTINGS, {"resolution": {str(size): square(size) for size in (32, 64, 128, 256)}})


def sweep_base_lr() -> list[dict[str, Any]]:
    """Base learning rates around 0.004 on the paper's logarithmic grid of 2, three seeds each."""
    return grid({"optim.lr": [1e-3, 2e-3, 4e-3, 8e-3]}, seeds(3))
