"""Configs: every mistake is one line that names the field; every shipped config is right at every scale."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

from lrnn_jax.config import fields as config_module
from lrnn_jax.config.checks import validate_config
from lrnn_jax.config.durations import interval_steps, train_steps
from lrnn_jax.config.fields import (
    base_config,
    check_field,
    flatten,
    layer_config,
    set_field,
    task_config,
)
from lrnn_jax.config.files import data_folder, find_config, load_config
from lrnn_jax.errors import UserError
from lrnn_jax.registry import LAYERS


def make_config(layer="diagonal", task="parity"):
    c = base_config()
    c.task = task_config(task)
    c.model.layer = layer_config(layer)
    return c


@pytest.fixture
def config():
    return make_config().lock()


def refusal(function, *arguments, **keywords):
    with pytest.raises(UserError) as caught:
        function(*arguments, **keywords)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- what validate_config refuses ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_defaults_are_valid_for_every_layer(layer):
    validate_config(make_config(layer))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("model.scan", "asociative", ["did you mean 'associative'"]),
        ("model.dtype", "flot32", ["did you mean 'float32'"]),
        ("model.dtype", "float16", ["float32, bfloat16"]),
        ("model.norm", "layer_norm", ["did you mean 'layernorm'"]),
        ("model.norm_position", "prior", ["did you mean 'pre'"]),
        ("model.mixer", "swigluu", ["did you mean 'swiglu'"]),
        ("model.head", "lats", ["did you mean 'last'"]),
        ("model.head", "token", ["last, mean"]),
        ("optim.schedule", "cosin", ["did you mean 'cosine'"]),
        ("log.wandb", "offlin", ["did you mean 'off"]),
        ("model.width", 0, ["must be between 1 and"]),
        ("model.depth", 0, ["must be between 1 and"]),
        ("model.dropout", 1.0, ["between"]),
        ("model.dropout", -0.1, ["between"]),
        ("optim.lr", -1e-3, ["between"]),
        ("optim.lr", float("nan"), ["finite"]),
        ("optim.final_lr", -1.0, ["between"]),
        ("optim.weight_decay", -0.1, ["between"]),
        ("optim.recurrent_lr", -2.0, ["between"]),
        ("optim.recurrent_lr", 0.5, ["has no effect on", "leave it at -1"]),
        ("optim.clip_norm", -1.0, ["between"]),
        ("optim.beta1", 1.0, []),
        ("optim.beta2", 1.5, []),
        ("optim.eps", -1e-8, []),
        ("train.batch_size", 0, ["must be between 1 and"]),
        ("train.steps_per_dispatch", 0, ["must be between 1 and"]),
        ("train.microbatches", 0, ["must be between 1 and"]),
        ("train.microbatches", 7, ["train.batch_size"]),
        ("eval.examples", -1, ["must be between 0 and"]),
        ("eval.batch_size", 0, ["must be between 1 and"]),
        ("checkpoint.keep", 0, ["must be between 1 and"]),
        ("seed", -1, []),
        ("seed", 2**40, ["between 0 and 4294967295"]),
        ("model.width", 10**9, ["between 1 and 1048576"]),
        ("model.depth", 10**6, ["between 1 and 512"]),
        ("train.batch_size", 2**40, ["between"]),
        ("train.duration", "100", ["steps"]),
        ("train.duration", "0 steps", ["no training"]),
        ("train.duration", "100 stpes", ["did you mean 'steps'"]),
        ("train.duration", "3 epochs", ["no epochs"]),
        ("train.duration", "10%", ["percentage"]),
        ("optim.warmup", "ten", []),
        ("eval.every", "1 epochs", ["no epochs"]),
        ("checkpoint.every", "5 prcent", []),
        ("log.every", "", []),
        ("train.length", [3], ["two integers"]),
        ("train.length", [3, 4, 5], ["two integers"]),
        ("train.length", [3.0, 40.0], ["two integers"]),
        ("train.length", ["3", "40"], ["two integers"]),
        ("train.length", [40, 3], ["shortest to longest"]),
        ("train.length", [1, 40], ["shortest to longest"]),
        ("train.length", [3, 100_000], ["16384"]),
        ("eval.lengths", [40, 64], ["two integers"]),
        ("eval.lengths", [[40, 64], [65]], ["two integers"]),
        ("eval.lengths", [[40, 64], [65, 100_000]], ["16384"]),
        ("eval.lengths", [[65, 128], [40, 65]], ["[40, 65] and [65, 128] overlap"]),
        ("eval.lengths", [[40, 64], [40, 64]], ["[40, 64] and [40, 64] overlap"]),
        ("eval.headline", [40], ["two integers"]),
        ("eval.headline", [300, 400], ["eval.lengths"]),
        ("eval.lengths", [], ["eval.headline"]),
    ],
)
def test_bad_value_is_refused_in_one_line_that_names_it(config, path, value, said):
    set_field(config, path, value)
    message = refusal(validate_config, config)
    if not path.endswith(".name"):
        assert path in message
    for part in said:
        assert part in message


@pytest.mark.parametrize("mixer", ["mlp", "swiglu", "geglu"])
def test_mixer_needs_its_hidden_width(config, mixer):
    config.model.mixer = mixer
    assert "needs mixer_hidden of at least 1" in refusal(validate_config, config)
    config.model.mixer_hidden = 8
    validate_config(config)


def test_method_that_the_layer_lacks_is_refused():
    config = make_config("lstm")
    config.model.scan = "associative"
    message = refusal(validate_config, config)
    assert "model.scan='associative'" in message
    assert "sequential" in message


def test_layer_renamed_without_its_fields_is_refused(config):
    config.model.layer.name = "lru"
    message = refusal(validate_config, config)
    assert "model.layer.state_size is missing, which 'lru' needs" in message
    assert "set_field" in message


def test_task_renamed_without_its_fields_is_refused():
    config = make_config(task="modular_counting")
    config.task.name = "parity"
    assert "task.modulus is not a field of 'parity'" in refusal(validate_config, config)


def test_tasks_own_check_is_asked():
    config = make_config(task="modular_counting")
    config.task.modulus = 1
    assert "task.modulus=1" in refusal(validate_config, config)


@pytest.mark.parametrize(
    ("layer", "field", "value"),
    [("lru", "state_size", 0), ("lru", "r_min", 1.5), ("deltanet", "heads", 3), ("mamba", "conv_width", 0)],
)
def test_layers_own_check_is_asked(layer, field, value):
    config = make_config(layer)
    set_field(config, f"model.layer.{field}", value)
    assert f"model.layer.{field}" in refusal(validate_config, config)


def test_best_metric_that_is_never_measured_is_refused_before_training(config):
    from lrnn_jax.training.program import make_program

    config.eval.best_metric = "scaled_acuracy"
    message = refusal(make_program, config)
    assert "eval.best_metric" in message
    assert "scaled_accuracy" in message


# --- fields --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("modle.width", ["'modle'", "did you mean 'model'"]),
        ("model.widht", ["'model.widht'", "did you mean 'width'"]),
        ("model.layer.gian", ["'model.layer.gian'", "did you mean 'gain'"]),
        ("optim.zzz", ["'optim.zzz'", "lr", "weight_decay"]),
        ("zzz", ["'zzz'", "model", "optim"]),
        ("model.width.x", ["'model.width'", "holds a value"]),
    ],
)
def test_unknown_field_names_the_nearest_at_the_level_where_it_leaves(config, path, said):
    for message in (refusal(check_field, config, path), refusal(set_field, config, path, 3)):
        for part in said:
            assert part in message


@pytest.mark.parametrize(
    ("path", "value"),
    [("model.width", "wide"), ("model.width", 1.5), ("model.residual", 1), ("optim.lr", "fast"), ("train.duration", 100)],
)
def test_value_of_another_type_is_refused(config, path, value):
    message = refusal(set_field, config, path, value)
    assert path in message
    assert repr(value) in message


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("model.width", None, "must be int, not NoneType"),
        ("model.width", "64", "must be int, not str"),
        ("model.width", True, "must be int, not bool"),
        ("model.residual", 1, "must be bool, not int"),
        ("train.length", "3-40", "must be list, not str"),
        ("train.duration", 100, "must be str, not int"),
        ("model.layer.gain", "10", "must be float, not str"),
        ("task.train_examples", 0.5, "must be int, not float"),
    ],
)
def test_a_config_made_by_hand_may_hold_no_other_type(path, value, said):
    config = make_config()
    *sections, name = path.split(".")
    section = config
    for part in sections:
        section = section[part]
    with config.ignore_type():
        section[name] = value
    assert f"{path}={value!r} {said}" in refusal(validate_config, config)


PLACEHOLDER = """
from ml_collections import FrozenConfigDict
from ml_collections.config_dict import placeholder, required_placeholder
from lrnn_jax.config.files import load_own_config
def get_config(arg=None):
    c = load_own_config("configs/parity.py:diagonal,smoke").unlock()
    if arg == "frozen":
        return FrozenConfigDict(c)
    if arg == "section":
        c.model = FrozenConfigDict(c.model)
        return c
    c.optim.lr = (required_placeholder if arg else placeholder)(float)
    return c
