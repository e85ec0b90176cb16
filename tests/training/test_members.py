"""Many runs in one program: each is what it would have been alone, whatever becomes of the others."""

import json
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrnn_jax.config.files import load_own_config
from lrnn_jax.config.identity import config_hash, split_seeds
from lrnn_jax.errors import UserError
from lrnn_jax.runs import folder as runs
from lrnn_jax.runs.checkpoints import Checkpoints
from lrnn_jax.runs.folder import RunFolder
from lrnn_jax.training.evaluation import evaluate_run
from lrnn_jax.training.loop import train, train_members
from lrnn_jax.training.program import make_program, take_member

# Side by side a reduction may be done in another order. What float32 rounding makes of that in 20 steps, with Adam's eps
# at 1e-3: at 1e-8 a weight whose gradient is nothing but rounding moves by the learning rate at every step.
BOUND = 2e-5
SMALL = {
    "train.duration": "20 steps",
    "train.batch_size": 8,
    "train.length": [3, 8],
    "train.steps_per_dispatch": 10,
    "eval.every": "10 steps",
    "eval.lengths": [[40, 48]],
    "eval.examples": 8,
    "eval.batch_size": 8,
    "checkpoint.every": "100%",
    "log.every": "10 steps",
    "optim.eps": 1e-3,
}
LRU = {"model.layer.state_size": 4, "model.width": 8, "model.norm": "batchnorm", "model.dropout": 0.1}


def tiny_config(arg="diagonal", **fields):
    config = load_own_config(f"configs/parity.py:{arg},smoke").unlock()
    config.update_from_flattened_dict({**SMALL, **fields})
    return config.lock()


def train_together(configs, store):
    """Trains the configs as one program; returns their folders and results."""
    folders = [store / config_hash(config) for config in configs]
    return folders, train_members(make_program(*configs), folders, store / "programs" / "it" / "checkpoints")


def train_alone(configs, store):
    """Trains the configs one after another; returns their folders and results."""
    folders = [store / config_hash(config) for config in configs]
    pairs = zip(configs, folders, strict=True)
    return folders, [train_members(make_program(c), [folder], folder / "checkpoints")[0] for c, folder in pairs]


def read_state(folder):
    program = make_program(RunFolder(folder).read_config())
    state = program.state_shapes
    target = {"state": state, "best": {"params": state.params, "batch_stats": state.batch_stats}}
    checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
    kept, info = checkpoints.restore_newest(target)
    checkpoints.close()
    return kept["state"], info["step"]


def read_lines(folder):
    """The lines of metrics.jsonl without what depends on the clock."""
    texts = (folder / "metrics.jsonl").read_text().splitlines()
    return [without(json.loads(text), "elapsed_s", "steps_per_s") for text in texts]


def without(line, *names):
    return {name: value for name, value in line.items() if name not in names}


def assert_close(ours, theirs, bound=BOUND):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=bound), ours, theirs)


def largest_difference(ours, theirs):
    return max(float(np.max(np.abs(x - y))) for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))


# --- one program and separate runs ---------------------------------------------------------------------------------

GROUPS = {
    "seeds": lambda: split_seeds(tiny_config(seeds=3, seed=5)),
    "learning rates": lambda: [tiny_config(**{"optim.lr": lr, "optim.final_lr": 0.0}) for lr in (0.0, 1e-3, 1e-2)],
    "weight decay": lambda: [tiny_config(**{"optim.lr": 1e-2, "optim.weight_decay": decay}) for decay in (0.0, 1.0, 3.0)],
    "seeds, much else": lambda: split_seeds(tiny_config("lru", seeds=2, **LRU)),
    "radii": lambda: [
        tiny_config("lru", **LRU, **{"model.layer.r_min": low, "model.layer.r_max": high})
        for low, high in [(0.0, 0.5), (0.9, 0.99)]
    ],
}


