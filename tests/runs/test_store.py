"""The run store: what it says of each run, and how runs are chosen."""

import json
import operator

import pytest
from ml_collections import ConfigDict

from lrnn_jax.config.fields import base_config, layer_config, task_config
from lrnn_jax.config.identity import config_hash
from lrnn_jax.errors import UserError
from lrnn_jax.runs.store import (
    check_column,
    default_columns,
    default_workdir,
    read_rows,
    read_status,
    select_rows,
)


def make_config(layer="diagonal", **fields):
    config = base_config()
    config.model.layer = layer_config(layer)
    config.task = task_config("parity")
    with config.unlocked():
        config.update_from_flattened_dict(fields)
    return config


def finished(accuracy, **more):
    metrics = {"accuracy": accuracy, "loss": 1.0 - accuracy, "accuracy/40-64": accuracy}
    best = {"step": 5, "metrics": {"accuracy": accuracy + 0.1}}
    return {"status": "finished", "steps": 10, "wall_time_s": 1.5, "metrics": metrics, "best": best, **more}


def put(store, config, result=None, *, name=None):
    """A run as training leaves it; without a result it has only begun."""
    folder = store / (name or config_hash(config))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    if result:
        (folder / "result.json").write_text(json.dumps(result))
    return folder


FAILED = {"status": "failed", "reason": "step 3: not finite in group Diagonal", "steps": 2, "wall_time_s": 0.5}


@pytest.fixture
def store(tmp_path):
    """Three finished runs, one failed, one begun, and what else lies in a store."""
    for seed, accuracy in enumerate([0.5, 0.75, 1.0]):
        put(tmp_path, make_config(seed=seed), finished(accuracy))
    put(tmp_path, make_config(seed=3), FAILED)
    put(tmp_path, make_config("lstm", **{"optim.lr": 0.5}))
    (tmp_path / ".lock").touch()
    (tmp_path / "programs" / "0123").mkdir(parents=True)
    (tmp_path / "programs" / "0123" / "members.json").write_text("[]")
    return tmp_path


# --- status --------------------------------------------------------------------------------------------------------


def test_a_run_is_missing_then_started_then_what_its_result_says(tmp_path):
    config = make_config()
    assert read_status(config, tmp_path) == "missing"
    folder = put(tmp_path, config)
    assert read_status(config, tmp_path) == "started"
    (folder / "result.json").write_text(json.dumps(FAILED))
    assert read_status(config, tmp_path) == "failed"
    (folder / "result.json").write_text(json.dumps(finished(1.0)))
    assert read_status(config, tmp_path) == "finished"
    assert read_status(make_config(seed=1), tmp_path) == "missing"


def test_a_half_written_result_is_no_result(tmp_path):
    folder = put(tmp_path, make_config(), finished(1.0))
    (folder / "result.json").write_text((folder / "result.json").read_text()[:30])
    assert read_status(make_config(), tmp_path) == "started"
    (row,) = read_rows(tmp_path)
    assert row["status"] == "unreadable" and row["reason"].startswith("result.json: ")


OPTIM = base_config().optim.to_dict()
BROKEN = {
    "binary": b"\x80\x81\xff",
    "text": b'"x"',
    "list": b"[]",
    "null": b"null",
    "empty": b"",
    "truncated": b'{"status": "fini',
}
BROKEN_RESULTS = {
    **BROKEN,
    "no metrics": b'{"status": "finished"}',
    "null metrics": b'{"status": "finished", "metrics": null}',
    "a list of best": b'{"status": "finished", "metrics": {}, "best": [1]}',
    "no status": b'{"metrics": {}}',
    "a list as status": b'{"status": [], "metrics": {}}',
}


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", c) for c in BROKEN.values()] + [("result.json", c) for c in BROKEN_RESULTS.values()],
    ids=[f"config {key}" for key in BROKEN] + [f"result {key}" for key in BROKEN_RESULTS],
)
def test_a_run_that_cannot_be_read_is_listed_so_and_hides_no_other(store, name, content):
    config = make_config(seed=1)
    (default_workdir(config, store) / name).write_bytes(content)
    status = {row["run"]: row["status"] for row in read_rows(store)}
    assert len(status) == 5 and status.pop(config_hash(config)) == "unreadable"
    assert sorted(status.values()) == ["failed", "finished", "finished", "started"]
    (row,) = select_rows(read_rows(store), ["status=unreadable"])
    assert row["reason"].startswith(f"{name}: ") and "\n" not in row["reason"]
    assert {"run", "status", "reason"} <= set(default_columns([row]))
    if name == "result.json" and b"finished" not in content:
        assert read_status(config, store) == "started"


