"""Settings: ordered rules, the part after the colon, and what is wrong with rules; every shipped config's rules are right."""

import ast
from pathlib import Path

import pytest

from lrnn_jax.cli.main import main
from lrnn_jax.config.checks import validate_config
from lrnn_jax.config.durations import train_steps
from lrnn_jax.config.fields import base_config, flatten
from lrnn_jax.config.files import data_folder, explain_config, load_config, load_get_config
from lrnn_jax.config.rule_checks import check_rules, combinations
from lrnn_jax.config.settings import Choices, Chosen, Setting, on
from lrnn_jax.errors import UserError
from lrnn_jax.registry import LAYERS

CONFIGS = sorted(data_folder("configs").glob("*.py"))
HERE = Path(__file__).name

CPU = Setting(
    on({"model.width": 32, "optim.lr": 1e-2, "train.length": [4, 8]}),
    on({"model.layer.heads": 2, "model.width": 16}, layer="deltanet mamba2", why="fewer"),
    on({"model.depth": 1}, layer="-lstm", why="all but one"),
    on({"optim.lr": 1e-4}, variant="positive", why="slower"),
    on({"model.width": 24}, when={"size": "odd", "model.layer.name": ("lru", "lstm")}, why="by option and field"),
)
PAPER = CPU + Setting(on({"optim.lr": 0.5}, source="Section 3"))
OPTIONS = {"size": {"even": {}, "odd": {"task.modulus": 5}}}
CHOICES = Choices("modular_counting", {"cpu": CPU, "smith2025": PAPER}, OPTIONS)


def refusal(function, *arguments, **keywords):
    with pytest.raises(UserError) as caught:
        function(*arguments, **keywords)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- the part after the colon --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arg", "expected"),
    [
        (None, ("deltanet", "", "cpu", "even")),
        ("", ("deltanet", "", "cpu", "even")),
        ("lru", ("lru", "", "cpu", "even")),
        ("mamba/positive", ("mamba", "positive", "cpu", "even")),
        ("setting=smith2025", ("deltanet", "", "smith2025", "even")),
        ("smith2025, odd ,lru,", ("lru", "", "smith2025", "odd")),
        ("layer=mamba/negative,size=odd", ("mamba", "negative", "cpu", "odd")),
        ("my.module:Layer/fast,cpu", ("my.module:Layer", "fast", "cpu", "even")),
    ],
)
def test_the_part_after_the_colon_is_read(arg, expected):
    layer, variant, setting, size = expected
    assert CHOICES.parse(arg) == Chosen(layer, variant, setting, {"size": size})


@pytest.mark.parametrize(
    ("arg", "said"),
    [
        ("mambo", ["'mambo'", "did you mean 'mamba'", "lru"]),
        ("mambo/positive", ["'mambo/positive'", "did you mean 'mamba'"]),
        ("setting=smith2024", ["'setting=smith2024'", "did you mean 'smith2025'"]),
        ("seting=cpu", ["unknown option 'seting'", "did you mean 'setting'"]),
        ("size=lru", ["even, odd"]),
        ("size=", ["even, odd"]),
        ("lru,mamba", ["'mamba'", "layer is given twice"]),
        ("mamba/postive", ["'mamba/postive'", "did you mean 'positive'"]),
        ("lstm/positive", ["'lstm/positive'", "no variants"]),
        ("positive", ["'positive'"]),
    ],
)
def test_what_no_option_allows_is_refused(arg, said):
    message = refusal(CHOICES, arg)
    for part in said:
        assert part in message


# --- rules ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arg", "expected"),
    [
        ("lru", {"model.width": 32, "model.depth": 1, "optim.lr": 1e-2, "train.length": [4, 8]}),
        ("deltanet", {"model.width": 16, "model.layer.heads": 2, "model.layer.negative_eigenvalues": True}),
        ("mamba2/positive", {"model.width": 16, "optim.lr": 1e-4, "model.layer.negative_eigenvalues": False}),
        ("gla", {"model.layer.negative_eigenvalues": True, "model.layer.gate_normaliser": 1.0}),
        ("lstm", {"model.width": 32, "model.depth": 2}),
        ("lstm,odd", {"model.width": 24, "task.modulus": 5}),
        ("mamba,odd", {"model.width": 32, "task.modulus": 5}),
        ("mamba/positive,smith2025", {"optim.lr": 0.5, "model.width": 32}),
    ],
)
def test_later_rules_win_for_the_layers_variants_and_options_that_they_name(arg, expected):
    fields = dict(flatten(CHOICES(arg)))
    assert {path: fields[path] for path in expected} == expected


