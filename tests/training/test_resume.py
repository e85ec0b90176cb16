"""A run that is killed, stopped or damaged ends with the very bits of an uninterrupted run."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# A few seconds of training after start-up, checkpointing every 40 steps.
ARGUMENTS = [
    "--config=configs/parity.py:diagonal",
    "--config.train.duration=3000 steps",
    "--config.train.batch_size=16",
    "--config.train.steps_per_dispatch=20",
    "--config.train.length=[3,16]",
    "--config.eval.every=1000 steps",
    "--config.eval.lengths=[[40,64]]",
    "--config.eval.examples=32",
    "--config.eval.batch_size=32",
    "--config.checkpoint.every=40 steps",
    "--config.log.every=60 steps",  # some checkpoints lie between two training lines
]


def start(workdir, cache, *extra):
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return subprocess.Popen(
        [sys.executable, "-m", "lrnn_jax", "train", *ARGUMENTS, f"--workdir={workdir}", *extra],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


def steps_saved(workdir):
    folder = workdir / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []


def wait_for_a_checkpoint(workdir):
    deadline = time.monotonic() + 60
    while not steps_saved(workdir) and time.monotonic() < deadline:
        time.sleep(0.01)


def finish(workdir, cache):
    process = start(workdir, cache)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads((workdir / "result.json").read_text()), err


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    base = tmp_path_factory.mktemp("runs")
    result, _ = finish(base / "whole", base / "cache")
    return result, base / "whole", base / "cache"


def metric_lines(workdir):
    lines = [json.loads(text) for text in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("elapsed_s", "steps_per_s")} for line in lines]


@pytest.mark.parametrize("most", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_kills_at_random_moments_leave_the_parameters_bit_identical(uninterrupted, tmp_path, most):
    expected, whole, cache = uninterrupted
    workdir = tmp_path / "killed"
    moments = random.Random(0)
    kills = 0
    while kills < most:
        process = start(workdir, cache)
        before = steps_saved(workdir)
        deadline = time.monotonic() + 60
        # sometimes before the first new checkpoint, mostly somewhere after it
        wait_for_progress = moments.random() < 0.8
        while wait_for_progress and steps_saved(workdir)[-1:] == before[-1:] and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.25))
        assert process.poll() is None, f"ended after {kills} kills: {process.stderr.read()}"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    result, err = finish(workdir, cache)
    assert "resuming" in err
    assert result["params_sha256"] == expected["params_sha256"]
    assert result["metrics"] == expected["metrics"]
    assert metric_lines(workdir) == metric_lines(whole)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_saves_and_says_how_to_resume(uninterrupted, tmp_path, signum):
    expected, _, cache = uninterrupted
    workdir = tmp_path / "stopped"
    process = start(workdir, cache)
    wait_for_a_checkpoint(workdir)
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert "Traceback" not in err
    assert "the same command resumes there" in err.splitlines()[-1]
    assert not (workdir / "result.json").exists()
    result, err = finish(workdir, cache)
    assert f"resuming {workdir} at step" in err
    assert result["params_sha256"] == expected["params_sha256"]


def test_a_second_process_is_refused_the_same_workdir(uninterrupted, tmp_path):
    _, _, cache = uninterrupted
    workdir = tmp_path / "shared"
    first = start(workdir, cache)
    wait_for_a_checkpoint(workdir)
    second = start(workdir, cache)
    _, err = second.communicate(timeout=60)
    first.kill()
    first.communicate()
    assert second.returncode == 2
    assert len(err.splitlines()) == 1 and f"pid {first.pid}" in err


def damage_emptied(step_folder: Path):
    for file in step_folder.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


def damage_truncated(step_folder: Path):
    largest = max((f for f in (step_folder / "state").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def damage_flipped(step_folder: Path):
    """One flipped bit in the middle of every data file."""
    for file in (step_folder / "state").rglob("d/*"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(bytes(data))


def damage_missing(step_folder: Path):
    shutil.rmtree(step_folder / "state")


@pytest.mark.parametrize("damage", [damage_emptied, damage_truncated, damage_flipped, damage_missing])
def test_a_damaged_newest_checkpoint_is_skipped_for_the_one_before(uninterrupted, tmp_path, damage):
    expected, whole, cache = uninterrupted
    workdir = tmp_path / "damaged"
    shutil.copytree(whole, workdir)
    (workdir / "result.json").unlink()
    *_, before, newest = steps_saved(workdir)
    damage(workdir / "checkpoints" / str(newest))
    result, err = finish(workdir, cache)
    assert f"checkpoint of step {newest} cannot be read" in err
    assert f"resuming {workdir} at step {before}" in err
    assert (workdir / "corrupt" / str(newest)).is_dir(), "the damaged checkpoint is kept aside"
    assert result["params_sha256"] == expected["params_sha256"]
