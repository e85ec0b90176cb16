"""What the tests of sweeps share: a config that trains in a moment."""

import pytest

from lrnn_jax.config.files import load_own_config

SMALL = {
    "train.duration": "20 steps",
    "train.batch_size": 8,
    "train.length": [3, 8],
    "train.steps_per_dispatch": 10,
    "eval.every": "50%",
    "eval.lengths": [[40, 48]],
    "eval.examples": 8,
    "eval.batch_size": 8,
    "checkpoint.every": "50%",
    "log.every": "50%",
}


@pytest.fixture(scope="session")
def tiny_config():
    """A function from fields by dotted path to a config of ``configs/parity.py`` at its smallest."""

    def make(arg="diagonal", **fields):
        config = load_own_config(f"configs/parity.py:{arg},smoke").unlock()
        config.update_from_flattened_dict({**SMALL, **fields})
        return config.lock()

    return make
