"""In-context recall with noise between the pairs, of MAD, by any layer.

    lrnn train --config=configs/noisy_in_context_recall.py:LAYER[/VARIANT],SETTING

As configs/in_context_recall.py. Dubinin et al. 2026 do not have this task.
"""

from typing import Any

from lrnn_jax.config.files import load_settings
from lrnn_jax.config.settings import Choices, Setting
from lrnn_jax.sweeps.combinators import difficulties

RECALL = load_settings("in_context_recall")
SETTINGS = {name: Setting(RECALL[name]) for name in ("cpu", "smoke", "mad")}

get_config = Choices("noisy_in_context_recall", SETTINGS)


def sweep_difficulties() -> list[dict[str, Any]]:
    """The MAD protocol's baseline and all changes of one variable; sixteen tokens of the vocabulary are noise throughout."""
    return difficulties(
        vocabulary=[48, 80, 144],
        length=[256, 512, 1024],
        train_examples=[6400, 3200, 1600, 800],
        noise=[0.4, 0.6, 0.8],
    )
