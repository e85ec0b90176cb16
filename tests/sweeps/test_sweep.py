"""From a config file's sweep to configs, its parts, and its plan."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrnn_jax.config.identity import config_hash
from lrnn_jax.errors import UserError
from lrnn_jax.registry import LAYERS
from lrnn_jax.runs.store import read_status
from lrnn_jax.sweeps.sweep import PlannedProgram, describe_structure, format_plan, plan, resolve_sweep, take_part

FILE = """
from lrnn_jax.config.files import load_own_config
from lrnn_jax.sweeps.combinators import chain, grid, seeds

def get_config(arg=None):
    return load_own_config("configs/parity.py:" + (arg or ""))

def sweep():
    return grid({"optim.lr": [1e-3, 1e-2]}, seeds(2))

def sweep_args():
    return [{"arg": "lstm"}, {"arg": "diagonal/positive", "optim.lr": 0.5}, {"seed": 7}]

def sweep_empty():
    return []

def sweep_refused():
    return grid({"seed": [1]}, seeds(2))

def sweep_failing():
    return [{"seed": 1 // 0}]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "experiment.py"
    path.write_text(FILE)
    return path


def resolve_points(tmp_path, points):
    """Resolves a sweep of these very points."""
    path = tmp_path / "points.py"
    path.write_text(f"{FILE}\ndef sweep():\n    return {points}\n")
    return resolve_sweep(f"{path}:diagonal", "", {})


# --- points to configs ---------------------------------------------------------------------------------------------


def test_each_point_is_a_config_in_the_order_of_the_sweep(file):
    configs = resolve_sweep(f"{file}:diagonal,smoke", "", {})
    assert [(c.optim.lr, c.seed) for c in configs] == [(1e-3, 0), (1e-3, 1), (1e-2, 0), (1e-2, 1)]
    assert {(c.model.layer.name, c.train.duration) for c in configs} == {("diagonal", "100 steps")}
    assert len({config_hash(c) for c in configs}) == 4


def test_a_points_arg_is_added_to_the_part_after_the_colon(file):
    lstm, diagonal, default = resolve_sweep(f"{file}:smoke", "args", {})
    assert (lstm.model.layer.name, lstm.train.duration) == ("lstm", "100 steps")
    assert diagonal.model.layer.negative_eigenvalues is False and diagonal.optim.lr == 0.5
    assert default.model.layer.name == "deltanet" and default.seed == 7
    assert all("arg" not in config for config in (lstm, diagonal, default))


def test_a_file_without_a_part_after_the_colon(file):
    assert [c.model.layer.name for c in resolve_sweep(str(file), "args", {})] == ["lstm", "diagonal", "deltanet"]


def test_overrides_hold_for_every_point_and_the_points_own_fields_win(file):
    overrides = {"optim.lr": 0.25, "model.width": 16, "eval.lengths": [[40, 48]]}
    lstm, diagonal, default = resolve_sweep(f"{file}:smoke", "args", overrides)
    assert [c.optim.lr for c in (lstm, diagonal, default)] == [0.25, 0.5, 0.25]
    assert all(c.model.width == 16 and c.eval.lengths == [[40, 48]] for c in (lstm, diagonal, default))


def test_parity_has_a_sweep_of_learning_rates_and_seeds_for_every_layer():
    configs = resolve_sweep("configs/parity.py:smoke", "layers", {})
    points = {(c.model.layer.name, c.optim.lr, c.seed) for c in configs}
    assert len(points) == len(configs)
    for layer in LAYERS:
        rates, seeds = ({point[i] for point in points if point[0] == layer} for i in (1, 2))
        assert len(rates) > 1 and len(seeds) > 1
        assert {(layer, rate, seed) for rate in rates for seed in seeds} <= points


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([{"optim.lrr": 0.1}], ["optim.lrr", "did you mean 'lr'"]),
        ([{"optim.lr": 0.1}, {"optim.lrr": 0.1}], ["optim.lrr"]),
        ([{"optm": 0.1}], ["'optm'", "did you mean 'optim'"]),
        ([{"optim.lr.x": 0.1}], ["optim.lr"]),
        ([{"model.width": "wide"}], ["model.width", "wide"]),
        ([{"model.width": 1.5}], ["model.width", "1.5"]),
        ([{"model.width": True}], ["model.width", "True"]),
        ([{"model.residual": 3}], ["model.residual", "3"]),
        ([{"optim.lr": "fast"}], ["optim.lr", "fast"]),
        ([{"optim.lr": None}], ["optim.lr", "None"]),
        ([{"optim.lr": [0.1, 0.2]}], ["optim.lr"]),
        ([{"optim": 3}], ["optim"]),
        ([{"train.length": [3, "a"]}], ["train.length"]),
        ([{"optim.lr": float("1e400")}], ["optim.lr"]),
        ([{"model.width": 0}], ["model.width", "0"]),
        ([{"seed": -1}], ["seed", "-1"]),
        ([{"arg": "lsmt"}], ["lsmt", "did you mean 'lstm'"]),
        ([{"arg": "lstm"}], ["lstm"]),  # the layer is given twice
        ([{3: 0.1}], []),
        ([3], []),
        ("seeds", []),
        ({"optim.lr": [0.1, 0.2]}, []),  # the grid around it is missing
    ],
    ids=str,
)
def test_a_bad_point_is_refused_in_one_line_that_names_it(tmp_path, points, said):
    with pytest.raises(UserError) as error:
        resolve_points(tmp_path, repr(points).replace("inf", 'float("inf")'))
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in said), error.value


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("arsg", ["'arsg'", "did you mean 'args'"]),
        ("empty", ["'empty'", "is empty"]),
        ("refused", ["'seed' twice"]),
        ("failing", ["experiment.py:21", "ZeroDivisionError"]),
    ],
)
def test_a_sweep_that_is_missing_or_empty_or_fails_is_one_line(file, name, said):
    with pytest.raises(UserError) as error:
        resolve_sweep(str(file), name, {})
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in said), error.value


