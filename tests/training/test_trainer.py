"""The trainer on bad input: what it says, and that nothing is lost."""

import json
import os
import re
import shutil
import subprocess
import sys

import jax
import pytest
from ml_collections import ConfigDict, FrozenConfigDict
from ml_collections.config_dict import placeholder

from lrnn_jax import registry
from lrnn_jax.config.fields import base_config, layer_config, task_config
from lrnn_jax.errors import TrainingFailed, UserError
from lrnn_jax.runs.folder import RunFolder
from lrnn_jax.training.evaluation import evaluate_run
from lrnn_jax.training.loggers import Progress, clock
from lrnn_jax.training.loop import train
from lrnn_jax.training.program import Program

BROKEN = '''
import dataclasses
import jax.numpy as jnp
from lrnn_jax.tasks.parity import Parity

@dataclasses.dataclass(frozen=True)
class Broken(Parity):
    """Parity whose loss is NaN wherever the first six answers of a batch are odd."""

    def loss(self, logits, batch):
        total, weight = super().loss(logits, batch)
        return total * jnp.where(jnp.sum(batch.targets[:6]) == 6, jnp.nan, 1.0), weight
'''


def tiny_config(layer="diagonal", **fields):
    config = base_config()
    config.model.layer = layer_config(layer)
    config.task = task_config("parity")
    config.model.width, config.model.depth = 8, 1
    config.train.duration, config.train.batch_size, config.train.length = "60 steps", 8, [3, 8]
    config.train.steps_per_dispatch = 10
    config.eval.lengths, config.eval.examples, config.eval.batch_size = [[40, 48]], 8, 8
    config.checkpoint.every = "20 steps"
    for path, value in fields.items():
        section, _, name = path.partition("__")
        config[section][name] = value
    return config


