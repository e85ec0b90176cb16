"""Values that a config may not hold: of another type, or too large for any machine, or for this one."""

import functools
from unittest import mock

import numpy as np
import pytest
from ml_collections import ConfigDict

from lrnn_jax.config.checks import validate_config
from lrnn_jax.config.fields import base_config, find_section, flatten, layer_config, set_field, task_config
from lrnn_jax.config.files import load_config
from lrnn_jax.errors import UserError


def make_config(layer="diagonal"):
    c = base_config()
    c.task = task_config("parity")
    c.model.layer = layer_config(layer)
    return c


@pytest.fixture
def config():
    return make_config().lock()


def refusal(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


WRONG = {
    "text": "16",
    "None": None,
    "list": [1],
    "section": {"a": 1},
    "complex": 1j,
    "huge": 10**5000,
    "array": np.zeros((3, 3)),
}


def test_every_number_of_every_section_says_its_type_and_what_it_holds(tmp_path):
    """As a config file may hold it, and before an override is read as what it holds."""
    fields = {path: value for path, value in flatten(make_config("mamba")) if type(value) in (int, float)}
    assert len(fields) > 25
    for path, right in fields.items():
        for name, wrong in {**WRONG, "other": 32.0 if type(right) is int else 10**400}.items():
            config = make_config("mamba").to_dict()
            *sections, last = path.split(".")
            functools.reduce(dict.__getitem__, sections, config)[last] = wrong
            file = tmp_path / "x.py"
            with mock.patch("lrnn_jax.config.files.load_get_config", lambda _, held=config: lambda arg: ConfigDict(held)):
                file.write_text("")
                message = refusal(load_config, str(file), {path: right})
            assert path in message, (path, name)
            assert type(right).__name__ in message or "must be between" in message, (path, name)
            assert len(message) < 300
        # and where Python code gives the config
        held = make_config("mamba")
        with held.ignore_type():
            find_section(held, path)[0][path.rpartition(".")[2]] = "16"
        assert f"{path}='16' must be {type(right).__name__}, not str" in refusal(validate_config, held)


@pytest.mark.parametrize(
    ("layer", "path"),
    [
        ("mamba", "model.depth"), ("mamba", "model.width"), ("mamba", "train.batch_size"), ("mamba", "eval.examples"),
        ("mamba", "eval.batch_size"), ("mamba", "model.layer.conv_width"), ("mamba", "model.layer.expand"),
        ("deltaproduct", "model.layer.householders"), ("s4", "model.layer.state_size"), ("s5", "model.layer.state_size"),
        ("s4d", "model.layer.state_size"), ("mamba", "task.train_examples"), ("mamba", "train.microbatches"),
    ],
)  # fmt: skip
def test_a_number_too_large_for_any_machine_is_refused_at_once(layer, path):
    config = make_config(layer)
    set_field(config, path, 2**31)
    assert f"{path}={2**31} must be" in refusal(validate_config, config)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model.width": 2**20}, "model.width=1048576"),
        ({"model.layer.expand": 2**20}, "model.layer"),
        ({"train.batch_size": 2**24}, "train.batch_size=16777216"),
        ({"eval.batch_size": 2**24, "eval.examples": 2**24}, "eval.batch_size=16777216"),
    ],
)
def test_what_needs_more_memory_than_there_is_is_refused_before_it_is_made(fields, said, monkeypatch):
    from lrnn_jax.training import memory
    from lrnn_jax.training.program import make_program

    monkeypatch.setattr(memory, "free_memory", lambda: 2**34)
    config = make_config("mamba")
    for path, value in fields.items():
        set_field(config, path, value)
    validate_config(config)
    message = refusal(make_program, config)
    assert said in message and "GiB of memory are needed" in message


def test_durations_of_thousands_of_digits(config):
    config.train.duration = f"{'9' * 5000} steps"
    assert "train.duration" in refusal(validate_config, config)


@pytest.mark.parametrize("profile", ["100", "5:5", "9:3", "a:b", "-1:3", "1:2:3", "0:1001", "9" * 5000 + ":1"])
def test_a_profile_is_steps_of_the_run(config, profile):
    config.log.profile = profile
    assert "log.profile=" in refusal(validate_config, config)
    config.log.profile = "0:1000"
    validate_config(config)
