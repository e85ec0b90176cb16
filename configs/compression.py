"""Compression of MAD, by any layer: write the input down from one vector.

    lrnn train --config=configs/compression.py:LAYER[/VARIANT],SETTING

As configs/in_context_recall.py, with the head of an auto-encoder. At `mad` the encoder has no positions and the decoder sines
and cosines, and unlike MAD's language model the auto-encoder draws every matrix from N(0, 0.02^2). At `dubinin2026` both share
one learned table.
"""

from typing import Any

from lrnn_jax.config.files import load_settings
from lrnn_jax.config.settings import Choices, Setting, on
from lrnn_jax.sweeps.combinators import difficulties, grid, one_length, seeds

RECALL = load_settings("in_context_recall")
HEAD = on({"model.head": "autoencoder", "model.max_length": 1280}, source="MAD's released auto-encoder")
LEARNED = on({"model.positions": "learned"}, source="code: one table of 1280 positions, in the encoder and in the decoder")
SETTINGS = {
    "cpu": Setting(
        RECALL["cpu"],
        HEAD,
        LEARNED,
        # with larger embeddings no layer leaves the plateau at which the vector says which tokens there were, but not where
        on({"model.initial_values": "released", "train.duration": "2400 steps", **one_length(16)}),
    ),
    "smoke": Setting(RECALL["smoke"], HEAD, LEARNED, on(one_length(32))),
    "mad": Setting(
        RECALL["mad"],
        HEAD,
        on({"model.initial_values": "released"}, source="MAD's released auto-encoder: N(0, 0.02^2), biases 0"),
        on(one_length(32), source="MAD's released compression.yml"),
    ),
    "dubinin2026": Setting(RECALL["dubinin2026"], HEAD, LEARNED),
}

get_config = Choices("compression", SETTINGS)


def sweep_difficulties() -> list[dict[str, Any]]:
    """The MAD protocol's baseline and all changes of one variable."""
    return difficulties(vocabulary=[32, 64, 128], length=[64, 128, 256], train_examples=[6400, 3200, 1600, 800])


def sweep_sizes() -> list[dict[str, Any]]:
    """The four data sets of a later script of Dubinin et al.'s, with three seeds."""
    return grid([{}, one_length(128), {"task.vocabulary": 32}, {"task.train_examples": 10_000}], seeds(3))