@pytest.fixture(scope="module", params=GROUPS)
def trained(request, tmp_path_factory):
    """A group's configs, and (folders, results) side by side and one by one."""
    configs = GROUPS[request.param]()
    store = tmp_path_factory.mktemp("group")
    return configs, train_together(configs, store / "together"), train_alone(configs, store / "alone")


def only(*groups):
    return pytest.mark.parametrize("trained", groups, indirect=True)


def test_each_member_has_its_own_folder_config_metrics_result_and_checkpoint(trained):
    configs, (folders, results), (alone, _) = trained
    assert len(set(folders)) == len(configs)
    for config, folder, result, other in zip(configs, folders, results, alone, strict=True):
        assert json.loads((folder / "config.json").read_text()) == config.to_dict() and config.seeds == 1
        assert json.loads((folder / "result.json").read_text()) == result
        assert (result["status"], result["steps"], result["seed"]) == ("finished", 20, config.seed)
        assert (result["config_hash"], result["trained_together"]) == (folder.name, len(configs))
        assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["20", "metrics-0.jsonl"]
        # what there is besides is what there is in the folder of a run that was alone
        assert {path.name for path in folder.iterdir()} == {path.name for path in other.iterdir()}


def test_each_member_starts_as_its_separate_run_and_stays_with_it(trained):
    configs, (folders, _), (alone, _) = trained
    together = make_program(*configs).init()
    for i, config in enumerate(configs):
        assert_close(take_member(together, i, len(configs)), make_program(config).init(), bound=1e-6)
        (ours, step), (theirs, expected_step) = read_state(folders[i]), read_state(alone[i])
        assert step == expected_step == int(ours.step) == 20
        assert_close((ours.params, ours.batch_stats), (theirs.params, theirs.batch_stats))


def test_each_member_writes_the_lines_of_its_separate_run(trained):
    _, (folders, results), (alone, expected) = trained
    for folder, other, result, separate in zip(folders, alone, results, expected, strict=True):
        lines, others = read_lines(folder), read_lines(other)
        assert [(line["step"], line["split"]) for line in lines] == [(line["step"], line["split"]) for line in others]
        for line, theirs in zip(lines, others, strict=True):
            assert without(line, "split") == pytest.approx(without(theirs, "split"), abs=10 * BOUND)
        assert result["metrics"] == pytest.approx(separate["metrics"], abs=10 * BOUND)
        assert result["best"]["step"] == separate["best"]["step"]


@only("seeds")
def test_members_of_different_seeds_are_different_runs(trained):
    _, (folders, results), _ = trained
    assert len({result["params_sha256"] for result in results}) == 3
    states = [read_state(folder)[0].params for folder in folders]
    assert all(largest_difference(states[i], states[j]) > 100 * BOUND for i, j in [(0, 1), (0, 2), (1, 2)])
    first = [next(line["loss"] for line in read_lines(folder) if line["split"] == "train") for folder in folders]
    assert len(set(first)) == 3


@only("seeds")
def test_each_seed_has_its_own_data(trained):
    configs, *_ = trained
    start = make_program(configs[0]).init()
    # the same start for all of them: what differs is what they are shown
    ends = [make_program(config).advance(jax.tree.map(jnp.copy, start), 10, start=0)[0].params for config in configs]
    together = make_program(*configs).advance(jax.tree.map(lambda x: jnp.stack([x] * 3), start), 10, start=0)[0].params
    for i, end in enumerate(ends):
        assert largest_difference(end, ends[i - 1]) > 100 * BOUND
        assert_close(take_member(together, i, 3), end)


@only("learning rates")
def test_each_member_learns_at_its_own_rate(trained):
    configs, (folders, _), _ = trained
    start = make_program(configs[0]).init().params
    none, little, much = (largest_difference(read_state(folder)[0].params, start) for folder in folders)
    assert none == 0.0
    assert 10 * BOUND < little < much / 3


@only("weight decay")
def test_each_member_has_its_own_weight_decay(trained):
    _, (folders, _), _ = trained
    norms = [
        sum(float(np.sum(x**2)) for x in jax.tree.leaves(read_state(folder)[0].params) if x.ndim > 1) for folder in folders
    ]
    assert norms[1] < 0.9 * norms[0]


