"""Every config trains, resumes nothing, evaluates and reports at setting smoke, with every layer."""

import json

import pytest

from lrnn_jax.cli.main import main
from lrnn_jax.config.files import data_folder, load_config
from lrnn_jax.registry import LAYERS
from small_data import small_data

CONFIGS = sorted(file.name for file in data_folder("configs").glob("*.py"))
# every config with its own first layer, and every layer with the first task
CASES = [*(f"configs/{name}:smoke" for name in CONFIGS), *(f"configs/parity.py:{layer},smoke" for layer in LAYERS)]


@pytest.mark.parametrize("spec", CASES)
def test_smoke(spec, tmp_path, capsys, monkeypatch):
    # for the tasks whose data are not part of this package
    monkeypatch.setenv("LRNN_DATA_DIR", str(small_data()))
    workdir = tmp_path / "run"
    # one bucket is enough here: each costs a compilation
    bucket = load_config(spec).eval.lengths[:1]
    small = [f"--config.eval.lengths={bucket}", "--config.train.duration=20 steps", "--config.eval.every=50%"]
    assert main(["train", f"--config={spec}", f"--workdir={workdir}", *small]) == 0
    result = json.loads((workdir / "result.json").read_text())
    assert result["status"] == "finished" and result["steps"] == 20
    assert 0.0 <= result["metrics"].get("accuracy", 0.0) <= 1.0 and result["metrics"]["loss"] > 0.0
    capsys.readouterr()
    assert main(["eval", f"--workdir={workdir}"]) == 0
    assert f"{result['metrics']['loss']:.4f}" in capsys.readouterr().out
