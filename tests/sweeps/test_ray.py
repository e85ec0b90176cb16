"""Sweeps on Ray: a worker that is killed costs nothing but time, and an address where nobody answers is one line."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from lrnn_jax.runs.checkpoints import Checkpoints
from lrnn_jax.runs.folder import RunFolder
from lrnn_jax.runs.store import default_workdir
from lrnn_jax.sweeps import ray_executor
from lrnn_jax.sweeps.executors import execute
from lrnn_jax.training.program import make_program

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

RUNS, BOUND = 40, 2e-5  # the bound is that of test_executors.py

CONFIG = """
import json
import pathlib
from ml_collections import ConfigDict
from lrnn_jax.sweeps.combinators import seeds

def get_config(arg=None):
    return ConfigDict(json.loads(pathlib.Path(__file__).with_suffix(".json").read_text()))

def sweep():
    return seeds({count})
"""


@pytest.fixture(scope="module")
def forty(tiny_config, tmp_path_factory):
    """A config file with a sweep of 40 runs of some tenths of a second, and the configs."""
    config = tiny_config(**{"optim.eps": 1e-3, "train.duration": "200 steps", "checkpoint.every": "20 steps"})
    folder = tmp_path_factory.mktemp("config")
    (folder / "forty.py").write_text(CONFIG.format(count=RUNS))
    (folder / "forty.json").write_text(config.to_json())
    members = []
    for seed in range(RUNS):
        member = type(config)(config)
        member.seed = seed
        members.append(member)
    return folder / "forty.py", members


def sweep(file, store, *arguments, **options):
    command = [sys.executable, "-m", "lrnn_jax", "sweep", f"--config={file}", f"--workdir={store}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def kill_a_worker_in_the_middle(store):
    """Sends SIGKILL to the process that writes a run which has a checkpoint but no result; returns the run's folder."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        done = len(list(store.glob("*/result.json")))
        for folder in store.glob("*/"):
            owner = folder / ".lock"
            begun = any(path.name.isdigit() for path in folder.glob("checkpoints/*"))
            if 5 <= done < RUNS - 5 and begun and not (folder / "result.json").exists():
                with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
                    os.kill(int(owner.read_text()), signal.SIGKILL)
                    time.sleep(0.05)
                    if not (folder / "result.json").exists():
                        return folder
        time.sleep(0.002)
    raise AssertionError("no run was caught in the middle")


@pytest.fixture(scope="module")
def swept(forty, tmp_path_factory):
    """The store of a sweep on two Ray workers, one of them killed, and what was said."""
    store = tmp_path_factory.mktemp("ray")
    process = sweep(forty[0], store, "--executor=ray", "--workers=2")
    try:
        killed = kill_a_worker_in_the_middle(store)
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return store, killed, out, err


def listed(out):
    """The runs in the printed table; Ray itself may say there that a worker died."""
    return re.findall(r"^([0-9a-f]{12}) ", out, re.MULTILINE)


def test_forty_runs_with_a_killed_worker_are_forty_results(forty, swept):
    store, killed, out, err = swept
    names = {default_workdir(config, store).name for config in forty[1]}
    results = [json.loads(file.read_text()) for file in store.glob("*/result.json")]
    assert len(results) == RUNS and {result["config_hash"] for result in results} == names
    assert {result["status"] for result in results} == {"finished"} and {result["steps"] for result in results} == {200}
    assert {result["seed"] for result in results} == set(range(RUNS))
    # each is reported once, and has every line once
    reported = re.findall(r"^\[(\d+)/40\] (\w+)  finished", err, re.MULTILINE)
    assert sorted(name for _, name in reported) == sorted(names)
    assert [int(count) for count, _ in reported] == list(range(1, RUNS + 1))
    assert sorted(listed(out)) == sorted(names)
    for file in store.glob("*/metrics.jsonl"):
        lines = [json.loads(text) for text in file.read_text().splitlines()]
        assert len({(line["split"], line["step"]) for line in lines}) == len(lines)
    assert (killed / "result.json").exists()
    assert "Traceback" not in err


def read_params(config, store):
    workdir = default_workdir(config, store)
    state = make_program(config).state_shapes
    target = {"state": state, "best": {"params": state.params, "batch_stats": state.batch_stats}}
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    kept, _ = checkpoints.restore_newest(target)
    checkpoints.close()
    return kept["state"].params