"""


def test_frozen_sections_are_thawed_and_a_placeholder_without_a_value_is_refused(tmp_path):
    file = tmp_path / "held.py"
    file.write_text(PLACEHOLDER)
    expected = load_config("configs/parity.py:diagonal,smoke", {"model.width": 12})
    for arg in ("frozen", "section"):
        config = load_config(f"{file}:{arg}", {"model.width": 12})
        assert config.to_dict() == expected.to_dict()
        validate_config(config)
    for arg in ("", ":required"):
        assert "optim.lr=None must be float, not NoneType" in refusal(load_config, f"{file}{arg}")


def test_set_field_sets(config):
    for path, value in [("seed", 3), ("model.width", 8), ("model.layer.gain", 2.0), ("train.length", [4, 5])]:
        set_field(config, path, value)
        assert dict(flatten(config))[path] == value


def test_another_name_brings_its_own_fields_along_and_the_same_name_nothing(config):
    set_field(config, "model.layer.gain", 2.0)
    set_field(config, "model.layer.name", "diagonal")
    assert config.model.layer.gain == 2.0
    for path, value in (("model.layer.name", "lruu"), ("task.name", "modular_countin")):
        assert "did you mean" in refusal(set_field, config, path, value)
    set_field(config, "model.layer.name", "lru")
    set_field(config, "task.name", "modular_counting")
    set_field(config, "task.modulus", 7)
    assert config.model.layer.to_dict() == layer_config("lru").to_dict() and config.is_locked and config.model.layer.is_locked
    validate_config(config)


def test_layer_and_task_sections_hold_their_own_fields():
    layer, task = layer_config("diagonal", gain=2), task_config("modular_counting", modulus=5)
    assert (layer.name, layer.negative_eigenvalues, layer.gain) == ("diagonal", True, 2.0)
    assert (task.name, task.modulus, task.train_examples) == ("modular_counting", 5, 0)
    assert not {"width", "depth", "index", "dtype", "parent"} & {*layer, *task}


@pytest.mark.parametrize(
    ("make", "name", "fields", "said"),
    [
        (layer_config, "deltanets", {}, "did you mean 'deltanet'"),
        (task_config, "modular_count", {}, "did you mean 'modular_counting'"),
        (layer_config, "diagonal", {"gian": 1.0}, "did you mean 'gain'"),
        (layer_config, "diagonal", {"width": 8}, "no field 'width'"),
        (task_config, "modular_counting", {"modulo": 3}, "did you mean 'modulus'"),
    ],
)
def test_unknown_component_or_field_names_the_nearest(make, name, fields, said):
    assert said in refusal(make, name, **fields)


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["configs/parity.py", "parity.py", "parity"])
def test_project_config_is_found_from_anywhere(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(path) == data_folder("configs") / "parity.py"


def test_a_config_of_ones_own_is_found_by_its_path(tmp_path, monkeypatch):
    own = tmp_path / "mine.py"
    own.write_text("from lrnn_jax.config.fields import base_config\ndef get_config(arg=None):\n    return base_config()\n")
    monkeypatch.chdir(tmp_path)
    assert find_config("mine.py").resolve() == own.resolve()
    assert find_config(str(own)) == own
    loaded = load_config(str(own))
    assert loaded.is_locked
    assert loaded.to_dict() == base_config().to_dict()


@pytest.mark.parametrize("path", ["configs/party.py", "configs/parity", "configs/partiy.py"])
def test_missing_config_names_the_nearest(path):
    assert "did you mean 'configs/parity.py'" in refusal(find_config, path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def get_confg(arg=None): pass\n", "get_config"),
        ("def get_config(:\n", "broken.py:1"),
        ("import no_such_module_here\n", "broken.py:1: ModuleNotFoundError"),
    ],
)
def test_broken_config_file_is_named(tmp_path, text, said):
    file = tmp_path / "broken.py"
    file.write_text(text)
    message = refusal(load_config, str(file))
    assert said in message
    assert str(file) in message


def test_every_field_of_the_base_config_carries_a_comment():
    source = Path(config_module.__file__).read_text()
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    function = next(node for node in ast.parse(source).body if getattr(node, "name", "") == "base_config")
    commented = {
        ast.unparse(node.targets[0]).removeprefix("c."): comments.get(node.lineno, "")
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
    }
    fields = [path for path, _ in flatten(base_config())]
    assert len(fields) > 30
    assert [path for path in [*fields, "task", "model.layer"] if len(commented.get(path, "")) < 5] == []


# --- durations in steps ---------------------------------------------------------------------------------------------


def test_durations_of_a_config_in_steps(config):
    assert train_steps(config) == 1000
    assert interval_steps(config, "optim.warmup") == 100
    assert interval_steps(config, "log.every") == 20
    config.train.duration = "640 examples"
    assert train_steps(config) == 10
    assert interval_steps(config, "log.every") == 1
    # tokens count padding: 64 examples of 40 positions
    config.train.duration = "25600 tokens"
    assert train_steps(config) == 10


def test_a_training_set_smaller_than_a_batch_is_refused(config):
    config.task.train_examples = 63
    assert "task.train_examples=63 is less than train.batch_size=64" in refusal(validate_config, config)


def test_batch_statistics_over_microbatches_are_refused(config):
    config.model.norm, config.train.microbatches = "batchnorm", 2
    assert "train.microbatches" in refusal(validate_config, config)


def test_what_a_layer_says_of_its_arguments_names_the_fields():
    config = load_config("configs/parity.py:mamba2,smoke", {"model.layer.groups": 3})
    assert refusal(validate_config, config) == "model.layer.groups=3 must divide model.layer.heads=4"
    config = load_config("configs/parity.py:deltanet,smoke", {"model.layer.heads": 7})
    assert refusal(validate_config, config) == "model.layer.heads=7 must be at least 1 and divide model.width=32"
    config = load_config("configs/mqar.py:mamba2,smoke", {"task.vocabulary": 3})
    said = refusal(validate_config, config)
    assert re.match(r"task.vocabulary=3 must be at least \d+ for task.pairs=\d+: different keys", said)
