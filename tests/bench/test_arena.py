"""Training steps at the settings of the Long Range Arena, on random examples."""

import jax
import numpy as np
import pytest

from lrnn_jax.bench.arena import draw_batches, study_training
from lrnn_jax.registry import load_task
from lrnn_jax.tables.declaring import load_experiment

# ml_collections loads config files by a deprecated call
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method:DeprecationWarning")


@pytest.mark.parametrize(
    ("name", "rows", "length"),
    [
        ("listops", lambda n: (np.ones((n, 9), np.int32), np.full(n, 9, np.int32), np.zeros(n, np.int32)), 9),
        ("retrieval", lambda n: (np.ones((n, 2, 9), np.int32), np.full((n, 2), 9, np.int32), np.zeros(n, np.int32)), 9),
        ("pathfinder", lambda n: (np.ones((n, 1024, 1), np.uint8), np.zeros(n, np.int32)), 1024),
    ],
)
def test_random_batches_have_the_shapes_of_those_from_files(name, rows, length):
    task = load_task(name)()
    real = task.collate(rows(3), (2, length))
    drawn = draw_batches(task, 3, length)
    assert jax.tree.map(lambda x: (x.shape[1:], x.dtype), drawn) == jax.tree.map(lambda x: (x.shape, x.dtype), real)
    assert np.all(np.asarray(drawn.lengths) == length)


def test_steps_are_timed_without_data_or_compiled_only(monkeypatch):
    monkeypatch.delenv("LRNN_DATA_DIR", raising=False)
    arguments = load_experiment("orvieto2023_table4").arguments("smoke")
    (rnn, lru) = study_training(**arguments)
    assert (rnn["layer"], lru["layer"], lru["batch"], lru["length"]) == ("rnn/tanh", "lru/lru", 4, 64)
    assert all(row["steps/s"] > 0 and row["GiB"] > 0 for row in (rnn, lru))
    (compiled,) = study_training(**{**arguments, "layers": ("lru/lru",), "rounds": 0, "scan": "associative"})
    assert compiled["steps/s"] is None
    assert compiled["GiB"] > 0
