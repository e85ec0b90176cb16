"""The hash that names a run, and the fields in which two configs differ."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from lrnn_jax.config.fields import base_config, flatten, layer_config, set_field, task_config
from lrnn_jax.config.identity import ADDED, config_hash, differing_fields, restore_config


def make_config(layer="diagonal"):
    c = base_config()
    c.task = task_config("parity")
    c.model.layer = layer_config(layer)
    return c


def changed(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return value + "x" if isinstance(value, str) else [*value, 1]


# what is written down, not what is computed
UNHASHED_SECTIONS = ("checkpoint", "log")
HASHED = [path for path, _ in flatten(make_config()) if path.split(".")[0] not in UNHASHED_SECTIONS]
UNHASHED = [path for path, _ in flatten(make_config()) if path.split(".")[0] in UNHASHED_SECTIONS]


def with_change(path):
    config = make_config()
    set_field(config, path, changed(dict(flatten(config))[path]))
    return config


def test_hash_is_stable():
    config = make_config()
    name = config_hash(config)
    assert len(name) == 12
    assert set(name) <= set("0123456789abcdef")
    assert config_hash(make_config()) == name
    assert config_hash(copy.deepcopy(config).lock()) == name
    assert config_hash(ConfigDict(json.loads(config.to_json()))) == name


def test_hash_is_the_same_in_another_process():
    program = (
        "from lrnn_jax.config.fields import *; from lrnn_jax.config.identity import config_hash; "
        "c = base_config(); c.task = task_config('parity'); "
        "c.model.layer = layer_config('diagonal'); print(config_hash(c))"
    )
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True).stdout
    assert out.strip() == config_hash(make_config())


@pytest.mark.parametrize("path", HASHED)
def test_hash_changes_with_every_field(path):
    assert config_hash(with_change(path)) != config_hash(make_config())


@pytest.mark.parametrize("path", UNHASHED)
def test_hash_ignores_logging_and_checkpointing(path):
    assert config_hash(with_change(path)) == config_hash(make_config())
    assert differing_fields(with_change(path), make_config().to_dict()) == []


def test_an_integer_given_for_a_float_is_that_float():
    config = make_config()
    set_field(config, "optim.weight_decay", 0)
    assert config_hash(config) == config_hash(make_config())


@pytest.mark.parametrize("path", HASHED)
def test_differing_fields_names_the_field_and_both_values(path):
    ours, theirs = make_config(), with_change(path)
    old, new = dict(flatten(ours))[path], dict(flatten(theirs))[path]
    assert differing_fields(ours, theirs.to_dict()) == [f"{path}: {old} -> {new}"]


@pytest.mark.parametrize(("path", "value"), ADDED.items())
def test_a_run_that_is_older_than_a_field_keeps_its_name_and_is_read_with_it(path, value):
    config = make_config()
    assert dict(flatten(config))[path] == value, "the default is the value that changes nothing"
    older = config.to_dict()
    section, name = path.split(".")
    del older[section][name]
    assert config_hash(ConfigDict(older)) == config_hash(config)
    assert differing_fields(config, older) == [] == differing_fields(ConfigDict(older), config.to_dict())
    assert restore_config(older) == config


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
