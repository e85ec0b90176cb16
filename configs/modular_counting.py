"""Counting ones modulo m, by any layer.

    lrnn train --config=configs/modular_counting.py:LAYER,RANGE,scale=SCALE --config.task.modulus=3

As configs/parity.py, with two blocks, since one layer of single reflections cannot count modulo 3 (Grazzi et al. 2025,
Theorem 6: two can). The paper has no such experiment: scale `paper` is its setting for parity.

Scale `cpu`, seed 0, modulus 3, two runs side by side on 2 cores; scaled accuracy over lengths 40 to 256:

    lstm        0.969    94 s
    deltanet    0.321   120 s: 0.722 at 40 to 64, 0.167 at 193 to 256; it has not learned to count within this budget
"""

from ml_collections import ConfigDict

from lrnn_jax.config import SCALES, layer_names, parse_arg, task_config
from lrnn_jax.config_files import load_own_config


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config for ``LAYER,positive|negative,scale=smoke|cpu|paper``: as parity, but for the task."""
    c = load_own_config(f"configs/parity.py:{arg or ''}").unlock()
    c.task = task_config("modular_counting")
    c.model.depth = 3
    chosen = parse_arg(arg, layer=layer_names("deltanet"), eigenvalues=["negative", "positive"], scale=SCALES)
    if chosen.layer == "deltanet" and chosen.scale == "cpu":
        c.model.layer.heads = 2
        c.optim.lr, c.train.duration = 3e-3, "8000 steps"
    return c
