"""The hash that names a run, and the fields in which two configs differ."""

import copy
import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from ml_collections import ConfigDict

from lrnn_jax import registry
from lrnn_jax.config import identity
from lrnn_jax.config.checks import validate_config
from lrnn_jax.config.fields import base_config, base_fields, flatten, layer_config, set_field, task_config
from lrnn_jax.config.identity import config_hash, differing_fields, restore_config, structure_key
from lrnn_jax.errors import UserError
from lrnn_jax.layers.diagonal import Diagonal
from lrnn_jax.registry import build_task
from lrnn_jax.tasks.parity import Parity


def make_config(layer="diagonal"):
    c = base_config()
    c.task = task_config("parity")
    c.model.layer = layer_config(layer)
    return c


# what is written down, not what is computed
UNHASHED_SECTIONS = ("checkpoint", "log")
FIELDS = dict(flatten(make_config()))
HASHED = [path for path in FIELDS if path.split(".")[0] not in UNHASHED_SECTIONS]
UNHASHED = [path for path in FIELDS if path.split(".")[0] in UNHASHED_SECTIONS]
OTHER = {"task.name": "modular_counting", "model.layer.name": "lru"}


def changed(path):
    value = FIELDS[path]
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return OTHER.get(path, f"{value}x") if isinstance(value, str) else [*value, 1]


def with_change(path):
    config = make_config()
    set_field(config, path, changed(path))
    return config


def without(config, path):
    """A run's config of before the field at ``path``."""
    fields = config.to_dict()
    *sections, name = path.split(".")
    section = fields
    for part in sections:
        section = section[part]
    del section[name]
    return fields


def backwards(fields):
    """The same config with its fields in the opposite order."""
    return {key: backwards(value) if isinstance(value, dict) else value for key, value in reversed(fields.items())}


def test_the_name_of_a_known_config():
    # a change of this renames every run, and every record in experiments/results
    assert config_hash(make_config()) == "0a01f31db361"
    assert config_hash(with_change("optim.lr")) == "75ca3debc038"


def test_the_name_is_that_of_what_differs_and_of_layer_and_task():
    counted = {"model.layer.name": "diagonal", "task.name": "parity", "optim.lr": 0.5, "model.layer.gain": 2.0}
    config = make_config()
    for path, value in counted.items():
        set_field(config, path, value)
    expected = hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:12]
    assert config_hash(config) == expected


def test_hash_is_stable():
    config = make_config()
    name = config_hash(config)
    assert len(name) == 12
    assert set(name) <= set("0123456789abcdef")
    assert config_hash(copy.deepcopy(config).lock()) == name
    assert config_hash(ConfigDict(json.loads(config.to_json()))) == name
    backwards = {
        key: dict(reversed(value.items())) if isinstance(value, dict) else value for key, value in config.to_dict().items()
    }
    assert config_hash(ConfigDict(dict(reversed(backwards.items())))) == name


def test_hash_changes_with_every_field_to_a_name_of_its_own():
    names = [config_hash(with_change(path)) for path in HASHED]
    assert len({*names, config_hash(make_config())}) == len(HASHED) + 1


def test_hash_ignores_logging_and_checkpointing():
    for path in UNHASHED:
        assert config_hash(with_change(path)) == config_hash(make_config())
        assert differing_fields(with_change(path), make_config().to_dict()) == []


def test_an_integer_given_for_a_float_is_that_float():
    config = make_config()
    set_field(config, "optim.weight_decay", 0)
    assert config_hash(config) == config_hash(make_config())
    fields = make_config().to_dict()
    fields["optim"]["weight_decay"] = 0
    assert config_hash(fields) == config_hash(make_config())
    fields["optim"]["weight_decay"], config.optim.weight_decay = 2, 2.0
    assert config_hash(fields) == config_hash(config)


def test_differing_fields_names_the_field_and_both_values():
    ours = make_config()
    for path in (path for path in HASHED if path not in OTHER):
        assert differing_fields(ours, with_change(path).to_dict()) == [f"{path}: {FIELDS[path]} -> {changed(path)}"]