def test_a_file_that_may_not_be_read_is_told_too(store):
    folder = default_workdir(make_config(seed=1), store)
    (folder / "result.json").unlink()
    (folder / "result.json").mkdir()
    (row,) = select_rows(read_rows(store), ["status=unreadable"])
    assert row["reason"] == "result.json: Is a directory"


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": "x"},
        {"seed": None},
        {"task": 3},
        {"task": {"name": []}},
        {"eval": 3},
        {"train": 3},
        {"optim": {**OPTIM, "lr": "fast"}},
    ],
    ids=str,
)
def test_a_config_whose_fields_have_other_types_is_stale(store, fields):
    # under a name that is no hash, which is not compared with the config
    put(store, ConfigDict({**make_config(seed=1).to_dict(), **fields}), name="mine")
    status = {row["run"]: row["status"] for row in read_rows(store)}
    assert status.pop("mine") == "stale" and len(status) == 5 and "stale" not in status.values()


def test_a_folder_is_named_by_the_config_but_for_logging_and_checkpointing(tmp_path):
    same = make_config(**{"log.every": "1 steps", "checkpoint.keep": 7})
    assert default_workdir(same, tmp_path) == default_workdir(make_config(), tmp_path)
    for fields in ({"seed": 1}, {"optim.lr": 0.5}, {"model.width": 8}, {"eval.examples": 8}):
        assert default_workdir(make_config(**fields), tmp_path) != default_workdir(make_config(), tmp_path)


# --- rows ----------------------------------------------------------------------------------------------------------


def test_a_row_holds_config_result_and_metrics(store):
    rows = {row["seed"]: row for row in read_rows(store) if row["model.layer.name"] == "diagonal"}
    assert sorted(rows) == [0, 1, 2, 3] and len(read_rows(store)) == 5
    row = rows[1]
    assert row["run"] == config_hash(make_config(seed=1))
    assert (row["status"], row["steps"], row["optim.lr"], row["train.length"]) == ("finished", 10, 1e-3, [3, 40])
    assert (row["accuracy"], row["accuracy/40-64"], row["best/accuracy"]) == (0.75, 0.75, 0.85)
    assert rows[3]["status"] == "failed" and rows[3]["reason"] == FAILED["reason"]
    assert "accuracy" not in rows[3]


def test_a_run_without_a_result_is_listed_as_started(store):
    (row,) = (row for row in read_rows(store) if row["model.layer.name"] == "lstm")
    assert row["status"] == "started" and row["optim.lr"] == 0.5


def test_a_result_under_another_configs_hash_is_stale(store):
    changed = make_config(seed=0, **{"model.width": 8})
    (default_workdir(make_config(seed=0), store) / "config.json").write_text(json.dumps(changed.to_dict()))
    status = {row["seed"]: row["status"] for row in read_rows(store) if row["model.layer.name"] == "diagonal"}
    assert status == {0: "stale", 1: "finished", 2: "finished", 3: "failed"}
    # neither the old config nor the new one has a result
    assert read_status(changed, store) == "missing"
    assert {row["seed"] for row in select_rows(read_rows(store), ["status=finished"])} == {1, 2}


def test_a_run_of_an_older_version_whose_config_has_another_field_is_stale(tmp_path):
    old = ConfigDict(make_config().to_dict())
    old.eval.patients = old.eval.patience
    put(tmp_path, old, finished(1.0), name=config_hash(make_config()))
    assert [row["status"] for row in read_rows(tmp_path)] == ["stale"]