def test_a_sweep_that_yields_nothing_is_empty_too(tmp_path):
    with pytest.raises(UserError, match="is empty"):
        resolve_points(tmp_path, "(point for point in [])")


def test_a_file_without_sweeps_says_so(tmp_path):
    (tmp_path / "bare.py").write_text(FILE.partition("def sweep")[0])
    with pytest.raises(UserError, match=r"bare\.py has no sweep 'x' .*none"):
        resolve_sweep(str(tmp_path / "bare.py"), "x", {})


@pytest.mark.parametrize(
    ("point", "overrides"), [({"optim.lr": 0.1}, {"seeds": 3}), ({"seeds": 3}, {})], ids=["override", "point"]
)
def test_several_seeds_in_one_point_are_refused_with_what_to_write(tmp_path, point, overrides):
    path = tmp_path / "points.py"
    path.write_text(f"{FILE}\ndef sweep():\n    return [{point}]\n")
    with pytest.raises(UserError, match=r"seeds=3 in a sweep.*'seed'"):
        resolve_sweep(f"{path}:diagonal", "", overrides)


def test_a_point_written_by_hand_may_hold_numbers_of_numpy(tmp_path):
    point = '[{"seed": np.int64(3), "optim.lr": np.float32(0.5), "train.length": list(np.arange(3, 5))}]'
    (config,) = resolve_points(tmp_path, f"(np := __import__('numpy')) and {point}")
    assert (config.seed, config.optim.lr, list(config.train.length)) == (3, 0.5, [3, 4])
    assert config_hash(config)


# --- parts ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(), max_size=40), st.integers(1, 50))
def test_the_parts_of_a_sweep_are_the_sweep(runs, count):
    parts = [take_part(runs, f"{i + 1}/{count}") for i in range(count)]
    assert sorted(run for part in parts for run in part) == sorted(runs)
    sizes = {len(part) for part in parts}
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("part", ["0/2", "3/2", "1/0", "0/0", "-1/2", "1", "/", "1/", "/2", "1/2/3", "1.0/2", "a/b", "", "¹/2"])
def test_a_part_that_is_none_is_refused(part):
    with pytest.raises(UserError, match="1 <= I <= N") as error:
        take_part([1, 2, 3], part)
    assert repr(part) in str(error.value)


