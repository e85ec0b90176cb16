"""Counting ones modulo m, by any layer.

    lrnn train --config=configs/modular_counting.py:LAYER,RANGE,scale=SCALE --config.task.modulus=3

As configs/parity.py, with two blocks, since one layer of single reflections cannot count modulo 3 (Grazzi et al. 2025,
Theorem 6: two can). The paper has no such experiment: scale `paper` is its setting for parity.

Scale `cpu`, seed 0, modulus 3, on 2 cores that other work was using too: deltanet reaches a scaled accuracy of 0.070 over
lengths 40 to 256 in 218 s. It has not learned to count within this budget.
"""

from ml_collections import ConfigDict

from lrnn_jax.config import load_config, task_config


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config for ``LAYER,positive|negative,scale=smoke|cpu|paper``: as parity, but for the task."""
    c = load_config(f"configs/parity.py:{arg or ''}").unlock()
    c.task = task_config("modular_counting")
    c.model.depth = 2
    return c
