"""Layers and tasks from outside the package: their fields are config fields; an incomplete one is refused in one line."""

import sys
from pathlib import Path
from unittest import mock

import pytest

from lrnn_jax import registry
from lrnn_jax.cli.list import LISTS
from lrnn_jax.cli.main import main
from lrnn_jax.config.checks import validate_config
from lrnn_jax.config.fields import set_field
from lrnn_jax.config.files import load_config
from lrnn_jax.config.identity import config_hash, restore_config, traced_values
from lrnn_jax.errors import UserError
from lrnn_jax.runs import restoring

MODULE = '''
import dataclasses
import jax.numpy as jnp
from lrnn_jax.parts.layer import RecurrentLayer
from lrnn_jax.scans.method import Serves
from lrnn_jax.tasks.base import SyntheticTask
from lrnn_jax.tasks.parity import Parity

class Leaky(RecurrentLayer):
    """h_t = decay h_{t-1} + x_t."""

    decay: float = 0.5
    taps: int = 2

    SOURCE = "none"
    METHODS = {"sequential": Serves()}
    PARAM_GROUPS = {"kernel$": {"lr": 1.0, "wd": 1.0}}
    VARIANTS = {"slow": {"decay": 0.9}, "fast": {"decay": 0.1}}
    BLOCK = {"norm": "none"}

    def recur(self, x, state, reset, scan):
        return x, state

    def init_state(self, batch):
        return jnp.zeros((batch, self.width))

    def transition(self, x):
        return jnp.full(x.shape, self.decay)

    def parameter_count(self):
        return 0

    def state_count(self):
        return self.width

class Unfinished(Leaky):
    recur = RecurrentLayer.recur
    SOURCE = ""

class Arguments(Leaky):
    def recur(self, x, state):
        return x, state

class Made(Leaky):
    def __init__(self, width):
        self.width = width

class NoDefault(Leaky):
    rate: dict = dataclasses.field(default_factory=dict)

@dataclasses.dataclass(frozen=True)
class Loud(Parity):
    noise: float = 0.25

@dataclasses.dataclass(frozen=True)
class Silent(SyntheticTask):
    outputs = 3
'''
LAYER, TASK = "own_parts:Leaky", "own_parts:Loud"


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    """The module ``own_parts`` in the working directory."""
    (tmp_path / "own_parts.py").write_text(MODULE)
    (tmp_path / "own_broken.py").write_text("def half(:\n")
    (tmp_path / "own_typo.py").write_text("import jax\n\nMETHODS = {'sequential': Serves()}\n")
    (tmp_path / "own_deep.py").write_text("import numpy as np\nimport own_parts\nA = np.zeros((2, 2)).reshape(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield
    sys.modules.pop("own_parts", None)
    registry._load_from_outside.cache_clear()


@pytest.mark.parametrize(
    ("spec", "overrides"),
    [
        (f"configs/parity.py:{LAYER},smoke", {}),
        (f"configs/parity.py:{LAYER}/slow,setting=smoke", {}),
        ("configs/parity.py:diagonal,smoke", {"model.layer.name": LAYER}),
    ],
)
def test_a_layer_has_its_fields_its_first_variant_and_what_the_setting_says_for_all(spec, overrides):
    config = load_config(spec, overrides)
    assert config.model.layer.to_dict() == {"name": LAYER, "decay": 0.9, "taps": 2}
    assert (config.model.width, config.train.duration, config.optim.lr) == (32, "100 steps", 1e-2)
    validate_config(config)
    assert traced_values(config)["model.layer.decay"] == 0.9


def test_its_fields_are_set_and_name_the_run():
    config = load_config("configs/parity.py:smoke", {"model.layer.taps": 3, "model.layer.name": LAYER})
    assert config.model.layer.taps == 3
    plain = load_config("configs/parity.py:smoke", {"model.layer.name": LAYER})
    older = plain.to_dict()
    assert config_hash(config) != config_hash(plain)
    del older["model"]["layer"]["taps"]
    assert config_hash(older) == config_hash(plain) and restore_config(older).model.layer.taps == 2


def test_a_task_has_its_fields():
    config = load_config("configs/parity.py:smoke", {"task.name": TASK, "task.noise": 0.5})
    validate_config(config)
    assert registry.build_task(config.task).noise == 0.5
    set_field(config, "task.name", "parity")
    assert "noise" not in config.task


@pytest.mark.parametrize(
    ("path", "name", "said"),
    [
        ("model.layer.name", "own_parts:Unfinished", "lacks method recur, class attribute SOURCE"),
        ("model.layer.name", "own_parts:Leeky", "has no class 'Leeky'; did you mean 'Leaky'?"),
        ("model.layer.name", "own_parts:NoDefault", "field 'rate' of own_parts:NoDefault has the default {}"),
        ("model.layer.name", "own_broken:Leaky", "cannot import 'own_broken': SyntaxError"),
        ("model.layer.name", "own_nowhere:Leaky", "cannot import 'own_nowhere': ModuleNotFoundError"),
        (
            "model.layer.name",
            "own.nowhere:Leaky",
            "start in the folder that own/nowhere.py lies in, or put that folder on PYTHON",
        ),
        ("model.layer.name", "own_typo:Leaky", "NameError: name 'Serves' is not defined ({here}/own_typo.py:3)"),
        ("model.layer.name", "own_deep:Leaky", "({here}/own_deep.py:3)"),
        ("task.name", "own_typo:Loud", "task 'own_typo:Loud': cannot import 'own_typo': NameError"),
        (
            "model.layer.name",
            "own_parts:Arguments",
            "lacks arguments (self, x, state, reset, scan) of method recur, which has (se",
        ),
        ("model.layer.name", "own_parts:Made", "lacks fields in place of its own __init__(self, width)"),
        ("model.layer.name", TASK, "lacks the base class"),
        ("task.name", "own_parts:Silent", "lacks method vocab_size, method batch"),
        ("task.name", LAYER, "lacks the base class"),
    ],
)
def test_an_incomplete_one_is_refused_in_one_line_and_spoils_no_list(path, name, said, capsys):
    with pytest.raises(UserError) as caught:
        load_config("configs/parity.py:smoke", {path: name})
    assert said.replace("{here}", str(Path.cwd())) in str(caught.value) and "\n" not in str(caught.value)
    assert main(["train", "--config=configs/parity.py:smoke", f"--config.{path}={name}"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert all(len(LISTS[what]()) > 3 for what in ("layers", "tasks"))


def test_an_unknown_field_of_a_layer_is_answered_with_those_that_it_has():
    with pytest.raises(UserError) as caught:
        load_config(f"configs/parity.py:{LAYER},smoke", {"model.layer.decai": 0.5})
    said = "unknown config field 'model.layer.decai'; did you mean 'decay'? (model.layer has decay, name, taps)"
    assert str(caught.value) == said


def test_a_run_away_from_its_module_is_not_called_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr(restoring, "RunFolder", lambda workdir: mock.Mock(read_config=lambda: config))
    config = load_config(f"configs/parity.py:{LAYER},smoke")
    assert restoring.read_run(Path("runs/x")) is config
    registry._load_from_outside.cache_clear()
    sys.modules.pop("own_parts", None)
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path)])
    with pytest.raises(UserError) as caught:
        restoring.read_run(Path("runs/x"))
    assert str(caught.value) == (
        "runs/x: layer 'own_parts:Leaky': cannot import 'own_parts': ModuleNotFoundError: No module named 'own_parts'; "
        "start in the folder that own_parts.py lies in, or put that folder on PYTHONPATH"
    )


def test_the_command_line_shows_and_overrides_its_fields(capsys):
    arguments = ["--config=configs/parity.py:smoke", f"--config.model.layer.name={LAYER}", "--config.model.layer.taps=5"]
    assert main(["config", *arguments]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["model.layer.taps"].split()[1:] == ["5", "command", "line"]
    assert lines["model.layer.decay"].split()[1:] == ["0.9", "variant", "slow"]
