"""Names of runs by what differs between them, and means over seeds, computed by hand."""

import math

from lrnn_jax.runs.naming import average_runs, name_runs

ROWS = [
    {"task.name": "parity", "model.layer.name": "lru", "seed": 0, "optim.lr": 0.01, "model.width": 8, "train.length": [3, 40]},
    {"task.name": "parity", "model.layer.name": "lru", "seed": 1, "optim.lr": 0.01, "model.width": 8, "train.length": [3, 40]},
    {"task.name": "parity", "model.layer.name": "gla", "seed": 0, "optim.lr": 0.1, "model.width": 9, "train.length": [3, 40]},
    {"task.name": "parity", "model.layer.name": "gla", "seed": 0, "optim.lr": 0.1, "model.width": 9, "train.length": [3, 64]},
]


def test_a_run_is_named_by_its_layer_and_by_what_the_layer_does_not_decide():
    assert name_runs(ROWS) == [
        "lru,lr=0.01,length=[3,40],seed=0",
        "lru,lr=0.01,length=[3,40],seed=1",
        "gla,lr=0.1,length=[3,40],seed=0",
        "gla,lr=0.1,length=[3,64],seed=0",
    ]
    assert name_runs(ROWS[:2]) == ["lru,seed=0", "lru,seed=1"] and name_runs(ROWS[:1]) == ["lru"]
    assert name_runs(ROWS[:2], seeds=False) == ["lru", "lru"]


def test_two_fields_of_one_last_name_are_written_out():
    rows = [{"model.layer.name": "x", "a.size": 1, "b.size": 2}, {"model.layer.name": "x", "a.size": 2, "b.size": 1}]
    assert name_runs(rows) == ["x,a.size=1,b.size=2", "x,a.size=2,b.size=1"]


def test_tasks_that_differ_are_part_of_the_name_and_what_cannot_be_read_keeps_its_folder():
    rows = [
        {"task.name": "parity", "model.layer.name": "lru"},
        {"task.name": "mqar", "model.layer.name": "lru"},
        {"run": "0123"},
    ]
    assert name_runs(rows) == ["parity,lru", "mqar,lru", "0123"]


def test_means_over_what_is_finished():
    rows = [
        {"optim.lr": lr, "status": status, **({} if loss is None else {"loss": loss})}
        for lr, status, loss in ((0.1, "finished", 1.0), (0.2, "finished", 5.0), (0.1, "finished", 3.0), (0.1, "failed", None))
    ]
    first, second = average_runs(rows, ["optim.lr"], ["loss"])
    assert first == {
        "optim.lr": 0.1, "runs": 3, "finished": 2, "loss": 2.0, "loss_sd": math.sqrt(2.0), "loss_min": 1.0, "loss_max": 3.0
    }  # fmt: skip
    assert (second["runs"], second["loss"], second["loss_sd"]) == (1, 5.0, None)
    (all_of_them,) = average_runs(rows, [], ["loss"])
    assert (all_of_them["runs"], all_of_them["loss"]) == (4, 3.0)