@pytest.mark.parametrize("executor", ["local", "vmap"])
def test_the_same_forty_runs_without_ray(forty, swept, tmp_path, executor):
    results = execute(forty[1], tmp_path, executor=executor)
    for config, result in zip(forty[1], results, strict=True):
        theirs = json.loads((default_workdir(config, swept[0]) / "result.json").read_text())
        assert result["steps"] == theirs["steps"]
        if executor == "local":  # the same compiled program
            assert result["params_sha256"] == theirs["params_sha256"]
        else:
            pair = read_params(config, tmp_path), read_params(config, swept[0])
            # ten times the steps of test_executors.py
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=10 * BOUND), *pair)


def test_a_second_start_trains_nothing(forty, swept):
    process = sweep(forty[0], swept[0], "--executor=ray", "--workers=2")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and f"{RUNS} of {RUNS} runs are there already" in err
    assert "[1/" not in err and listed(out) == listed(swept[2])


def test_a_run_that_another_process_holds_is_named_and_the_sweep_goes_on(forty, tmp_path):
    (tmp_path / "two.py").write_text(CONFIG.format(count=2))
    (tmp_path / "two.json").write_text(forty[1][0].to_json())
    held, free = (default_workdir(config, tmp_path / "store") for config in forty[1][:2])
    with RunFolder(held).locked():
        process = sweep(tmp_path / "two.py", tmp_path / "store", "--executor=ray", "--workers=1")
        try:
            out, err = process.communicate(timeout=240)
        finally:
            process.kill()
    assert process.returncode == 1, err
    assert f"{held}: {held} is being written by another process (pid {os.getpid()})" in err
    assert not (held / "result.json").exists() and json.loads((free / "result.json").read_text())["status"] == "finished"
    # nothing else is said: no page of Ray's, no warning of JAX's
    first, *lines, last = [line for line in err.splitlines() if not line.startswith((f"{held}: ", "about "))]
    assert first == "2 of 2 runs" and last.startswith("lrnn: 1 of 2 runs failed")
    assert [line.split()[1:3] for line in lines] == [[free.name, "finished"]]
    assert listed(out) == [free.name]


# each of the module __main__, so that workers get the function itself
RAISED = {
    "raise ValueError('one\\ntwo')": "two",
    "raise ray.exceptions.OutOfMemoryError('page')": "OutOfMemoryError",
    "raise KeyError('name')": "KeyError: 'name'",
}


@pytest.mark.parametrize("raised", RAISED)
def test_what_a_run_raises_is_one_line(forty, tmp_path, monkeypatch, capsys, raised):
    scope = {"__name__": "__main__"}
    exec(f"def train_one(config, store):\n    import ray\n    {raised}\n", scope)
    monkeypatch.setattr(ray_executor, "train_one", scope["train_one"])
    configs = forty[1][:2]
    assert execute(configs, tmp_path, executor="ray", workers=1) == [None, None]
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.split(": ")[0] for line in lines) == sorted(str(default_workdir(c, tmp_path)) for c in configs)
    assert all(RAISED[raised] in line for line in lines)


@pytest.mark.parametrize("kind", ["NodeDiedError", "OutOfMemoryError", "LocalRayletDiedError"])
def test_a_machine_that_went_away_too_often_is_named(forty, tmp_path, monkeypatch, capsys, kind):
    def lose(reference):
        raise getattr(ray.exceptions, kind)("a page\nof text")

    monkeypatch.setattr(ray, "get", lose)
    monkeypatch.setattr(ray_executor, "train_one", eval("lambda config, store: ''", {"__name__": "__main__"}))
    (config,) = forty[1][:1]
    assert execute([config], tmp_path, executor="ray", workers=1) == [None]
    assert capsys.readouterr().err == f"{default_workdir(config, tmp_path)}: {kind}\n"


def test_a_run_whose_workers_all_die_is_named_and_the_sweep_goes_on(forty, tmp_path, monkeypatch, capsys):
    die = eval("lambda config, store: __import__('os')._exit(1)", {"__name__": "__main__"})
    monkeypatch.setattr(ray_executor, "train_one", die)
    monkeypatch.setattr(ray_executor, "RETRIES", 1)
    configs = forty[1][:2]
    assert execute(configs, tmp_path, executor="ray", workers=2) == [None, None]
    err = capsys.readouterr().err
    for config in configs:
        assert f"{default_workdir(config, tmp_path)}: its worker died 2 times" in err


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_ray_address_where_nobody_answers_is_one_line_within_a_minute(forty, tmp_path, scheme):
    address = f"{scheme}127.0.0.1:{free_port()}"
    process = sweep(forty[0], tmp_path / "store", "--executor=ray", f"--ray_address={address}")
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 2 and out == ""
    (line,) = err.splitlines()
    assert line.startswith("lrnn: ") and address in line
    assert not (tmp_path / "store").exists()