def test_two_configs_of_one_setting_share_nothing():
    first, second = CHOICES(), CHOICES()
    first.train.length[0] = 3
    assert second.train.length == CHOICES().train.length == [4, 8]


def test_every_field_knows_what_set_it():
    _, origins = CHOICES.resolve(CHOICES.parse("mamba/positive,odd"))
    said = {path: origin.by for path, origin in origins.items()}
    assert said["model.residual"] == "default"
    assert said["task.modulus"] == "option size=odd"
    assert said["model.layer.negative_eigenvalues"] == "variant positive"
    assert said["optim.lr"].startswith(f"cpu rule 4 ({HERE}:") and origins["optim.lr"].rule.why == "slower"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (on({"model.width": 3}, layer="mambo"), ["'mambo'", "did you mean 'mamba'"]),
        (on({"model.widht": 3}), ["'model.widht'", "did you mean 'model.width'"]),
        (on({"model.layer.headz": 3}, layer="deltanet"), ["'model.layer.headz'", "'deltanet'"]),
        (on({"model.width": "wide"}), ["'model.width'", "it holds int"]),
        (on({"model.width": None}), ["'model.width'", "it holds int"]),
    ],
)
def test_a_rule_with_a_mistake_is_refused_where_it_stands(rule, said):
    message = refusal(Choices("parity", {"cpu": Setting(rule)}))
    for part in [f"{HERE}:", *said]:
        assert part in message


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([on({"model.layer.heads": 2})], "'model.layer.heads'"),  # not every layer has heads
        ([on({"model.width": 64})], "without effect"),
        ([on({"model.width": 3}), on({"model.width": 4})], "without effect"),
        ([on({"model.width": 3}, when={"model.depth": 7}, why="never")], "without effect"),
        ([on({"model.width": 3}, layer="mamba")], "does not say why"),
        ([on({"model.width": 3}, variant="fast", why="none has it")], "without effect"),
        ([on({"model.width": 3}, layer="mamba lstm", variant="positive fast", why="one has not")], "'fast'"),
    ],
)
def test_rules_that_say_nothing_are_refused(rules, said):
    message = refusal(check_rules, Choices("parity", {"cpu": Setting(*rules)}), HERE)
    assert said in message and f"{HERE}:" in message


def test_a_papers_rule_names_its_source():
    choices = Choices("parity", {"cpu": Setting(), "smith2025": Setting(on({"model.width": 3}))})
    assert "names no source" in refusal(check_rules, choices, HERE)


def test_two_settings_of_one_name_are_refused(tmp_path):
    file = tmp_path / "twice.py"
    for annotation in ("", ": dict"):
        file.write_text(f"SETTINGS{annotation} = {{'cpu': 1,\n 'cpu': 2}}\ndef get_config(arg=None): pass\n")
        assert "twice.py:1: two settings are called 'cpu'" in refusal(load_config, str(file))


def test_every_command_refuses_a_bad_rule_of_a_setting_that_is_not_chosen(tmp_path):
    file = tmp_path / "mine.py"
    bad = "Setting(on({'model.layer.heads': 2}, layer='lstm', source='Section 3'))"
    file.write_text(FILE.replace("RULE)", f"on({{'optim.lr': 0.5}})), 'smith2025': {bad}"))
    assert "'model.layer.heads'" in refusal(load_config, f"{file}:mamba,cpu")


# --- the shipped configs -------------------------------------------------------------------------------------------


