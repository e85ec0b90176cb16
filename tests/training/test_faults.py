"""What has changed, been removed or been taken over since a run began is said or refused."""

import errno
import json
import os
import shutil
import subprocess
import sys

import jax
import pytest
from tensorboardX.proto import event_pb2

from lrnn_jax.config.files import load_own_config
from lrnn_jax.errors import UserError
from lrnn_jax.runs.folder import RunFolder
from lrnn_jax.runs.journal import Journal
from lrnn_jax.runs.origin import check_settings, describe_device, find_changes
from lrnn_jax.runs.store import default_workdir, describe_changes, read_rows, read_status
from lrnn_jax.training import loop
from lrnn_jax.training.evaluation import evaluate_run
from lrnn_jax.training.loop import train
from lrnn_jax.training.member import Member

SMALL = {
    "model.width": 8,
    "model.depth": 1,
    "train.duration": "60 steps",
    "train.batch_size": 8,
    "train.length": [3, 8],
    "train.steps_per_dispatch": 10,
    "eval.every": "20 steps",
    "eval.lengths": [[40, 48]],
    "eval.examples": 8,
    "eval.batch_size": 8,
    "checkpoint.every": "20 steps",
}


def tiny_config(**fields):
    config = load_own_config("configs/parity.py:diagonal,smoke").unlock()
    config.update_from_flattened_dict({**SMALL, **{path.replace("__", "."): value for path, value in fields.items()}})
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    return default_workdir(tiny_config(), store), train(tiny_config(), default_workdir(tiny_config(), store))


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the finished run, under its own name."""
    return shutil.copytree(trained[0], tmp_path / trained[0].name)


def change(file, **fields):
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


# --- other code, versions, settings --------------------------------------------------------------------------------

ORIGIN = {
    "code": "c0",
    "git_commit": "a" * 40,
    "versions": {"jax": "0.10.1", "numpy": "2.0"},
    "settings": {"jax_enable_x64": False},
    "device": "Xeon (cpu, 4 cores)",
}


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({}, ""),
        ({"code": "c1"}, "the code (commit aaaaaaaaa)"),
        ({"code": "c1", "git_commit": "b" * 40 + "+"}, "commit aaaaaaaaa -> bbbbbbbbb+"),
        ({"git_commit": "b" * 40}, "commit aaaaaaaaa -> bbbbbbbbb (the code of layers and training is the same)"),
        ({"versions": {"jax": "0.10.2", "numpy": "2.0"}}, "jax 0.10.1 -> 0.10.2"),
        ({"settings": {"jax_enable_x64": True}}, "jax_enable_x64 False -> True"),
        ({"device": "H200 (gpu, 4 cores)"}, "device Xeon (cpu, 4 cores) -> H200"),
        ({"device": "Xeon (cpu, 1 cores)"}, "device Xeon (cpu, 4 cores) -> Xeon (cpu, 1 cores)"),
    ],
    ids=str,
)
def test_what_has_changed_is_said_in_words(now, said):
    assert find_changes(ORIGIN, {**ORIGIN, **now}) == said


def test_the_cores_of_a_machine_with_a_gpu_do_not_count():
    on_gpu = {**ORIGIN, "device": "H200 (gpu, 4 cores)"}
    assert find_changes(on_gpu, {**on_gpu, "device": "H200 (gpu, 16 cores)"}) == ""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="a process cannot be kept to a core here")
def test_cores_that_the_process_may_not_use_are_not_counted():
    cores = os.sched_getaffinity(0)
    jax.devices()  # or JAX would start here, and keep to one core in the tests that follow
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert describe_device().endswith(", 1 cores)")
    finally:
        os.sched_setaffinity(0, cores)


def test_what_an_older_result_does_not_say_is_not_held_against_it():
    assert find_changes({}, ORIGIN) == ""
    older = {"git_commit": "a" * 40, "versions": {"jax": "0.10.1"}}
    assert find_changes(older, ORIGIN) == ""
    assert find_changes({**older, "git_commit": "a" * 40 + "+"}, {**ORIGIN, "git_commit": "a" * 40 + "+"}) != ""
    check_settings({}, ORIGIN, "runs/x")


CHANGES = [
    ({"git_commit": "0" * 40}, "commit 000000000 -> "),
    ({"code": "another"}, "the code (commit "),
    ({"versions": {"jax": "0.0.1"}}, "jax 0.0.1 -> "),
]


@pytest.mark.parametrize(("then", "said"), CHANGES, ids=[said for _, said in CHANGES])
def test_a_finished_run_made_by_other_code_says_so_in_its_one_line(run, capsys, then, said):
    change(run / "result.json", **then)
    train(tiny_config(), run)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{run}: finished before this: {said}" in line and "nothing to do (remove the folder to train it again)" in line
    line = describe_changes([tiny_config(), tiny_config(model__width=12)], run.parent)
    assert "1 of the 1 finished runs" in line and said in line and line.endswith("remove their folders to train them again")


def test_a_finished_run_of_the_same_code_says_nothing_of_it(run, capsys):
    train(tiny_config(), run)
    assert capsys.readouterr().err == f"{run}: finished; nothing to do (remove the folder to train it again)\n"
    assert describe_changes([tiny_config()], run.parent) == ""


def test_a_resume_and_an_evaluation_by_other_code_say_so(run, trained, capsys, monkeypatch):
    (run / "result.json").unlink()
    other = {**loop.describe_origin(tiny_config()), "code": "another"}
    monkeypatch.setattr(loop, "describe_origin", lambda config: other)
    assert train(tiny_config(), run)["params_sha256"] == trained[1]["params_sha256"]
    resumed, changed = [line for line in capsys.readouterr().err.splitlines() if "resuming" in line or "changed" in line]
    assert resumed == f"resuming {run} at step 60"
    assert changed.startswith("changed since then: the code") and "remove the folder" in changed
    monkeypatch.setattr("lrnn_jax.runs.restoring.describe_origin", lambda config: other)
    evaluate_run(run, which="last", lengths=None, examples=None)
    assert f"{run}: changed since it was trained: the code" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "eval"])
def test_another_setting_of_jax_is_refused(run, command):
    script = (
        "import sys, json, pathlib; from ml_collections import ConfigDict; from lrnn_jax.errors import UserError\n"
        "from lrnn_jax.training.loop import train; from lrnn_jax.training.evaluation import evaluate_run\n"
        "run = pathlib.Path(sys.argv[2])\n"
        "try:\n"
        "    if sys.argv[1] == 'train':\n"
        "        (run / 'result.json').unlink()\n"
        "        train(ConfigDict(json.loads((run / 'config.json').read_text())), run)\n"
        "    else: evaluate_run(run, which='last', lengths=None, examples=None)\n"
        "except UserError as error: print(error)\n"
    )
    environment = {**os.environ, "JAX_ENABLE_X64": "1"}
    done = subprocess.run([sys.executable, "-c", script, command, str(run)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert f"{run} was trained with jax_enable_x64=False, and here it is True" in done.stdout
    assert "set JAX_ENABLE_X64=False, or choose another --workdir" in done.stdout and len(done.stdout.splitlines()) == 1


def test_a_result_says_what_made_it(trained):
    result = trained[1]
    assert result["x64"] is False and result["settings"]["jax_enable_x64"] is False
    assert set(result["settings"]) == {
        "jax_enable_x64", "jax_default_prng_impl", "jax_threefry_partitionable", "jax_default_matmul_precision",
    }  # fmt: skip
    assert len(result["code"]) == 64


# --- folders that are removed or taken over ------------------------------------------------------------------------


def test_a_writer_whose_folder_was_removed_or_replaced_stops(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        folder.append_metrics({"step": 1})
        shutil.rmtree(folder.path)
        writes = (
            lambda: folder.append_metrics({"step": 2}),
            lambda: folder.restore_metrics(b""),
            lambda: folder.write_result({}),
        )
        for write in writes:
            with pytest.raises(UserError, match="was removed or replaced while this run was writing it"):
                write()
        assert not folder.path.exists()
        other = RunFolder(tmp_path / "run")
        with other.locked():
            for write in writes:
                with pytest.raises(UserError, match="the same command starts anew"):
                    write()
            other.append_metrics({"step": 1})
        assert [line["step"] for line in other.parse_metrics()] == [1]


@pytest.mark.parametrize("spoil", [lambda file: file.unlink(), lambda file: file.write_text("{}")], ids=["removed", "changed"])
def test_lines_of_metrics_that_are_spoiled_under_a_run_are_not_saved_as_its_own(tmp_path, spoil):
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        folder.restore_metrics(b"")
        folder.append_metrics({"step": 1})
        folder.append_metrics({"step": 2})
        spoil(folder.metrics_file)
        for write in (folder.check_held, lambda: folder.append_metrics({"step": 3})):
            with pytest.raises(UserError, match=r"metrics.jsonl was changed or removed .*; the same command goes on"):
                write()
        folder.restore_metrics(b'{"step": 1}\n')
        folder.append_metrics({"step": 2})
        assert [line["step"] for line in folder.parse_metrics()] == [1, 2]


def test_a_run_whose_folder_is_taken_over_while_it_trains_writes_nothing_there(tmp_path, monkeypatch):
    """Run A's folder is removed while it trains and run B begins in it: what is there in the end is B's."""
    a, b, workdir = tiny_config(), tiny_config(), tmp_path / "run"
    b.seed = 1
    evaluate, there = loop.Program.evaluate, []

    def take_over(self, *rest, **how):
        if not there:
            shutil.rmtree(workdir)
            lock = RunFolder(workdir)
            there.append(lock.locked())
            there[0].__enter__()
            lock.claim(b, {})
        return evaluate(self, *rest, **how)

    monkeypatch.setattr(loop.Program, "evaluate", take_over)
    with pytest.raises(UserError, match="was removed or replaced"):
        train(a, workdir)
    there[0].__exit__(None, None, None)
    assert sorted(path.name for path in workdir.iterdir()) == [".lock", "config.json"]
    assert json.loads((workdir / "config.json").read_text())["seed"] == 1


def test_another_configs_result_is_no_result(run, trained, capsys):
    """As a run leaves it that was still writing when its folder was removed and taken over."""
    store, config = run.parent, tiny_config()
    change(run / "result.json", config_hash="0" * 12)
    assert read_status(config, store) == "started"
    assert [row["status"] for row in read_rows(store)] == ["stale"]
    assert train(config, run)["params_sha256"] == trained[1]["params_sha256"]
    assert "nothing to do" not in capsys.readouterr().err
    assert read_status(config, store) == "finished"


# --- damage to what is written beside checkpoints ------------------------------------------------------------------


def test_a_number_of_the_result_that_was_changed_is_noticed(run, trained):
    result = json.loads((run / "result.json").read_text())
    change(run / "result.json", metrics={**result["metrics"], "loss": result["metrics"]["loss"] + 1.0})
    assert read_status(tiny_config(), run.parent) == "started"
    again = train(tiny_config(), run)
    assert again["metrics"] == trained[1]["metrics"] and again["numbers_sha256"] == trained[1]["numbers_sha256"]


@pytest.mark.parametrize("content", [None, b"", b"\x80", b"[]\n{}\n"], ids=str)
def test_damaged_lines_of_a_finished_run_come_back_from_its_checkpoint(run, trained, content):
    file = run / "metrics.jsonl"
    before = file.read_bytes()
    file.write_bytes(before.replace(b"0.", b"1.", 1) if content is None else content)
    assert read_status(tiny_config(), run.parent) == "started"
    assert train(tiny_config(), run)["lines_sha256"] == trained[1]["lines_sha256"]
    assert len(file.read_bytes().splitlines()) == len(before.splitlines())


def test_lines_that_are_damaged_in_both_places_cost_the_checkpoints_that_are_later_and_no_more(run, trained, caplog):
    lines = run / "metrics.jsonl", run / "checkpoints" / "metrics-0.jsonl"
    for file in lines:
        text = file.read_text()
        end = text.index('"step": 60')  # of the newest checkpoint alone
        file.write_text(text[:end] + text[end:].replace("60", "61", 1))
    (run / "result.json").unlink()
    assert train(tiny_config(), run)["lines_sha256"] == trained[1]["lines_sha256"]
    assert "checkpoint of step 60 cannot be read (its lines of metrics are damaged" in caplog.text
    for file in lines:
        file.write_text("")
    (run / "result.json").unlink()
    with pytest.raises(UserError, match=r"no checkpoint can be read .*lines of metrics.*; remove the folder to start over"):
        train(tiny_config(), run)


def test_a_checkpoint_does_not_grow_with_the_lines_logged(tmp_path):
    """Only the journal does, which is written on."""
    config = tiny_config(log__every="1 steps", checkpoint__every="10 steps", checkpoint__keep=6)
    train(config, tmp_path)
    sizes = [(tmp_path / "checkpoints" / str(step) / "info" / "metadata").stat().st_size for step in range(10, 70, 10)]
    assert max(sizes) - min(sizes) < 64, sizes
    kept, written = (tmp_path / "checkpoints" / "metrics-0.jsonl").read_bytes(), (tmp_path / "metrics.jsonl").read_bytes()
    assert kept.count(b"\n") > 60 and written.startswith(kept)


DAMAGED = {
    "empty": b"",
    "list": b"[]",
    "binary": b"\x80\x81",
    "truncated": b'{"seed": ',
    "nested": b"[" * 100_000,
    "object": b"{}",
    "no model": b'{"seed": 0, "model": null}',
    "a number as name": b'{"model": {"layer": {"name": 3}}, "task": {"name": []}}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_config_is_named_and_says_what_to_do(run, content):
    (run / "config.json").write_bytes(content)
    for command in (
        lambda: train(tiny_config(), run),
        lambda: evaluate_run(run, which="last", lengths=None, examples=None),
    ):
        with pytest.raises(UserError, match=r"choose another|in another folder|remove this one to start over") as error:
            command()
        assert str(run) in str(error.value) and "\n" not in str(error.value)


def test_a_config_with_fields_of_other_types_says_what_to_do(run):
    config = json.loads((run / "config.json").read_text())
    for section, value in (("model", 3), ("task", []), ("optim", None), ("eval", {"lengths": "x"})):
        change(run / "config.json", **{**config, section: value})
        with pytest.raises(UserError, match=r"config.json is damaged or another version's: .*; restore the file, or train"):
            evaluate_run(run, which="last", lengths=None, examples=None)


# --- a disk without room -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["open", "pwrite", "ftruncate"])
def test_a_disk_that_is_full_at_the_first_start_is_one_line(tmp_path, monkeypatch, call):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"lrnn_jax.runs.folder.os.{call}", refuse)
    with pytest.raises(UserError, match=r"cannot write in --workdir=.*: No space left on device$"):
        train(tiny_config(), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


# --- metrics elsewhere ---------------------------------------------------------------------------------------------


def test_tensorboard_holds_each_point_once_after_a_resume(tmp_path, monkeypatch):
    """Logged up to step 20, killed, resumed from the checkpoint of step 10."""
    config = tiny_config(log__tensorboard=True, log__every="5 steps", checkpoint__every="10 steps", train__duration="30 steps")
    save = loop.Loop._save

    def die_at_20(self, state, step):
        if step == 20:
            raise KeyboardInterrupt
        save(self, state, step)

    monkeypatch.setattr(loop.Loop, "_save", die_at_20)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run")
    monkeypatch.setattr(loop.Loop, "_save", save)
    assert read_points(tmp_path / "run") == [5, 10, 15, 20]
    train(config, tmp_path / "run")
    assert read_points(tmp_path / "run") == [5, 10, 15, 20, 25, 30]


def read_points(workdir, tag="train/loss"):
    """The steps at which all event files together hold a point, in their order: a file is records with their sizes before."""
    steps = []
    for file in sorted((workdir / "tensorboard").iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
            steps += [event.step for value in event.summary.value if value.tag == tag]
            at += 16 + size
    return steps


# --- ties ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lower", [False, True])
def test_the_best_of_equal_values_has_the_lowest_loss(tmp_path, lower):
    member = Member(tiny_config(), RunFolder(tmp_path), [], Journal(tmp_path / "journal"))
    seen = [(0.5, 2.0), (1.0, 1.0), (1.0, 0.5), (1.0, 0.7), (0.9, 0.1), (1.0, 0.5), (1.0, 0.4)]
    better = [
        member.compare(-value if lower else value, loss, step, lower_is_better=lower) for step, (value, loss) in enumerate(seen)
    ]
    assert better == [True, True, True, False, False, False, True]
    assert (member.best.step, member.best.loss) == (6, 0.4)
    # patience counts validations since the value was reached
    assert member.best.age == 5
    older = {"best": {"step": 3, "value": 1.0, "age": 2}, "ended": None, "metrics": ['{"step": 1}', "{}"]}  # without a loss
    member.resume(older)
    assert member.folder.parse_metrics() == [{"step": 1}, {}]
    assert member.compare(1.0, 5.0, 7, lower_is_better=False) and member.best.age == 3