# --- structure and plan --------------------------------------------------------------------------------------------


def test_fields_that_shape_the_program_are_named(tiny_config):
    same = [tiny_config(), tiny_config(seed=1), tiny_config(**{"optim.lr": 0.5, "optim.weight_decay": 0.1})]
    assert describe_structure(same) == ""
    said = describe_structure([*same, tiny_config(**{"model.width": 12}), tiny_config(**{"train.batch_size": 4, "seed": 3})])
    assert said.startswith("3 programs") and "model.width" in said and "train.batch_size" in said
    assert "optim" not in said and "seed" not in said
    assert "model.layer.name" in describe_structure([tiny_config(), tiny_config("lstm")])
    assert "model.layer.state_size" in describe_structure(
        [tiny_config("lru"), tiny_config("lru", **{"model.layer.state_size": 8})]
    )


@pytest.fixture(scope="module")
def planned(tiny_config, tmp_path_factory):
    """A plan of two programs with three runs of which one is finished, and the folder it was made for."""
    store = tmp_path_factory.mktemp("store")
    configs = [tiny_config(seed=0), tiny_config(seed=1), tiny_config(seed=2), tiny_config(**{"model.width": 12})]
    folder = store / config_hash(configs[0])
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(configs[0].to_dict()))
    (folder / "result.json").write_text(json.dumps({"status": "finished", "metrics": {}}))
    return plan(configs, store, executor="vmap"), configs, store


def test_a_plan_has_one_entry_per_program_and_leaves_finished_runs_out(planned):
    programs, configs, _ = planned
    assert [[config_hash(c) for c in p.members] for p in programs] == [
        [config_hash(c) for c in configs[1:3]],
        [config_hash(configs[3])],
    ]
    for program in programs:
        assert 0 < program.seconds < 300
        # more than the parameters and less than a small machine has
        assert 1000 < program.bytes < 2**30


def test_a_plan_trains_nothing(planned):
    _, configs, store = planned
    assert [path.name for path in store.iterdir()] == [config_hash(configs[0])]
    assert [read_status(config, store) for config in configs] == ["finished", "missing", "missing", "missing"]


def test_a_plan_of_single_runs_has_one_entry_per_run(tiny_config, tmp_path, capsys):
    configs = [tiny_config(seed=1), tiny_config(seed=2), tiny_config(**{"model.width": 12})]
    programs = plan(configs, tmp_path / "store", executor="local")
    first, second = capsys.readouterr().err.splitlines()
    assert first == "compiling and measuring program 1 of 2: parity with diagonal"  # what two share is measured once
    assert re.fullmatch("compiling and measuring program 2 of 2: parity with diagonal, about .* left", second)
    assert [p.members for p in programs] == [[config] for config in configs]
    # one process compiles the program of both once
    assert 0 < programs[1].seconds < programs[0].seconds
    assert not (tmp_path / "store").exists()


def test_a_plan_names_runs_time_and_memory(tiny_config):
    first, second, third = tiny_config(seed=1), tiny_config(seed=2), tiny_config(**{"model.width": 12})
    text = format_plan([PlannedProgram([first, second], 30.0, 5 * 2**20), PlannedProgram([third], 3570.0, 2**30)], 7)
    header, *rows, total = text.splitlines()
    assert header.split()[:4] == ["program", "runs", "time", "memory"]
    assert re.split(r"\s+", rows[0])[:7] == ["1", "2", "30", "s", "5", "MiB", config_hash(first)]
    assert re.split(r"\s+", rows[1])[:7] == ["2", "1", "59.5", "min", "1024", "MiB", config_hash(third)]
    assert "3 of 7 runs" in total and "60.0 min" in total


def test_a_plan_of_finished_runs_says_so(planned):
    _, configs, store = planned
    text = format_plan(plan(configs[:1], store, executor="vmap"), 1)
    assert "nothing to do" in text and "\n" not in text
