"""In-context recall whose keys and values have several tokens, of MAD, by any layer.

    lrnn train --config=configs/fuzzy_in_context_recall.py:LAYER[/VARIANT],SETTING

As configs/in_context_recall.py. At `dubinin2026` keys and values have one token each, so that what is fuzzy is gone.
"""

from typing import Any

from lrnn_jax.config.files import load_settings
from lrnn_jax.config.settings import Choices, Setting, on
from lrnn_jax.sweeps.combinators import difficulties

RECALL = load_settings("in_context_recall")
SETTINGS = {
    "cpu": RECALL["cpu"],
    "smoke": RECALL["smoke"],
    "mad": RECALL["mad"],
    "dubinin2026": Setting(
        RECALL["dubinin2026"],
        on(
            {"task.vocabulary": 32, "task.key_motif": 1, "task.value_motif": 1},
            source="inferred from a later script: V = 32, L = 64, 20 thousand examples, keys and values of one token",
        ),
    ),
}

get_config = Choices("fuzzy_in_context_recall", SETTINGS)


def sweep_difficulties() -> list[dict[str, Any]]:
    """The MAD protocol's baseline and all changes of one variable."""
    return difficulties(vocabulary=[32, 64, 128], length=[256, 512, 1024], train_examples=[6400, 3200, 1600, 800])
