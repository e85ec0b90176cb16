"""Several seeds by the command: killed and started again, started twice, evaluated one by one."""

import contextlib
import io
import json
import signal
import subprocess
import sys
import time

import pytest

from lrnn_jax.cli.main import main
from lrnn_jax.sweeps import packs

# Some seconds of training after start-up. Patience ends one of the members at 200 steps and another at 550.
ARGUMENTS = [
    "--config=configs/parity.py:diagonal",
    "--config.seed=2",
    "--config.seeds=4",
    "--config.train.duration=800 steps",
    "--config.train.batch_size=8",
    "--config.train.length=[3,16]",
    "--config.train.steps_per_dispatch=20",
    "--config.eval.every=50 steps",
    "--config.eval.lengths=[[40,64]]",
    "--config.eval.examples=32",
    "--config.eval.batch_size=32",
    "--config.eval.patience=3",
    "--config.checkpoint.every=40 steps",
    "--config.log.every=60 steps",  # some checkpoints lie between two training lines
]
QUICK = [
    "--config=configs/parity.py:diagonal,smoke",
    "--config.train.duration=6 steps",
    "--config.train.length=[3,8]",
    "--config.eval.every=50%",
    "--config.eval.examples=8",
    "--config.eval.lengths=[[40,48]]",
]


def start(store):
    command = [sys.executable, "-m", "lrnn_jax", "train", *ARGUMENTS, f"--workdir={store}"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(store):
    process = start(store)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out, err


def read_runs(store):
    """Each run's result and metric lines, without what depends on the clock."""
    runs = {}
    for file in store.glob("*/result.json"):
        result = json.loads(file.read_text())
        texts = file.with_name("metrics.jsonl").read_text().splitlines()
        clock = ("elapsed_s", "steps_per_s", "wall_time_s", "finished_at")
        lines = [json.loads(text) for text in texts]
        runs[file.parent.name] = [{k: v for k, v in line.items() if k not in clock} for line in [result, *lines]]
    return runs


def wait_for_step(step, store, process):
    deadline = time.monotonic() + 60
    while not any(path.name.isdigit() and int(path.name) >= step for path in store.glob("programs/*/checkpoints/*")):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"no checkpoint of step {step}: {process.communicate()[1]}")
        time.sleep(0.005)


def test_a_group_that_is_stopped_and_then_killed_ends_with_the_same_bits(tmp_path):
    whole, store = tmp_path / "whole", tmp_path / "store"
    finish(whole)
    expected = read_runs(whole)
    assert sorted(result["seed"] for result, *_ in expected.values()) == [2, 3, 4, 5]
    steps = [result["steps"] for result, *_ in expected.values()]
    assert min(steps) <= 240 and max(steps) >= 400, f"{steps} show nothing of patience; take other seeds"
    for signum, step, code in [(signal.SIGTERM, 80, 128 + signal.SIGTERM), (signal.SIGKILL, 240, -signal.SIGKILL)]:
        process = start(store)
        wait_for_step(step, store, process)
        process.send_signal(signum)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, "it ended before the signal"
        assert "Traceback" not in err and out == ""
        assert signum != signal.SIGTERM or "the same command resumes there" in err.splitlines()[-1]
        assert not list(store.glob("*/result.json"))
    _, err = finish(store)
    assert "resuming 4 runs in" in err
    assert read_runs(store) == expected
    assert not list(store.glob("programs/*"))


# --- the same command once more ------------------------------------------------------------------------------------


def call(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(arguments))
    assert code == 0, err.getvalue()
    return out.getvalue(), err.getvalue()


def read_table(out):
    """A printed table as one mapping from column to text per row."""
    header, *rows = (line.split() for line in out.split("\n\n")[0].splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    store = tmp_path_factory.mktemp("three") / "store"
    return store, call("train", *QUICK, "--config.seeds=3", f"--workdir={store}")[0]


def files_of(store):
    return {path: path.stat().st_mtime_ns for path in store.glob("*/*") if path.is_file() and path.name != ".lock"}


def test_three_seeds_are_three_runs_and_one_line_for_each(three):
    store, out = three
    rows = read_table(out)
    assert sorted(row["run"] for row in rows) == [f"diagonal,seed={seed}" for seed in range(3)]
    for row in rows:
        result = json.loads((store / row["folder"] / "result.json").read_text())
        assert (result["config_hash"], result["trained_together"]) == (row["folder"], 3)
        assert row["run"] == f"diagonal,seed={result['seed']}"
        assert float(row["loss"]) == pytest.approx(result["metrics"]["loss"], rel=1e-3)


def test_the_same_command_again_trains_nothing(three, monkeypatch):
    store, out = three
    before = files_of(store)
    monkeypatch.setattr(packs, "train_members", lambda *_, **__: pytest.fail("trained"))
    again, err = call("train", *QUICK, "--config.seeds=3", f"--workdir={store}")
    assert again == out and "3 of 3 runs" in err
    assert files_of(store) == before


def test_eval_of_each_member_prints_the_metrics_of_its_result(three):
    store, _ = three
    for file in store.glob("*/result.json"):
        metrics = json.loads(file.read_text())["metrics"]
        out, _ = call("eval", f"--workdir={file.parent}")
        assert "last checkpoint, step 6" in out
        headline, bucket = read_table(out)
        for name in ("accuracy", "loss", "scaled_accuracy"):
            assert float(headline[name]) == pytest.approx(metrics[name], abs=1e-4)
            assert float(bucket[name]) == pytest.approx(metrics[f"{name}/40-48"], abs=1e-4)


def test_a_run_by_itself_is_the_member_and_more_seeds_are_only_the_new_ones(three, monkeypatch, tmp_path):
    store, _ = three
    before = files_of(store)
    trained = []

    def train_members(program, *_, **__):
        trained.extend(config.seed for config in program.configs)
        raise KeyboardInterrupt

    monkeypatch.setattr(packs, "train_members", train_members)
    # where the run lies by default
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(store)
    assert "nothing to do" in call("train", *QUICK, "--config.seed=1")[1]
    assert main(["train", *QUICK, "--config.seeds=5", f"--workdir={store}"]) == 130
    assert trained == [3, 4]
    assert {path: when for path, when in files_of(store).items() if path in before} == before