@pytest.fixture
def broken_task(tmp_path, monkeypatch):
    (tmp_path / "broken_task_for_tests.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.TASKS, "broken", "broken_task_for_tests:Broken")


def test_a_number_that_is_not_finite_stops_with_step_and_group_and_keeps_the_last_good_state(broken_task, tmp_path):
    config = tiny_config()
    config.task = task_config("broken")
    config.train.duration = "2000 steps"
    with pytest.raises(TrainingFailed, match=r"step \d+: not finite in group Diagonal: .*kernel") as first:
        train(config, tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "failed" and result["reason"].startswith(f"step {result['steps'] + 1}:")
    assert (tmp_path / "run" / "checkpoints" / str(result["steps"])).is_dir()
    # tried again, it starts at the kept state and fails at the same step, for the data are the same
    with pytest.raises(TrainingFailed) as second:
        train(config, tmp_path / "run")
    assert str(second.value) == str(first.value)


def test_a_run_that_failed_where_a_checkpoint_was_due_starts_again_at_its_last_good_step(broken_task, tmp_path, capfd):
    config = tiny_config(checkpoint__every="10 steps", eval__every="10 steps", log__every="10 steps")
    config.task = task_config("broken")
    config.train.duration = "2000 steps"
    with pytest.raises(TrainingFailed):
        train(config, tmp_path / "run")
    good = json.loads((tmp_path / "run" / "result.json").read_text())["steps"]
    capfd.readouterr()
    with pytest.raises(TrainingFailed, match=f"step {good + 1}:"):
        train(config, tmp_path / "run")
    assert f"at step {good}\n" in capfd.readouterr().err
    # with the cause removed it goes on, and validates where it is due
    config.task = task_config("parity")
    config.train.duration = f"{good + 40} steps"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config.to_dict()))
    assert train(config, tmp_path / "run")["status"] == "finished"
    lines = [json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    later = [line["step"] for line in lines if line["split"] == "validation" and line["step"] > good]
    assert later[:3] == [good - good % 10 + 10 * i for i in (1, 2, 3)]


def test_a_checkpoint_of_another_model_is_refused_by_name_of_the_first_difference(tmp_path):
    train(tiny_config(), tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    config = tiny_config(model__width=12)
    (tmp_path / "run" / "config.json").write_text(json.dumps(config.to_dict()))
    with pytest.raises(UserError, match="incompatible model") as error:
        train(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").glob("[0-9]*")) == ["40", "60"]


def test_checkpoints_without_a_config_are_not_overwritten(tmp_path):
    train(tiny_config(), tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config\.json"):
        train(tiny_config(), tmp_path / "run")


def test_a_workdir_that_cannot_be_made_is_one_line():
    with pytest.raises(UserError, match="cannot write in --workdir=/dev/null/x"):
        train(tiny_config(), __import__("pathlib").Path("/dev/null/x"))


def test_a_full_disk_is_an_error_that_leaves_the_last_good_checkpoint_intact(tmp_path):
    whole = train(tiny_config(train__duration="200 steps"), tmp_path / "whole")
    workdir = tmp_path / "run"
    command = [
        sys.executable,
        "-c",
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]);"
        "from test_trainer_child import main; sys.exit(main(pathlib.Path(sys.argv[2]), int(sys.argv[3])))",
        str(tmp_path),
        str(workdir),
    ]
    (tmp_path / "test_trainer_child.py").write_text(
        "import json, resource, sys\n"
        "from ml_collections import ConfigDict\n"
        "from lrnn_jax.training.loop import train\n"
        "from lrnn_jax.runs.checkpoints import Checkpoints\n"
        "from lrnn_jax.errors import TrainingFailed, UserError\n"
        f"CONFIG = json.loads({tiny_config(train__duration='200 steps').to_json()!r})\n"
        "def main(workdir, full_from):\n"
        "    save = Checkpoints.save\n"
        "    def save_on_a_disk_that_fills_up(self, step, *rest):\n"
        "        if step >= full_from:\n"
        "            resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))\n"
        "        return save(self, step, *rest)\n"
        "    Checkpoints.save = save_on_a_disk_that_fills_up\n"
        "    try:\n"
        "        train(ConfigDict(CONFIG), workdir)\n"
        "    except UserError as error:\n"
        "        print('UserError:', error)\n"
        "        return 2\n"
        "    return 0\n"
    )
    full = subprocess.run([*command, "120"], capture_output=True, text=True, timeout=120)
    assert full.returncode == 2, full.stderr
    assert "UserError: cannot write" in full.stdout
    assert not (workdir / "result.json").exists()
    again = subprocess.run([*command, "1000000"], capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    # the asynchronous save of step 100 may have met the full disk already
    assert re.search(rf"resuming {workdir} at step (80|100)\n", again.stderr)
    assert json.loads((workdir / "result.json").read_text())["params_sha256"] == whole["params_sha256"]


def test_a_disk_that_is_nearly_full_is_refused_in_one_line_before_anything_is_written(tmp_path, monkeypatch, capfd):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    with pytest.raises(UserError, match=r"needs about [\d,]+ bytes and the disk has 10,000 left \(intact: steps none\)"):
        train(tiny_config(), tmp_path / "run")
    assert "Traceback" not in capfd.readouterr().err
    assert list((tmp_path / "run" / "checkpoints").glob("[0-9]*")) == []


def test_several_processes_are_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="one JAX process, and this is one of 2"):
        train(tiny_config(), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_the_same_config_and_seed_give_the_same_bits_and_another_seed_does_not(tmp_path):
    first = train(tiny_config("lru"), tmp_path / "a")
    second = train(tiny_config("lru"), tmp_path / "b")
    other = tiny_config("lru")
    other.seed = 1
    third = train(other, tmp_path / "c")
    assert first["params_sha256"] == second["params_sha256"] != third["params_sha256"]
    assert first["metrics"] == second["metrics"]


def test_the_best_checkpoint_by_the_named_metric_is_kept_and_tested(tmp_path):
    config = tiny_config(eval__every="10 steps", eval__best_metric="loss", optim__lr=0.03)
    config.train.duration = "200 steps"
    result = train(config, tmp_path / "run")
    lines = [json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if line["split"] == "validation"}
    assert result["best"]["step"] == min(losses, key=losses.get)
    assert result["best"]["step"] < 200
    assert evaluate_run(tmp_path / "run", which="best", lengths=None, examples=None)["metrics"] == result["best"]["metrics"]


def test_steps_per_dispatch_do_not_change_the_result(tmp_path):
    ten = train(tiny_config(), tmp_path / "ten")
    seven = train(tiny_config(train__steps_per_dispatch=7), tmp_path / "seven")
    assert ten["params_sha256"] == seven["params_sha256"]


def test_wandb_offline_and_tensorboard_write_beside_the_jsonl(tmp_path):
    script = (
        "import sys, json, pathlib; from ml_collections import ConfigDict; from lrnn_jax.training.loop import train;"
        "train(ConfigDict(json.loads(sys.argv[1])), pathlib.Path(sys.argv[2]))"
    )
    config = tiny_config(log__wandb="offline", log__tensorboard=True, train__duration="20 steps")
    environment = {**os.environ, "WANDB_SILENT": "true"}
    done = subprocess.run(
        [sys.executable, "-c", script, config.to_json(), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert list((tmp_path / "run" / "tensorboard").iterdir())


@pytest.fixture
def at(monkeypatch):
    """A clock that stands still: ``at(seconds)`` sets it."""
    now = [0.0]
    monkeypatch.setattr("lrnn_jax.training.loggers.time.monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, float(seconds))


def test_the_time_left_is_that_of_the_last_calls_without_the_first_which_is_compiled(capsys, at):
    progress = Progress(4000, seconds_between_lines=10.0)
    progress.show({"loss": [0.5]})
    progress.update(0)
    at(60)  # a minute of compiling, and 50 steps
    progress.update(50)
    assert capsys.readouterr().err == "step 50/4000  loss 0.5000\n"
    for i in range(1, 11):  # 50 steps in two seconds
        at(60 + 2 * i)
        progress.update(50 + 50 * i)
    lines = capsys.readouterr().err.splitlines()
    # 3700 steps at 25 a second
    assert lines[0] == "step 300/4000  25.0 steps/s  2:28 left  loss 0.5000" and len(lines) == 2
    at(200)
    progress.forget_once()  # the first validation was compiled
    at(202)
    progress.update(600)
    assert "left" not in capsys.readouterr().err
    for i in range(1, 41):  # ten times slower, as where another process has come
        at(202 + 20 * i)
        progress.update(600 + 50 * i)
        progress.forget_once()
    # 1400 steps at 2.5 a second
    assert "step 2600/4000  2.5 steps/s  9:20 left" in capsys.readouterr().err


def test_the_time_left_of_a_resumed_run_counts_its_own_steps(capsys, at):
    progress = Progress(4000, start=3000, seconds_between_lines=0.0)
    for seconds, step in ((0, 3000), (60, 3050), (62, 3100)):
        at(seconds)
        progress.update(step)
    assert capsys.readouterr().err.splitlines() == ["step 3050/4000", "step 3100/4000  25.0 steps/s  0:36 left"]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (90061, "25:01:01")]
)
def test_times(seconds, said):
    assert clock(seconds) == said


def test_a_run_introduces_itself_and_traces_the_steps_that_it_is_asked_for(tmp_path, capsys):
    config = tiny_config(log__profile="12:25")
    result = train(config, tmp_path / "run", said="lrnn train --config=x")
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == "lrnn train --config=x" and "compiling" in lines
    assert lines[0] == f"training parity with diagonal, seed 0, in {tmp_path / 'run'}"
    assert (
        f"{result['parameter_count']:,} parameters, 60 steps of 8 examples of up to 8 positions" in lines[1]
        and "(cpu, " in lines[1]
    )
    assert f"profile of steps 12 to 25: {tmp_path / 'run' / 'profile'}" in lines
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
    # watching changes nothing
    assert result["params_sha256"] == train(tiny_config(), tmp_path / "plain")["params_sha256"]


def test_norms_of_each_groups_gradients_are_logged_when_asked_for_and_may_be_asked_for_later(tmp_path):
    config = tiny_config(log__every="1 steps", log__grad_norms=True)
    result = train(config, tmp_path / "run")
    lines = [line for line in RunFolder(tmp_path / "run").parse_metrics() if line["split"] == "train"]
    groups = sorted(name for name in lines[0] if name.startswith("grad_norm/"))
    assert [name.removeprefix("grad_norm/") for name in groups] == [
        "Diagonal: bias$",
        "Diagonal: kernel$",
        "backbone: (bias|scale)$",
        "backbone: (kernel|embedding)$",
    ]
    assert len(lines) == 60 and all(line[name] > 0 for line in lines for name in groups)
    for line in lines:  # the groups are all of the parameters
        assert sum(line[name] ** 2 for name in groups) == pytest.approx(line["grad_norm"] ** 2, rel=1e-5)
    # watching changes nothing, and a run may be watched from its middle on
    plain = tmp_path / "plain"
    assert train(tiny_config(log__every="60 steps"), plain)["params_sha256"] == result["params_sha256"]
    shutil.rmtree(plain / "checkpoints" / "60")
    (plain / "result.json").unlink()
    later = train(tiny_config(log__every="60 steps", log__grad_norms=True), plain)
    assert later["params_sha256"] == result["params_sha256"]
    (line,) = [line for line in RunFolder(plain).parse_metrics() if line["split"] == "train"]
    assert line[groups[0]] > 0


def test_a_config_that_python_code_gives_may_be_frozen_but_hold_no_placeholder(tmp_path):
    config = tiny_config(train__duration="10 steps")
    frozen = train(FrozenConfigDict(config), tmp_path / "frozen")
    assert frozen["params_sha256"] == train(config, tmp_path / "plain")["params_sha256"]
    config.optim = ConfigDict({**config.optim.to_dict(), "lr": placeholder(float)})
    with pytest.raises(UserError, match=r"^optim\.lr=None must be float, not NoneType$"):
        train(config, tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_a_run_without_memory_is_one_line_and_its_folder_is_free_for_another(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        for error in (MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")):
            patch.setattr(Program, "init", lambda _, error=error: (_ for _ in ()).throw(error))
            with pytest.raises(UserError, match=r"out of memory.*train\.batch_size"):
                train(tiny_config(), tmp_path / "run")
    assert train(tiny_config(optim__lr=0.1), tmp_path / "run")["status"] == "finished"
    with pytest.raises(UserError, match="another config's run"):
        train(tiny_config(), tmp_path / "run")
