"""Executors: what is trained together, what is not trained again, and that the way of running does not matter."""

import json
import shutil
import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from lrnn_jax.config.identity import config_hash
from lrnn_jax.errors import UserError
from lrnn_jax.runs.checkpoints import Checkpoints
from lrnn_jax.runs.folder import RunFolder
from lrnn_jax.runs.store import default_workdir, read_status
from lrnn_jax.sweeps import executors, packs
from lrnn_jax.sweeps.executors import execute
from lrnn_jax.sweeps.packs import pack, split_to_fit
from lrnn_jax.sweeps.sweep import plan
from lrnn_jax.training import loop as trainer
from lrnn_jax.training.program import make_program

# Side by side a reduction may be done in another order. What float32 rounding makes of that in 20 steps, with Adam's eps
# at 1e-3: at 1e-8 a weight whose gradient is nothing but rounding moves by the learning rate at every step.
BOUND, EPS = 2e-5, {"optim.eps": 1e-3}


def names_of(packs):
    return [[config_hash(config) for config in members] for members in packs]


def put(store, config, status, **result):
    folder = default_workdir(config, store)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    if status != "started":
        result = {"status": status, "config_hash": config_hash(config), "metrics": {"accuracy": 0.5}, "reason": None, **result}
        (folder / "result.json").write_text(json.dumps(result))


def interrupt(store, *members):
    """Leaves what a program of these members leaves that was killed."""
    folder = store / "programs" / "-".join(config_hash(config)[:4] for config in members)
    folder.mkdir(parents=True)
    (folder / "members.json").write_text(json.dumps([config_hash(config) for config in members]))
    for config in members:
        put(store, config, "started")


@pytest.fixture
def trained(monkeypatch):
    """What would be trained, pack by pack; nothing is."""
    found = []

    def train_pack(program, store):
        members = list(program.configs)
        found.append(members)
        for config in members:
            put(store, config, "finished")
        return [RunFolder(default_workdir(config, store)).read_result() for config in members]

    monkeypatch.setattr(executors, "train_pack", train_pack)
    return found


def read_params(workdir):
    program = make_program(RunFolder(workdir).read_config())
    state = program.state_shapes
    target = {"state": state, "best": {"params": state.params, "batch_stats": state.batch_stats}}
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    kept, info = checkpoints.restore_newest(target)
    checkpoints.close()
    return kept["state"].params, info["step"]


# --- packing -------------------------------------------------------------------------------------------------------


def test_runs_that_differ_in_seeds_and_float_fields_share_a_program(tiny_config, tmp_path):
    lru = {"model.layer.state_size": 4}
    configs = [
        tiny_config(seed=0),
        tiny_config("lru", **lru),
        tiny_config(**{"optim.lr": 0.5, "seed": 3}),
        tiny_config(**{"model.width": 12}),
        tiny_config(**{"optim.weight_decay": 0.1}),
        tiny_config("lru", **lru, **{"model.layer.r_min": 0.5}),
        tiny_config("lru", **{"model.layer.state_size": 8}),
    ]
    hashes = [config_hash(config) for config in configs]
    expected = [[hashes[0], hashes[2], hashes[4]], [hashes[1], hashes[5]], [hashes[3]], [hashes[6]]]
    assert sorted(names_of(pack(configs, configs, tmp_path))) == sorted(expected)


def test_an_interrupted_program_keeps_its_members(tiny_config, tmp_path):
    configs = [tiny_config(seed=seed) for seed in range(5)]
    a, b, *others = (config_hash(config) for config in configs)
    interrupt(tmp_path, configs[0], configs[1])
    assert sorted(names_of(pack(configs, configs, tmp_path))) == sorted([[a, b], others])
    # the order of the members is that of the checkpoint, not of the sweep
    assert [a, b] in names_of(pack(configs[::-1], configs[::-1], tmp_path))


def test_an_interrupted_program_of_which_some_runs_are_not_wanted_is_no_program(tiny_config, tmp_path):
    configs = [tiny_config(seed=seed) for seed in range(3)]
    interrupt(tmp_path, configs[0], configs[1])
    assert names_of(pack(configs[1:], configs[1:], tmp_path)) == [[config_hash(config) for config in configs[1:]]]


def test_a_damaged_list_of_members_is_passed_over(tiny_config, tmp_path):
    configs = [tiny_config(seed=seed) for seed in range(2)]
    interrupt(tmp_path, *configs)
    (file,) = tmp_path.glob("programs/*/members.json")
    file.write_text(file.read_text()[:8])
    assert names_of(pack(configs, configs, tmp_path)) == [[config_hash(config) for config in configs]]