@only("radii")
def test_each_member_has_its_own_initial_radius(trained):
    configs, _, _ = trained
    flat = jax.tree_util.tree_flatten_with_path(make_program(*configs).init().params)[0]
    (nu_log,) = (leaf for path, leaf in flat if "nu_log" in jax.tree_util.keystr(path))
    for config, row in zip(configs, np.exp(-np.exp(nu_log)), strict=True):
        assert row.size == 4
        assert np.all((config.model.layer.r_min - 1e-5 <= row) & (row <= config.model.layer.r_max + 1e-5))


@only("seeds", "seeds, much else")
@pytest.mark.parametrize("which", ["last", "best"])
def test_eval_of_a_members_folder_gives_the_metrics_of_its_result(trained, which):
    _, (folders, results), _ = trained
    for folder, result in zip(folders, results, strict=True):
        again = evaluate_run(folder, which=which, lengths=None, examples=None)
        expected, step = (result["metrics"], 20) if which == "last" else (result["best"]["metrics"], result["best"]["step"])
        assert again["step"] == step
        assert again["metrics"] == pytest.approx(expected, abs=1e-5)


@only("seeds")
def test_a_members_folder_is_a_run_like_any_other(trained, tmp_path, capsys):
    configs, (folders, results), _ = trained
    folder = shutil.copytree(folders[1], tmp_path / folders[1].name)
    (folder / "result.json").unlink()
    again = train(configs[1], folder)
    assert f"resuming {folder} at step 20" in capsys.readouterr().err
    assert again["params_sha256"] == results[1]["params_sha256"]
    assert again["metrics"] == pytest.approx(results[1]["metrics"], abs=1e-5)
    assert [line for line in read_lines(folder) if line["split"] != "test"] == [
        line for line in read_lines(folders[1]) if line["split"] != "test"
    ]


# --- the end of one is not the end of the others -------------------------------------------------------------------


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    """Three members of which the second multiplies its weights by up to -30 at every step, or, in the other group, does not."""
    store = tmp_path_factory.mktemp("poisoned")
    deadly, harmless = {"optim.weight_decay": 1e4}, {"optim.weight_decay": 0.1}
    groups = {}
    for name, fields in {"with": deadly, "without": harmless}.items():
        configs = [tiny_config(seed=0), tiny_config(seed=1, **fields), tiny_config(seed=2)]
        groups[name] = train_together(configs, store / name)
    return groups, train_alone([tiny_config(seed=1, **deadly)], store / "alone")


def test_a_member_that_is_not_finite_fails_as_it_would_alone(poisoned):
    groups, ((other,), (alone,)) = poisoned
    folders, results = groups["with"]
    assert alone["status"] == "failed" and 10 < alone["steps"] < 20
    assert [result["status"] for result in results] == ["finished", "failed", "finished"]
    failed, folder = results[1], folders[1]
    assert (failed["steps"], failed["reason"]) == (alone["steps"], alone["reason"])
    assert "metrics" not in failed and failed["reason"].startswith(f"step {failed['steps'] + 1}: not finite")
    assert {line["step"] for line in read_lines(folder)} == {10}
    # the last good state is kept, where it can be tried again
    (ours, step), (theirs, _) = read_state(folder), read_state(other)
    assert step == int(ours.step) == int(theirs.step) == failed["steps"] and bool(ours.alive)
    for x, y in zip(jax.tree.leaves(ours.params), jax.tree.leaves(theirs.params), strict=True):
        assert np.all(np.isfinite(x))
        np.testing.assert_allclose(x, y, rtol=1e-3)


def test_a_failed_member_that_is_tried_again_begins_at_its_last_good_state(poisoned, tmp_path):
    groups, _ = poisoned
    folders, results = groups["with"]
    folder = shutil.copytree(folders[1], tmp_path / folders[1].name)
    config = tiny_config(seed=1, **{"optim.weight_decay": 1e4})
    (again,) = train_members(make_program(config), [folder], folder / "checkpoints")
    clock = ("finished_at", "wall_time_s", "trained_together")
    assert without(again, *clock) == without(results[1], *clock)