def test_there_are_configs():
    assert "parity.py" in [file.name for file in CONFIGS]


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_rule_has_layers_fields_an_effect_and_a_source(file):
    choices = load_get_config(file)
    check_rules(choices, file.name)
    for chosen in combinations(choices):
        choices.resolve(chosen)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_setting_is_valid_for_every_layer_and_smoke_is_short(file):
    get_config = load_get_config(file)
    assert list(get_config.settings)[:2] == ["cpu", "smoke"]
    for setting in get_config.settings:
        for layer in LAYERS:
            config = get_config(f"{layer},{setting}")
            validate_config(config)
            assert config.model.layer.name == layer
            assert {path for path, _ in flatten(config)} >= {path for path, _ in flatten(base_config())}
            assert setting != "smoke" or train_steps(config) <= 100


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_config_says_what_it_is(file):
    doc = ast.get_docstring(ast.parse(file.read_text()))
    assert doc and doc.splitlines()[0].endswith(".")
    assert f"lrnn train --config=configs/{file.name}:LAYER[/VARIANT],SETTING" in doc


def test_a_layer_named_by_an_override_has_what_the_setting_says_for_it():
    spec, override = "configs/parity.py:diagonal,smoke", {"model.layer.name": "mamba", "seed": 3, "model.layer.expand": 1}
    config = load_config(spec, override)
    expected = load_config("configs/parity.py:mamba,smoke", {"seed": 3, "model.layer.expand": 1})
    assert config == expected
    said = {path: origin.by for path, origin in explain_config(spec, override).items()}
    assert said["seed"] == said["model.layer.name"] == "command line" and said["optim.lr"].startswith("smoke rule ")


def test_a_task_named_by_an_override_brings_its_fields_along():
    overrides = {"task.modulus": 7, "task.name": "modular_counting"}
    config = load_config("configs/parity.py:smoke", overrides)
    assert config.task.modulus == 7
    validate_config(config)
    assert explain_config("configs/parity.py:smoke", overrides)["task.train_examples"].by == "default"


# --- the command -----------------------------------------------------------------------------------------------------


def show(capsys, *arguments):
    code = main(["config", *arguments])
    printed = capsys.readouterr()
    return code, [line.split() for line in printed.out.splitlines()], printed.err


def test_the_command_shows_every_field_with_what_set_it(capsys):
    spec = "configs/parity.py:mamba/positive,grazzi2025-released"
    code, rows, _ = show(capsys, spec, "--config.seed=3", "--noconfig.model.residual")
    assert code == 0 and rows[0][:2] == ["field", "value"]
    fields = dict(flatten(load_config(spec)))
    assert [row[0] for row in rows[1:]] == list(fields)
    said = {row[0]: row[1:] for row in rows[1:]}
    assert said["seed"] == ["3", "command", "line"] and said["model.residual"] == ["False", "command", "line"]
    assert said["model.layer.negative_eigenvalues"] == ["False", "variant", "positive"]
    assert said["optim.beta1"] == [repr(fields["optim.beta1"]), "default"]
    assert said["train.batch_size"][:3] == ["256", "grazzi2025-released", "rule"] and "released" in said["train.batch_size"][5:]
    changed = [row[0] for row in show(capsys, spec, "--changed")[1]]
    assert "train.batch_size" in changed and "optim.beta1" not in changed


FILE = """
from lrnn_jax.config.settings import Choices, Setting, on
SETTINGS = {"cpu": Setting(on({"model.width": 8}), RULE)}
get_config = Choices("parity", SETTINGS)
"""


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("on({'model.width': 16}, layer='mambo', why='x')", "'mambo'"),
        ("on({'model.layer.heads': 16}, layer='lstm', why='x')", "'model.layer.heads'"),
        ("on({'optim.beta1': 0.9})", "without effect"),
        ("on({'optim.schedule': 'cosin'})", "did you mean 'cosine'"),
    ],
)
def test_the_command_refuses_bad_rules_and_configs_that_cannot_run(tmp_path, capsys, rule, said):
    file = tmp_path / "mine.py"
    file.write_text(FILE.replace("RULE", rule))
    code, _, err = show(capsys, f"--config={file}:lstm")
    assert code == 2 and said in err and len(err.splitlines()) == 1


def test_the_command_needs_a_config_and_explains_files_without_rules(tmp_path, capsys):
    assert "needs a config" in show(capsys)[2]
    file = tmp_path / "plain.py"
    file.write_text(
        "from lrnn_jax.config.files import load_own_config\n"
        "def get_config(arg=None):\n    return load_own_config('configs/parity.py:lstm,smoke')\n"
    )
    said = {row[0]: row[1:] for row in show(capsys, str(file))[1]}
    assert said["model.width"] == ["32", "config", "file"] and said["optim.beta1"] == ["0.9", "default"]
