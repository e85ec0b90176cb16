"""Language modelling on text files; by default on the sources of the Python standard library.

lrnn train --config=configs/language_modeling.py:LAYER,RANGE,scale=SCALE
lrnn train --config=configs/language_modeling.py --config.task.data='books/**/*.txt' --config.task.tokenizer=bpe:4096
"""

from typing import Any

from ml_collections import ConfigDict

from lrnn_jax.config import SCALES, base_config, layer_config, layer_names, parse_arg, task_config
from lrnn_jax.errors import UserError
from lrnn_jax.sweeps.combinators import grid, seeds


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config for ``LAYER,positive|negative,scale=smoke|cpu|paper``."""
    chosen = parse_arg(arg, layer=layer_names("deltanet"), eigenvalues=["negative", "positive"], scale=SCALES)
    c = base_config()
    c.task = task_config("language_modeling")
    c.model.layer = layer_config(chosen.layer)
    if "negative_eigenvalues" in c.model.layer:
        c.model.layer.negative_eigenvalues = chosen.eigenvalues == "negative"
    elif chosen.eigenvalues == "positive":
        raise UserError(f"config argument 'positive': {chosen.layer!r} has no choice of eigenvalue range")
    c.model.head = "token"
    c.model.norm = "rmsnorm"
    c.eval.best_metric = "loss"
    _set_scale(c, chosen)
    return c


def _set_scale(c: ConfigDict, chosen: ConfigDict) -> None:
    if chosen.scale == "paper":  # App. E.3, 340M parameters
        _set_paper(c)
        return
    length = 32 if chosen.scale == "smoke" else 256
    c.model.width, c.model.depth = (32, 1) if chosen.scale == "smoke" else (256, 2)
    c.optim.lr, c.optim.final_lr, c.optim.clip_norm = 3e-3, 1e-5, 1.0
    c.train.batch_size, c.train.length = (8, [length, length]) if chosen.scale == "smoke" else (16, [length, length])
    c.train.duration = "20 steps" if chosen.scale == "smoke" else "1000 steps"
    c.train.steps_per_dispatch = 20
    c.eval.lengths, c.eval.headline = [[length, length]], [length, length]
    c.eval.examples, c.eval.batch_size = (16, 16) if chosen.scale == "smoke" else (256, 32)


def _set_paper(c: ConfigDict) -> None:
    pass


def sweep() -> list[dict[str, Any]]:
    """Learning rate and seed, for the layer after the colon."""
    return grid({"optim.lr": [1e-3, 3e-3, 1e-2]}, seeds(3))
