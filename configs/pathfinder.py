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

from lrnn_jax.config.files import load_settings
from lrnn_jax.config.settings import Choices, Setting, on
from lrnn_jax.sweeps.combinators import grid, one_length, seeds

ARENA = load_settings("image_classification")
OWN = Setting(
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
SETTINGS = {
    "cpu": Setting(ARENA["cpu"], OWN, on({"train.duration": "3000 steps"})),
    "smoke": Setting(ARENA["smoke"], OWN),
    "orvieto2023": Setting(
        ARENA["orvieto2023"],
        OWN,
        on(
            {"model.width": 192, "model.dropout": 0.0, "train.batch_size": 64, "train.duration": "500000 steps"},
            source="Orvieto et al. 2023, Table 9",
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
            {"model.layer.dt_min": 1e-4},
            layer="s4 s4d s5",
            when={"task.resolution": 128},
            source="the code of S4 and S5, for Path-X",
            why="steps from 1e-3 on would forget within an eighth of the 16,384 positions",
        ),
        on(
            {"model.layer.blocks": 16, "model.layer.c_init": "complex_normal"},
            layer="s5",
            when={"task.resolution": 128},
            source="the code of S5, for Path-X",
        ),
        on(
            {"model.layer.r_min": 0.999, "model.layer.r_max": 0.9999, "model.layer.max_phase": math.pi / 10},
            layer="lru",
            variant="lru ring",
            when={"task.resolution": 128},
            source="Orvieto et al. 2023, Table 8, for Path-X",
            why="the ring of the LRU",
        ),
    ),
}

RESOLUTIONS = {str(size): {"task.resolution": size, **one_length(size**2)} for size in (32, 64, 128, 256)}

get_config = Choices("pathfinder", SETTINGS, {"resolution": RESOLUTIONS})


def sweep_base_lr() -> list[dict[str, Any]]:
    """Base learning rates around 0.004 on the paper's logarithmic grid of 2, three seeds each."""
    return grid({"optim.lr": [1e-3, 2e-3, 4e-3, 8e-3]}, seeds(3))
