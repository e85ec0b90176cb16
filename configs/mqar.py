"""Multi-query associative recall (MQAR) of Zoology, by any layer.

    lrnn train --config=configs/mqar.py:LAYER[/VARIANT],SETTING

LAYER and VARIANT are those of configs/parity.py. `cpu` has 64 tokens, 8 pairs and new examples for ever; `smoke` checks that
everything runs. `arora2023` is Figure 2 of Zoology (Arora et al. 2023) at T = 64 with 4 pairs: four blocks of a layer alone.
The paper reports the best of four learning rates for widths from 64 to 512 (the sweep without a name).
"""

from typing import Any

from lrnn_jax.config.files import load_settings
from lrnn_jax.config.settings import Choices, Setting, on
from lrnn_jax.sweeps.combinators import grid, one_length

RECALL = load_settings("in_context_recall")
SMALL = on({"task.vocabulary": 64, "task.pairs": 8})
SETTINGS = {
    "cpu": Setting(RECALL["cpu"], SMALL, on({"train.duration": "1500 steps"})),
    "smoke": Setting(RECALL["smoke"], SMALL),
    "arora2023": Setting(
        on(
            {
                "model.width": 128,
                "model.depth": 4,
                "model.head": "token",
                "task.train_examples": 100_000,
                "task.random_fill": False,
                "train.duration": "64 epochs",
                "train.batch_size": 512,
                "eval.examples": 3000,
                **one_length(64),
            },
            source="released configs of Figure 2",
        ),
        on(
            {
                "optim.lr": 2.15e-3,
                "optim.final_lr": 0.0,
                "optim.warmup": "0 steps",
                "optim.weight_decay": 0.01,
                "eval.best_metric": "accuracy",
            },
            source="released trainer, and the third of the four learning rates of Figure 2",
        ),
    ),
}

get_config = Choices("mqar", SETTINGS)


def sweep() -> list[dict[str, Any]]:
    """The learning rates and widths of Figure 2."""
    return grid({"model.width": [64, 128, 256, 512], "optim.lr": [1e-4, 4.64e-4, 2.15e-3, 1e-2]})
