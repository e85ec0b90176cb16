"""Parity: the headline of Grazzi et al. 2025, by any layer.

PLACEHOLDER
"""

from lrnn_jax.config import SCALES, base_config, layer_config, layer_names, parse_arg, task_config
from ml_collections import ConfigDict

# What differs by layer on a laptop; `paper` replaces it.
SMALL = {
    "deltanet": {"heads": 2, "conv_width": 0, "key_activation": "linear"},
    "mamba": {"state_size": 4, "conv_width": 1},
}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config for ``LAYER,positive|negative,scale=smoke|cpu|paper``."""
    chosen = parse_arg(arg, layer=layer_names("deltanet"), eigenvalues=["negative", "positive"], scale=SCALES)
    c = base_config()
    c.task = task_config("parity")
    c.model.layer = layer_config(chosen.layer, **SMALL.get(chosen.layer, {}))
    c.model.width, c.model.depth = 32, 1
    c.train.duration = "3000 steps"
    c.eval.lengths = [[40, 64], [65, 128], [129, 192], [193, 256], [257, 512]]
    c.checkpoint.best_metric = "scaled_accuracy"
    return c
