"""Counting ones modulo m, by any layer.

    lrnn train --config=configs/modular_counting.py:LAYER[/VARIANT],SETTING --config.task.modulus=3

As configs/parity.py, with three blocks. At `cpu` and modulus 3, three seeds of an LSTM reach scaled accuracies of 0.99 to 1.00,
and of DeltaNet [-1, 1] 0.21 to 0.86: not learned within this budget. No paper here has this experiment.
"""

from lrnn_jax.config.files import load_settings
from lrnn_jax.config.settings import Choices, Setting, on

PARITY = load_settings("parity")
DEPTH = on(
    {"model.depth": 3},
    why="one layer of single reflections cannot count modulo 3, two can (Grazzi et al. 2025, Theorem 6); three came nearer",
)
LONGER = on(
    {"model.layer.heads": 2, "optim.lr": 3e-3, "train.duration": "8000 steps"},
    layer="deltanet",
    why="found by trial, for DeltaNet alone",
)

SETTINGS = {"cpu": Setting(PARITY["cpu"], DEPTH, LONGER), "smoke": Setting(PARITY["smoke"], DEPTH)}

get_config = Choices("modular_counting", SETTINGS)
