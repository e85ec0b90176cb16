"""Selective copying of MAD, by any layer: repeat the tokens between blanks.

    lrnn train --config=configs/selective_copying.py:LAYER[/VARIANT],SETTING

As configs/in_context_recall.py.
"""

from typing import Any

from lrnn_jax.config.files import load_settings
from lrnn_jax.config.settings import Choices, Setting, on
from lrnn_jax.sweeps.combinators import difficulties, grid, one_length, seeds

RECALL = load_settings("in_context_recall")
SETTINGS = {
    "cpu": Setting(RECALL["cpu"], on({"task.copies": 6, "train.duration": "2000 steps", **one_length(24)})),
    "smoke": RECALL["smoke"],
    "mad": Setting(RECALL["mad"], on(one_length(256), source="MAD's released selective-copying.yml")),
    "dubinin2026": RECALL["dubinin2026"],
}

get_config = Choices("selective_copying", SETTINGS)


def sweep_difficulties() -> list[dict[str, Any]]:
    """The MAD protocol's baseline and all changes of one variable."""
    points = difficulties(vocabulary=[32, 64, 128], length=[512, 1024], train_examples=[6400, 3200, 1600, 800])
    # the baseline's length is said, because so many do not fit the shorter one of other settings
    return points + [{"task.copies": copies, **one_length(256)} for copies in (32, 64, 96)]


def sweep_sizes() -> list[dict[str, Any]]:
    """The four data sets of a later script of Dubinin et al.'s, with three seeds."""
    return grid([{}, one_length(128), {"task.vocabulary": 32}, {"task.train_examples": 10_000}], seeds(3))