@pytest.mark.parametrize("path", ["train.microbatches", "model.layer.gain"])
def test_a_run_that_is_older_than_a_field_is_not_stale(tmp_path, path):
    old = make_config().to_dict()
    *sections, name = path.split(".")
    section = old
    for part in sections:
        section = section[part]
    del section[name]
    put(tmp_path, ConfigDict(old), finished(1.0), name=config_hash(make_config()))
    assert [row["status"] for row in read_rows(tmp_path)] == ["finished"]


def test_a_folder_that_the_user_named_is_not_stale(tmp_path):
    put(tmp_path, make_config(), finished(1.0), name="first-try")
    assert [(row["run"], row["status"]) for row in read_rows(tmp_path)] == [("first-try", "finished")]


def test_a_folder_without_runs_is_refused(tmp_path):
    for folder, said in [(tmp_path, "holds no runs"), (tmp_path / "nowhere", "nowhere")]:
        with pytest.raises(UserError, match=said):
            read_rows(folder)
    assert list(tmp_path.iterdir()) == []


# --- selection -----------------------------------------------------------------------------------------------------

COMPARISONS = {"=": operator.eq, "==": operator.eq, "!=": operator.ne} | {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@pytest.mark.parametrize("sign", COMPARISONS)
@pytest.mark.parametrize("space", ["", " "])
def test_a_number_is_compared_as_a_number(store, sign, space):
    rows = [row for row in read_rows(store) if row["status"] == "finished"]
    chosen = select_rows(rows, [f"accuracy{space}{sign}{space}0.75"])
    assert {row["seed"] for row in chosen} == {s for s, a in enumerate([0.5, 0.75, 1.0]) if COMPARISONS[sign](a, 0.75)}


def test_numbers_are_not_compared_as_text(store):
    put(store, make_config(seed=10), finished(0.0))
    assert {row["seed"] for row in select_rows(read_rows(store), ["seed<3", "model.layer.name=diagonal"])} == {0, 1, 2}
    assert [row["seed"] for row in select_rows(read_rows(store), ["seed>9"])] == [10]
    assert [row["seed"] for row in select_rows(read_rows(store), ["optim.lr=1e-3", "seed=10.0"])] == [10]


def test_text_is_compared_as_text(store):
    assert [row["status"] for row in select_rows(read_rows(store), ["model.layer.name=lstm"])] == ["started"]
    assert len(select_rows(read_rows(store), ["model.layer.name!=lstm"])) == 4
    assert [row["status"] for row in select_rows(read_rows(store), ["status = failed"])] == ["failed"]
    assert len(select_rows(read_rows(store), ["train.duration=1000 steps"])) == 5


@pytest.mark.parametrize(
    ("condition", "seeds"),
    [
        ("model.residual=false", {1}),
        ("model.residual=False", {1}),
        ("model.residual!=FALSE", {0, 2, 3}),
        ("model.residual = true", {0, 2, 3}),
        ("train.length=[3,40]", {0, 1, 3}),
        ("train.length = [ 3,  40 ]", {0, 1, 3}),
        ("train.length!=[3,40]", {2}),
        ("train.length=[3.0,64]", {2}),
        ("eval.lengths=[[40,64]]", {0, 1, 2, 3}),
        ("optim.groups=[['a',1,2]]", {3}),
        ('optim.groups=[["a", 1.0, 2.0]]', {3}),
    ],
)
def test_booleans_and_lists_are_compared_as_such(tmp_path, condition, seeds):
    different = [{}, {"model.residual": False}, {"train.length": [3, 64]}, {"optim.groups": [["a", 1.0, 2.0]]}]
    for seed, fields in enumerate(different):
        put(tmp_path, make_config(seed=seed, **fields), finished(1.0))
    assert {row["seed"] for row in select_rows(read_rows(tmp_path), [condition])} == seeds


@pytest.mark.parametrize(
    "condition",
    [
        "accuracy>=high",
        "accuracy=",
        "seed=[1]",
        "model.residual=0",
        "model.residual=flase",
        "train.length=[3,",
        "train.length=x",
    ],
)
def test_a_value_of_another_type_is_refused_in_one_line(store, condition):
    for before in ([], ["seed=99"]):
        with pytest.raises(UserError) as error:
            select_rows(read_rows(store), [*before, condition])
        assert repr(condition) in str(error.value) and "\n" not in str(error.value)


def test_a_field_of_two_types_is_compared_where_the_types_agree():
    rows = [{"x": 3}, {"x": "three"}, {"x": None}, {"x": [3]}]
    assert select_rows(rows, ["x=3"]) == [{"x": 3}]
    assert select_rows(rows, ["x=three"]) == [{"x": "three"}]
    assert select_rows(rows, ["x=[3]"]) == [{"x": [3]}]
    assert select_rows(rows, ["x<[4]"]) == [{"x": [3]}]
    assert select_rows([{"x": [3]}, {"x": [["a"]]}], ["x<[4]"]) == [{"x": [3]}]


def test_every_condition_must_hold(store):
    chosen = select_rows(read_rows(store), ["accuracy>=0.75", "seed<2"])
    assert [row["seed"] for row in chosen] == [1]
    assert select_rows(read_rows(store), ["accuracy>=0.75", "seed<1"]) == []
    assert len(select_rows(read_rows(store), [])) == 5


@pytest.mark.parametrize("condition", ["accuracy>=0", "accuracy!=0.3", "accuracy<=1"])
def test_a_run_that_lacks_the_field_satisfies_no_condition(store, condition):
    assert {row["status"] for row in select_rows(read_rows(store), [condition])} == {"finished"}


@pytest.mark.parametrize("condition", ["", "accuracy", "=0.5", ">=1", "accuracy~0.5", "two words=1"])
def test_a_condition_that_is_none_is_refused_with_the_form(store, condition):
    with pytest.raises(UserError, match="FIELD=VALUE") as error:
        select_rows(read_rows(store), ["seed=0", condition])
    assert "\n" not in str(error.value) and repr(condition) in str(error.value)


@pytest.mark.parametrize(
    ("condition", "nearest"),
    [("acuracy>0.5", "accuracy"), ("optim.rl=1", "optim.lr"), ("model.layer.nmae=x", "model.layer.name")],
)
def test_a_field_that_no_run_has_is_refused_with_the_nearest(store, condition, nearest):
    with pytest.raises(UserError, match=f"did you mean '{nearest}'"):
        select_rows(read_rows(store), [condition])
    # also where an earlier condition leaves no run
    with pytest.raises(UserError, match=f"did you mean '{nearest}'"):
        select_rows(read_rows(store), ["seed=99", condition])


def test_a_column_that_one_run_has_is_known(store):
    known = {name for row in read_rows(store) for name in row}
    for name in ("reason", "best/accuracy", "accuracy/40-64", "model.width"):
        check_column(name, known)
    with pytest.raises(UserError, match="did you mean 'reason'"):
        check_column("raeson", known)


def test_the_default_columns_are_what_differs_and_the_headline(store):
    columns = default_columns(read_rows(store))
    assert len(columns) == len(set(columns))
    assert {"run", "status", "seed", "model.layer.name", "optim.lr", "accuracy", "loss", "reason"} <= set(columns)
    # what is the same in all of them, and single buckets, are left out
    assert not {"model.width", "train.batch_size", "accuracy/40-64", "best/accuracy"} & set(columns)
    assert "reason" not in default_columns([row for row in read_rows(store) if row["status"] == "finished"])
    assert "optim.lr" not in default_columns(select_rows(read_rows(store), ["model.layer.name=diagonal"]))


def test_what_the_layer_decides_is_no_default_column():
    mamba = {"task.name": "parity", "model.layer.name": "mamba", "model.layer.expand": 2, "model.width": 8, "optim.lr": 3e-3}
    lstm = {"task.name": "parity", "model.layer.name": "lstm", "model.width": 16, "optim.lr": 1e-2}
    columns = default_columns([mamba, lstm])
    assert not {"model.width", "model.layer.expand"} & set(columns) and "optim.lr" in columns
    assert "model.width" in default_columns([mamba, lstm, {**lstm, "model.width": 32}])