@pytest.mark.parametrize(("executor", "sizes"), [("vmap", [3, 1]), ("local", [1, 1, 1, 1])])
def test_vmap_runs_packs_and_local_runs_one_by_one(tiny_config, tmp_path, trained, executor, sizes):
    configs = [tiny_config(seed=0), tiny_config(seed=1), tiny_config(seed=2), tiny_config(**{"model.width": 12})]
    results = execute(configs, tmp_path, executor=executor)
    assert [len(members) for members in trained] == sizes
    assert [result["config_hash"] for result in results] == [config_hash(config) for config in configs]


# --- what is not run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", executors.EXECUTORS)
def test_finished_runs_are_not_run_again(tiny_config, tmp_path, trained, executor):
    configs = [tiny_config(seed=seed) for seed in range(3)]
    for i, config in enumerate(configs):
        put(tmp_path, config, "finished", metrics={"accuracy": i / 4})
    results = execute(configs, tmp_path, executor=executor)
    assert trained == []
    assert [result["metrics"]["accuracy"] for result in results] == [0.0, 0.25, 0.5]


@pytest.mark.parametrize("executor", ["vmap", "local"])
def test_only_what_is_missing_or_was_interrupted_is_run(tiny_config, tmp_path, trained, executor):
    configs = [tiny_config(seed=seed) for seed in range(4)]
    put(tmp_path, configs[0], "finished")
    put(tmp_path, configs[2], "started")
    assert all(result["status"] == "finished" for result in execute(configs, tmp_path, executor=executor))
    assert sorted(c.seed for members in trained for c in members) == [1, 2, 3]


@pytest.mark.parametrize("executor", ["vmap", "local"])
def test_failed_runs_are_named_with_their_reason_and_left_unless_asked_for(tiny_config, tmp_path, trained, executor, capsys):
    configs = [tiny_config(seed=seed) for seed in range(3)]
    put(tmp_path, configs[1], "failed", reason="step 7: not finite in group Diagonal")
    results = execute(configs, tmp_path, executor=executor)
    assert [result["status"] for result in results] == ["finished", "failed", "finished"]
    assert sorted(c.seed for members in trained for c in members) == [0, 2]
    err = capsys.readouterr().err
    assert config_hash(configs[1]) in err and "step 7: not finite" in err and "--retry_failed" in err
    results = execute(configs, tmp_path, executor=executor, retry_failed=True)
    assert [result["status"] for result in results] == ["finished"] * 3
    assert names_of(trained[-1:]) == [[config_hash(configs[1])]]


@pytest.mark.parametrize("executor", ["vmap", "local"])
def test_equal_configs_are_one_run(tiny_config, tmp_path, trained, executor):
    # how often a run writes down what it does makes no other run of it
    configs = [tiny_config(), tiny_config(seed=1), tiny_config(), tiny_config(**{"log.every": "1 steps"})]
    results = execute(configs, tmp_path, executor=executor)
    assert sorted(c.seed for members in trained for c in members) == [0, 1]
    assert [result["config_hash"] for result in results] == [config_hash(config) for config in configs]


@pytest.mark.parametrize("executor", ["vmap", "local"])
def test_a_plan_lists_what_would_be_run(tiny_config, tmp_path, trained, executor):
    configs = [tiny_config(seed=seed) for seed in (0, 1, 2, 3, 2)]
    put(tmp_path, configs[0], "finished")
    put(tmp_path, configs[1], "failed")
    planned = names_of(program.members for program in plan(configs, tmp_path, executor=executor))
    execute(configs, tmp_path, executor=executor)
    assert planned == names_of(trained)


def test_a_member_that_finished_by_itself_is_not_run_again_with_its_interrupted_program(
    tiny_config, tmp_path, monkeypatch, capsys
):
    """Killed side by side, then one of the two run alone: what is left is the other one, whatever becomes of its old lines."""
    configs = [tiny_config(seed=0), tiny_config(seed=1)]
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Loop, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            execute(configs, tmp_path)
    assert [read_status(config, tmp_path) for config in configs] == ["started", "started"]
    execute(configs[:1], tmp_path, executor="local")
    folder = default_workdir(configs[0], tmp_path)
    before = {name: (folder / name).read_text() for name in ("result.json", "metrics.jsonl")}
    (kept,) = tmp_path.glob("programs/*/checkpoints/metrics-0.jsonl")
    kept.write_text("damaged")
    results = execute(configs, tmp_path)
    assert [result["status"] for result in results] == ["finished", "finished"]
    assert {name: (folder / name).read_text() for name in before} == before
    assert "resuming" in capsys.readouterr().err


