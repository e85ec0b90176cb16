"""Text of the Long Range Arena, IMDB byte by byte, by any layer: whether a review is positive.

    lrnn train --config=configs/text_classification.py:LAYER[/VARIANT],SETTING

LAYER and VARIANT are those of configs/parity.py. The data are the prepared data set "imdb_reviews/plain_text" in the folder
LRNN_DATA_DIR or `task.data_dir`; nothing is downloaded. At `cpu`, which cuts reviews
to 1023 bytes, an LRU classifies 78 % of the 25,000 test reviews rightly. `smoke` checks that everything runs.

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
        {"model.layer.r_min": 0.5, "model.layer.r_max": 0.9},
        layer="lru",
        variant="lru",
        source="Orvieto et al. 2023, Table 8",
        why="the other variants start on the whole disk",
    ),
    on(
        {"model.layer.r_min": 0.0, "model.layer.r_max": 0.9},
        layer="lru",
        variant="ring",
        source="Orvieto et al. 2023, Table 7",
        why="the other variants start on the whole disk",
    ),
)
SETTINGS = {
    "cpu": Setting(ARENA["cpu"], OWN, on({**cut_length(1024), "model.dropout": 0.1, "train.duration": "4200 steps"})),
    "smoke": Setting(ARENA["smoke"], OWN, on({**cut_length(64), "model.dropout": 0.1})),
    "orvieto2023": Setting(
        ARENA["orvieto2023"],
        OWN,
        on(cut_length(4096), source="the code of S4 and S5"),
        on(
            {"model.width": 256, "train.batch_size": 32, "train.duration": "50000 steps"},
            source="Orvieto et al. 2023, Table 9",
        ),
        on(
            {"optim.recurrent_lr": 0.1},
            layer="lru rnn s4 s4d s5",
            source="Orvieto et al. 2023, Table 9",
            why="the learning-rate factor of what makes the recurrence",
        ),
        on(
            {"model.layer.state_size": 192},
            layer="lru rnn s5",
            source="Orvieto et al. 2023, Table 9",
            why="N, which was tuned for S5; S4D's own is not given",
        ),
    ),
}

get_config = Choices("text_classification", SETTINGS)


def sweep_base_lr() -> list[dict[str, Any]]:
    """Base learning rates around 0.004 on the paper's logarithmic grid of 2, three seeds each."""
    return grid({"optim.lr": [1e-3, 2e-3, 4e-3, 8e-3]}, seeds(3))
