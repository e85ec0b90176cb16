"""Memorization of MAD, by any layer: a fixed map from keys to values, which no example shows.

    lrnn train --config=configs/memorization.py:LAYER[/VARIANT],SETTING

As configs/in_context_recall.py.
"""

from typing import Any

from lrnn_jax.config.files import load_settings
from lrnn_jax.config.settings import Choices, Setting, on
from lrnn_jax.sweeps.combinators import difficulties, one_length

RECALL = load_settings("in_context_recall")
SHORT = on(one_length(32))
SETTINGS = {
    "cpu": Setting(RECALL["cpu"], SHORT),
    "smoke": Setting(RECALL["smoke"], SHORT),
    "mad": Setting(RECALL["mad"], on({"task.train_examples": 256, **one_length(32)}, source="MAD's released memorization.yml")),
    "dubinin2026": Setting(
        RECALL["dubinin2026"],
        on({"task.vocabulary": 4096}, source="inferred from a later script: V = 4096, L = 64, 20 thousand examples"),
    ),
}

get_config = Choices("memorization", SETTINGS)


def sweep_difficulties() -> list[dict[str, Any]]:
    """The MAD protocol's baseline and all changes of one variable."""
    return difficulties(vocabulary=[512, 1024, 2048, 4096, 8192])