def test_what_a_member_wrote_elsewhere_in_between_is_not_mixed_into_its_program(tiny_config, tmp_path, monkeypatch):
    """Killed side by side, one of the two begun alone and killed as well: the program's lines are all its own and all there."""
    configs = [tiny_config(seed=0), tiny_config(seed=1)]

    def lines(store):
        kept = ("step", "split", "loss", "accuracy")
        texts = RunFolder(default_workdir(configs[0], store)).read_metrics()
        return [[line.get(key) for key in kept] for line in map(json.loads, texts)]

    execute(configs, tmp_path / "whole")
    store = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Loop, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        for members in (configs, configs[:1]):
            with pytest.raises(KeyboardInterrupt):
                execute(members, store)
            RunFolder(default_workdir(configs[0], store)).metrics_file.write_text('{"step": 1}\n{"half a li')
    execute(configs, store)
    assert len(lines(store)) >= 5
    assert lines(store) == lines(tmp_path / "whole")


@pytest.fixture
def killed(tiny_config, tmp_path, monkeypatch):
    """A program of two runs that was killed after its last training step, before any result."""
    configs = [tiny_config(seed=0), tiny_config(seed=1)]
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Loop, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            execute(configs, tmp_path)
    return configs


def test_a_program_whose_runs_folders_were_removed_starts_over(killed, tmp_path, capsys):
    for config in killed:
        shutil.rmtree(default_workdir(config, tmp_path))
    results = execute(killed, tmp_path)
    assert "resuming" not in capsys.readouterr().err
    assert [result["status"] for result in results] == ["finished", "finished"]