def test_a_dead_member_changes_no_bit_of_the_others(poisoned):
    (folders, results), (others, expected) = poisoned[0]["with"], poisoned[0]["without"]
    assert [result["status"] for result in expected] == ["finished"] * 3
    for i in (0, 2):
        assert results[i]["params_sha256"] == expected[i]["params_sha256"]
        assert results[i]["metrics"] == expected[i]["metrics"] and results[i]["best"] == expected[i]["best"]
        assert results[i]["steps"] == 20
        assert read_lines(folders[i]) == read_lines(others[i])


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    fields = {"eval.best_metric": "accuracy", "eval.patience": 2, "train.duration": "160 steps"}
    configs = split_seeds(tiny_config(seeds=4, **fields))
    store = tmp_path_factory.mktemp("patient")
    return configs, train_together(configs, store / "together"), train_alone(configs, store / "alone")


def stopping_step(folder, patience):
    """The validation at which a run stops, from its own validations: the first after which ``patience`` were no better."""
    best, age = -1.0, 0
    for line in read_lines(folder):
        if line["split"] == "validation":
            best, age = (line["accuracy"], 0) if line["accuracy"] > best else (best, age + 1)
            if age == patience:
                return line["step"]
    return 160


@pytest.mark.parametrize("way", [1, 2], ids=["together", "alone"])
def test_patience_ends_each_run_on_its_own(patient, way):
    folders, results = patient[way]
    assert len({result["steps"] for result in results}) > 1, "these seeds show nothing; take others"
    for folder, result in zip(folders, results, strict=True):
        assert result["status"] == "finished"
        assert result["steps"] == stopping_step(folder, 2) == max(line["step"] for line in read_lines(folder))
        assert bool(result["reason"]) == (result["steps"] < 160)
        validated = [line for line in read_lines(folder) if line["split"] == "validation"]
        # equal accuracies are told apart by the loss
        assert result["best"]["step"] == max(validated, key=lambda line: (line["accuracy"], -line["loss"]))["step"]
        assert [line["step"] for line in read_lines(folder) if line["split"] == "test"] == [result["steps"]]


def test_a_member_that_stopped_is_what_its_separate_run_is(patient):
    _, (folders, results), (alone, expected) = patient
    for folder, result, other, separate in zip(folders, results, alone, expected, strict=True):
        assert (result["steps"], result["reason"]) == (separate["steps"], separate["reason"])
        (ours, _), (theirs, _) = read_state(folder), read_state(other)
        assert int(ours.step) == int(theirs.step) == result["steps"]
        assert_close(ours.params, theirs.params, bound=10 * BOUND)


def test_a_member_that_stopped_stays_stopped(patient, tmp_path):
    configs, (folders, results), _ = patient
    i = min(range(4), key=lambda i: results[i]["steps"])
    folder = shutil.copytree(folders[i], tmp_path / "run")
    (folder / "result.json").unlink()
    again = train(configs[i], folder)
    assert (again["steps"], again["params_sha256"]) == (results[i]["steps"], results[i]["params_sha256"])


@pytest.mark.parametrize(("hard", "raised"), [(10_000, True), (600, False), (resource.RLIM_INFINITY, True)])
def test_many_runs_raise_the_limit_of_open_files_or_are_refused_at_once(monkeypatch, hard, raised):
    limits = []
    monkeypatch.setattr(runs.resource, "getrlimit", lambda _: (256, hard))
    monkeypatch.setattr(runs.resource, "setrlimit", lambda _, pair: limits.append(pair))
    if raised:
        runs.allow_open_files(1000)
        assert limits and limits[0][0] > 1000 and limits[0][1] == hard
    else:
        with pytest.raises(UserError, match="1000 runs at once need"):
            runs.allow_open_files(1000)
        assert not limits
