"""Image of the Long Range Arena and other small images, pixel by pixel, by any layer.

    lrnn train --config=configs/image_classification.py:LAYER[/VARIANT],SETTING,IMAGES

LAYER and VARIANT are those of configs/parity.py. IMAGES is `colour` (CIFAR-10 as Orvieto et al. 2023 have it; the default),
`grey` (CIFAR-10 as the Arena has it), `mnist` or `fashion_mnist`. The data are prepared data sets in the folder LRNN_DATA_DIR
or `task.data_dir`; nothing is downloaded. At `cpu`, an LRU classifies 52 % of the 10,000 test images in colour
rightly, of a copy of CIFAR-10 that is kept as JPEG. `smoke` checks that everything runs.

`orvieto2023` is Table 9 of Orvieto et al. 2023, which states no base learning rate but 0.004 for CIFAR; the sweep `base_lr`
goes around it. Its warm-up starts at 1e-7, ours at 0. The configs of the Arena's other tasks begin where this one ends.
"""

from typing import Any

from lrnn_jax.config.settings import Choices, Setting, on
from lrnn_jax.sweeps.combinators import grid, one_length, seeds

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
        {"model.layer.r_min": 0.9, "model.layer.r_max": 0.999},
        layer="lru",
        variant="lru",
        source="Orvieto et al. 2023, Table 8",
        why="the other variants start on the whole disk",
    ),
    on(
        {"model.layer.r_min": 0.9, "model.layer.r_max": 0.99},
        layer="lru",
        variant="ring",
        source="Orvieto et al. 2023, Table 7",
        why="the other variants start on the whole disk",
    ),
)
CPU = Setting(
    MODEL,
    on(
        {
            "model.width": 64,
            "train.batch_size": 16,
            "train.duration": "4000 steps",
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
    on({"model.final_norm": False}, source="Orvieto et al. 2023, App. D.1; the code of minimal-LRU and S5"),
    on(
        {"optim.groups": [["(bias|scale)$", 1.0, 1.0]]},
        source="Orvieto et al. 2023, App. D.2",
        why="weight decay is for all parameters but A, B, gamma and the step sizes",
    ),
    on(
        {
            "model.width": 512,
            "model.depth": 6,
            "model.dropout": 0.1,
            "train.batch_size": 50,
            "train.duration": "180000 steps",
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
        {"model.layer.state_size": 384},
        layer="lru rnn s5",
        source="Orvieto et al. 2023, Table 9",
        why="N, which was tuned for S5; S4D's own is not given",
    ),
)
SETTINGS = {"cpu": CPU, "smoke": SMOKE, "orvieto2023": ORVIETO}

IMAGES = {
    "colour": one_length(1024),
    "grey": {"task.grey": True, **one_length(1024)},
    "mnist": {"task.data": "mnist", **one_length(784)},
    "fashion_mnist": {"task.data": "fashion_mnist", **one_length(784)},
}

get_config = Choices("image_classification", SETTINGS, {"images": IMAGES})


def sweep_base_lr() -> list[dict[str, Any]]:
    """Base learning rates around 0.004 on the paper's logarithmic grid of 2, three seeds each."""
    return grid({"optim.lr": [1e-3, 2e-3, 4e-3, 8e-3]}, seeds(3))
