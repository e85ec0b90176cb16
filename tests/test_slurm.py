"""The array job that ``scripts/slurm.py`` writes is one that runs, and a mistake is one line before it is written."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lrnn_jax.cli.main import parse_flags
from lrnn_jax.cli.sweep import resolve_flags
from lrnn_jax.config.identity import config_hash
from lrnn_jax.sweeps.sweep import resolve_sweep, take_part

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "slurm.py"


@pytest.fixture(scope="module")
def slurm():
    spec = importlib.util.spec_from_file_location("slurm", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def task_commands(job):
    """What each task of the job runs, as its shell would split it."""
    (count,) = re.findall(r"^#SBATCH --array=1-(\d+)$", job, re.MULTILINE)
    (line,) = re.findall(r"^(lrnn sweep .*) &$", job, re.MULTILINE)
    return [shlex.split(line.replace("${SLURM_ARRAY_TASK_ID}", str(i + 1))) for i in range(int(count))]


def resolve(command):
    assert command[:2] == ["lrnn", "sweep"]
    values, positional = parse_flags("sweep", command[2:])
    assert positional == []
    return take_part(resolve_flags(values), values.part), values


def test_the_command_of_the_docstring_writes_a_job_whose_tasks_are_the_sweep(slurm, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    (line,) = re.findall(r"python scripts/slurm.py (.*) > sweep.sbatch", slurm.__doc__)
    assert slurm.main(shlex.split(line)) == 0
    commands = task_commands(capsys.readouterr().out)
    assert len(commands) == 20 and commands[0][-1] == "--part=1/20"
    parts = [resolve(command) for command in (commands[0], commands[-1])]
    runs = [config_hash(config) for config in resolve_sweep("configs/parity.py", "layers", {})]
    assert [config_hash(config) for config in parts[0][0]] == runs[: len(runs) // 20]
    assert parts[1][0] and config_hash(parts[1][0][-1]) == runs[-1]
    assert {values.workdir for _, values in parts} == {"runs"} and {values.executor for _, values in parts} == {"vmap"}


def test_overrides_reach_the_tasks_with_their_types(slurm, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    overrides = ["optim.clip_norm=1", "train.duration=30 steps", "model.residual=false", "eval.lengths=[[40, 64]]"]
    flags = ["--config=configs/parity.py:diagonal", *(f"--override={word}" for word in overrides), "--executor=local"]
    assert slurm.main([*flags, "--gpus=0", "--workdir=the runs"]) == 0
    job = capsys.readouterr().out
    assert "gpus" not in job
    commands = task_commands(job)
    assert len(commands) == 9  # no more than there are runs
    configs, values = resolve(commands[3])
    assert len(configs) == 1 and (values.workdir, values.executor) == ("the runs", "local")
    (config,) = configs
    assert (config.optim.clip_norm, config.train.duration, config.model.residual) == (1.0, "30 steps", False)
    assert config.eval.lengths == [[40, 64]] and (config.optim.lr, config.seed) == (3e-3, 0)


PARITY = "--config=configs/parity.py:diagonal"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ["--config"]),
        (["--config=configs/partiy.py"], ["did you mean 'configs/parity.py'"]),
        (["--config=configs/parity.py:mamba", "--sweep=layers"], ["layer is given twice"]),
        ([PARITY, "--sweep=layrs"], ["'layrs'", "did you mean 'layers'"]),
        ([PARITY, "--override=optim.clip_norm"], ["--override='optim.clip_norm'", "FIELD=VALUE"]),
        ([PARITY, "--override==3"], ["--override='=3'", "FIELD=VALUE"]),
        ([PARITY, "--override=optim.clip_nrom=1"], ["optim.clip_nrom", "did you mean 'clip_norm'"]),
        ([PARITY, "--override=model.width=wide"], ["model.width", "wide"]),
        ([PARITY, "--override=model.norm=layernrm"], ["model.norm", "did you mean 'layernorm'"]),
        ([PARITY, "--override=seeds=3"], ["seeds=3"]),
        ([PARITY, "--tasks=0"], ["tasks"]),
        ([PARITY, "--tasks=many"], ["tasks", "many"]),
        ([PARITY, "--gpus=-1"], ["gpus"]),
        ([PARITY, "--executor=vmapp"], ["executor", "vmap"]),
        ([PARITY, "--task=3"], ["--task", "did you mean 'tasks'"]),
        ([PARITY, "garbage"], ["'garbage'"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_mistake_is_one_line_and_no_job(slurm, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(ROOT)
    assert slurm.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("slurm.py: ")
    assert all(part in err for part in said), err


def test_the_script_ends_with_its_exit_code():
    done = subprocess.run([sys.executable, SCRIPT, "--tasks=0"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert "--override" in subprocess.run([sys.executable, SCRIPT, "--help"], cwd=ROOT, capture_output=True, text=True).stdout