def test_a_run_that_is_older_than_a_field_keeps_its_name_and_is_read_with_it():
    config = make_config()
    for path in (path for path in FIELDS if path not in OTHER):
        older = without(config, path)
        assert config_hash(older) == config_hash(config)
        assert differing_fields(config, older) == [] == differing_fields(ConfigDict(older), config.to_dict())
        assert restore_config(older) == config


@dataclasses.dataclass(frozen=True)
class Younger(Parity):
    """A task that has got a field, whose default was then changed."""

    noise: float = 0.5
    NEUTRAL: ClassVar[Mapping[str, Any]] = {"noise": 0.0}


class YoungerLayer(Diagonal):
    """A layer that has got a field."""

    skip: bool = False


def test_a_new_field_of_a_task_a_layer_or_all_configs_renames_nothing(monkeypatch):
    older = make_config()
    name, changed_name = config_hash(older), config_hash(with_change("optim.lr"))
    monkeypatch.setitem(registry.TASKS, "parity", f"{__name__}:Younger")
    monkeypatch.setitem(registry.LAYERS, "diagonal", f"{__name__}:YoungerLayer")
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__, SimpleNamespace(**globals())))
    monkeypatch.setattr(identity, "base_fields", lambda: base_fields() | {"optim.lookahead": 3})
    monkeypatch.setattr(identity, "NEUTRAL", {"optim.lookahead": 0})
    younger = make_config()
    younger.optim.lookahead, younger.task.noise = 0, 0.0
    assert younger.model.layer.skip is False
    assert config_hash(younger) == config_hash(older) == name
    assert restore_config(older.to_dict()) == younger
    assert config_hash(with_change("optim.lr")) != changed_name  # it has the noise that is the default now
    for path, value in {"optim.lookahead": 3, "task.noise": 0.5, "model.layer.skip": True}.items():
        config = copy.deepcopy(younger)
        set_field(config, path, value)
        assert config_hash(config) != name
        assert len(differing_fields(config, older.to_dict())) == 1


def test_runs_that_differ_in_the_recurrent_factor_have_names_of_their_own_and_one_program():
    old, given = make_config("lru"), make_config("lru")
    set_field(given, "optim.recurrent_lr", 0.25)
    assert config_hash(old) != config_hash(given)
    assert structure_key(old) == structure_key(given)
    validate_config(given)
    # a run from before the fields of the ladder, when the factor was the layer's own
    before = old.to_dict()
    del before["optim"]["recurrent_lr"]
    for name in ("parametrisation", "gamma", "bidirectional"):
        del before["model"]["layer"][name]
    assert config_hash(before) == config_hash(old)
    assert restore_config(before).optim.recurrent_lr == -1.0


def test_a_new_revision_of_a_tasks_data_renames_its_runs(monkeypatch):
    older = make_config()
    monkeypatch.setattr(Parity, "REVISION", 2)
    newer = make_config()
    assert newer.task.revision == 2 and build_task(newer.task) == Parity()
    validate_config(newer)
    assert config_hash(newer) != config_hash(older)
    assert differing_fields(newer, older.to_dict()) == ["task.revision: 2 -> 0"]
    with pytest.raises(UserError, match=r"task.revision=0, but this version makes data of revision 2"):
        validate_config(restore_config(older.to_dict()))


def test_a_run_whose_layer_is_gone_has_a_name_all_the_same():
    fields = make_config().to_dict()
    fields["model"]["layer"] = {"name": "gone", "size": 3}
    assert config_hash(fields) != config_hash(make_config())
    assert restore_config(fields).model.layer.size == 3
    assert len(config_hash({})) == 12 and len(config_hash({"task": 3})) == 12


def test_differing_fields_shows_absent_ones():
    lru, diagonal = make_config("lru"), make_config()
    found = differing_fields(lru, diagonal.to_dict())
    assert "model.layer.name: lru -> diagonal" in found
    assert "model.layer.state_size: 64 -> (absent)" in found
    assert "model.layer.gain: (absent) -> 10.0" in found


def test_a_config_with_tuples_equals_itself_read_back_from_json():
    config = make_config()
    config.train.length = (3, 8)
    config.eval.lengths = [(40, 64)]
    assert differing_fields(config, json.loads(json.dumps(config.to_dict()))) == []
