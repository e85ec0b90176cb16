"""Counting ones modulo m, by any layer.

PLACEHOLDER
"""

from ml_collections import ConfigDict

from lrnn_jax.config import load_config, task_config


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config for ``LAYER,positive|negative,scale=smoke|cpu|paper``: as parity, but for the task."""
    c = load_config(f"configs/parity.py:{arg or ''}").unlock()
    c.task = task_config("modular_counting")
    c.model.depth = 2
    return c