def test_a_program_killed_between_its_last_result_and_its_end_is_cleared(killed, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        # of this module alone: the trainer removes folders too
        removing = types.SimpleNamespace(rmtree=lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr(packs, "shutil", removing)
        with pytest.raises(KeyboardInterrupt):
            execute(killed, tmp_path)
    assert [read_status(config, tmp_path) for config in killed] == ["finished", "finished"]
    shutil.rmtree(default_workdir(killed[0], tmp_path))
    capsys.readouterr()
    execute(killed, tmp_path)
    assert "resuming" not in capsys.readouterr().err and not list(tmp_path.glob("programs/*"))


def test_a_program_killed_while_it_is_removed_is_not_resumed_where_all_is_to_start_over(killed, tmp_path, monkeypatch, capsys):
    """Whatever part of the removal was done: here members.json alone, as earlier versions may have left it, or none of it."""
    (folder,) = tmp_path.glob("programs/*")
    before = tmp_path / "before"
    shutil.copytree(folder, before)
    (folder / "members.json").unlink()
    for config in killed:
        shutil.rmtree(default_workdir(config, tmp_path))
    expected = [result["params_sha256"] for result in execute(killed, tmp_path)]
    assert "resuming" not in capsys.readouterr().err and not list(tmp_path.glob("programs/*"))
    # renamed first: a kill at any moment after that leaves no program
    shutil.copytree(before, folder)
    with monkeypatch.context() as patch:
        patch.setattr(packs.shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            packs.clear_programs(tmp_path)
    assert [path.name for path in tmp_path.glob("programs/*")] == [f".removed-{folder.name}"]
    for config in killed:
        shutil.rmtree(default_workdir(config, tmp_path))
    assert [result["params_sha256"] for result in execute(killed, tmp_path)] == expected
    assert "resuming" not in capsys.readouterr().err and not list(tmp_path.glob("programs/*"))


def test_a_program_of_which_one_run_has_other_unhashed_fields_now_is_not_resumed(killed, tmp_path):
    other = ConfigDict(killed[1])
    other.checkpoint.every = "1 steps"
    assert sorted(map(len, pack([killed[0], other], [killed[0], other], tmp_path))) == [1, 1]


@pytest.mark.parametrize("text", [b"", b'"x"', b"[]", b"\xff", b'{"status": "finished"}', b'{"status": "fini'])
def test_what_is_no_result_is_made_again(tiny_config, tmp_path, trained, text):
    config = tiny_config()
    put(tmp_path, config, "finished")
    (default_workdir(config, tmp_path) / "result.json").write_bytes(text)
    execute([config], tmp_path)
    assert len(trained) == 1


@pytest.mark.parametrize("executor", ["vmpa", "", "VMAP"])
def test_an_unknown_executor_is_refused_before_anything_is_written(tiny_config, tmp_path, executor):
    with pytest.raises(UserError, match=r"--executor=.* is not one of vmap, local, ray"):
        execute([tiny_config()], tmp_path / "store", executor=executor)
    assert not (tmp_path / "store").exists()


def test_one_config_that_cannot_run_is_refused_before_any_is_trained(tiny_config, tmp_path, trained):
    bad = tiny_config(**{"optim.lr": -1.0})
    with pytest.raises(UserError, match=r"optim\.lr"):
        execute([tiny_config(), bad], tmp_path / "store")
    assert trained == [] and not (tmp_path / "store").exists()


# --- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("free", "sizes"), [(2**50, [5]), (3, [2, 3]), (2, [2, 1, 2]), (1, [1] * 5), (0, [1] * 5)])
def test_what_does_not_fit_is_halved_until_it_does(monkeypatch, free, sizes, capsys):
    class OneBytePerMember:
        def __init__(self, members):
            self.configs = members

        def memory(self):
            return len(self.configs)

        def with_members(self, members):
            return OneBytePerMember(members)

    monkeypatch.setattr(packs, "free_memory", lambda: free)
    parts = [part.configs for part in split_to_fit(OneBytePerMember(list("abcde")))]
    assert [member for part in parts for member in part] == list("abcde")
    assert sorted(map(len, parts)) == sorted(sizes)
    assert ("split" in capsys.readouterr().err) is (len(sizes) > 1)


def test_the_estimate_grows_with_the_members(tiny_config):
    one, two, four = (make_program(*[tiny_config(seed=seed) for seed in range(count)]).memory() for count in (1, 2, 4))
    parameters = 4 * sum(leaf.size for leaf in jax.tree.leaves(make_program(tiny_config()).state_shapes.params))
    assert 3 * parameters < one < two < four < 8 * one


# --- really --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ways(tiny_config, tmp_path_factory):
    """The same four runs, trained side by side, one by one, and in two programs because memory is short."""
    configs = [tiny_config(seed=seed, **{"optim.lr": lr}, **EPS) for seed in (0, 1) for lr in (1e-3, 3e-3)]
    stores = {way: tmp_path_factory.mktemp(way) for way in ("vmap", "local", "split")}
    results = {way: execute(configs, stores[way], executor=way) for way in ("vmap", "local")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "free_memory", lambda: make_program(*configs[:2]).memory())
        results["split"] = execute(configs, stores["split"])
    return configs, stores, results


@pytest.mark.parametrize("way", ["vmap", "split"])
def test_the_way_of_running_changes_no_result_by_more_than_rounding(ways, way):
    configs, stores, results = ways
    for config, ours, alone in zip(configs, results[way], results["local"], strict=True):
        params, step = read_params(default_workdir(config, stores[way]))
        expected, expected_step = read_params(default_workdir(config, stores["local"]))
        assert step == expected_step == 20
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=BOUND), params, expected)
        assert ours["metrics"].keys() == alone["metrics"].keys()
        assert ours["metrics"]["loss"] == pytest.approx(alone["metrics"]["loss"], abs=BOUND)
        assert (ours["status"], ours["steps"], ours["seed"]) == ("finished", 20, config.seed)


def test_the_runs_differ_by_more_than_that(ways):
    configs, stores, _ = ways
    leaves = [jax.tree.leaves(read_params(default_workdir(config, stores["vmap"]))[0]) for config in configs]
    for i in range(4):
        for j in range(i):
            assert max(np.max(np.abs(x - y)) for x, y in zip(leaves[i], leaves[j], strict=True)) > 100 * BOUND


def test_results_say_how_many_were_trained_together(ways):
    for way, count in {"vmap": 4, "local": 1, "split": 2}.items():
        assert {result["trained_together"] for result in ways[2][way]} == {count}


@pytest.mark.parametrize("way", ["vmap", "split"])
def test_finished_programs_leave_nothing_but_their_runs(ways, way):
    configs, stores, _ = ways
    folders = {path.name for path in stores[way].iterdir()} - {"programs"}
    assert folders == {config_hash(config) for config in configs}
    assert not list(stores[way].glob("programs/*"))


def test_progress_names_what_runs_and_says_the_time_left_by_the_work_that_is_left(tiny_config, monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(executors.time, "monotonic", lambda: now[0])
    long = {"train.duration": "80 steps"}
    configs = {name: tiny_config(**fields) for name, fields in {"a0": {}, "a1": {}, "b0": long, "c0": {}}.items()}
    names = {name: executors.Name(f"row {name[0]}", int(name[1])) for name in configs}
    progress = executors.Progress(configs, names, ["a0", "a1", "b0"])
    progress.begin(["a0", "a1"])
    now[0] += 60.0  # twice 20 steps took a minute: 80 take two
    ended = {"status": "finished", "metrics": {"loss": 0.5}, "seed": 0}
    progress([{**ended, "config_hash": "a0"}, {**ended, "config_hash": "a1", "status": "failed", "reason": "at step 3"}])
    progress.begin(["b0"])
    assert capsys.readouterr().err.splitlines() == [
        "1 of 4 runs are there already",
        "next: row a, seeds 0, 1  (1 of 4 runs done)",
        "[2/4] row a, seed 0  a0  finished  loss 0.5000",
        "[3/4] row a, seed 1  a1  failed  at step 3",
        "1 of 4 runs left, about 2:00 left for all",
        "next: row b, seed 0  (3 of 4 runs done, about 2:00 left for all)",
    ]
