"""The configs' settings that are named after a paper, beside what the paper and its released files say."""

import math
import re

import pytest

from lrnn_jax.config.durations import train_steps
from lrnn_jax.config.fields import flatten
from lrnn_jax.config.files import data_folder, load_config, load_sweep


# Grazzi et al. 2025, App. E.1.1, and what its released files say instead.
@pytest.mark.parametrize(
    ("arg", "paper", "released"),
    [
        ("parity.py:deltanet", (2, 128, 1024, 100_000, 0.1, 0.0, 4), (2, 128, 256, 20_000, 0.0, 0.0, 4)),
        ("parity.py:mamba", (2, 128, 1024, 100_000, 0.1, 0.0, 4), (2, 128, 256, 20_000, 0.0, 0.0, 1)),
        ("parity.py:slstm", (2, 128, 1024, 100_000, 0.1, 0.0, 0), (2, 128, 256, 20_000, 0.1, 0.0, 0)),
        ("modular_arithmetic.py:deltanet", (3, 128, 1024, 100_000, 0.1, 1.0, 4), (2, 128, 256, 100_000, 0.1, 0.0, 4)),
        ("modular_arithmetic.py:mamba", (3, 128, 1024, 100_000, 0.1, 1.0, 4), (2, 128, 256, 100_000, 0.1, 0.0, 1)),
        ("modular_arithmetic.py:mlstm", (3, 64, 512, 100_000, 0.1, 0.0, 4), (2, 128, 256, 100_000, 0.1, 0.0, 4)),
    ],
)
def test_settings_of_the_paper_and_of_its_released_files(arg, paper, released):
    for setting, expected in (("grazzi2025", paper), ("grazzi2025-released", released)):
        c = load_config(f"{data_folder('configs')}/{arg},{setting}")
        found = c.model.depth, c.model.width, c.train.batch_size, train_steps(c), c.optim.weight_decay, c.optim.clip_norm
        assert (*found, c.model.layer.conv_width) == expected


@pytest.mark.parametrize(
    ("arg", "expected"),
    [
        ("parity.py:mlstm,grazzi2025", {"train.batch_size": 512, "model.layer.heads": 4}),
        ("parity.py:deltanet,grazzi2025-released", {"optim.lr": 1e-3, "optim.final_lr": 1e-6, "model.dtype": "bfloat16"}),
        ("modular_arithmetic.py:slstm,grazzi2025", {"model.layer.bias_init": "standard", "model.layer.heads": 1}),
        ("modular_arithmetic.py:slstm,grazzi2025", {"model.mixer": "geglu", "model.mixer_hidden": 128}),
        ("parity.py:slstm,grazzi2025-released", {"model.mixer": "geglu", "model.mixer_hidden": 192, "model.norm": "layernorm"}),
        ("parity.py:mlstm,grazzi2025-released", {"model.mixer": "none", "model.norm": "layernorm"}),
        ("modular_arithmetic.py:mamba/positive,grazzi2025-released", {"optim.lr": 1e-4, "optim.final_lr": 1e-7}),
        ("modular_arithmetic.py:mamba/positive,brackets,grazzi2025-released", {"optim.lr": 1e-3, "optim.final_lr": 1e-6}),
        ("modular_arithmetic.py:deltanet,grazzi2025-released", {"optim.groups": [[".*", 1.0, 1.0]]}),
        ("parity.py:diagonal,grazzi2025-released", {"model.layer.input_gate": True, "optim.warmup": "0 steps"}),
        ("parity.py:diagonal/positive,grazzi2025-released", {"model.layer.input_gate": True, "optim.warmup": "2000 steps"}),
        ("parity.py:deltanet,grazzi2025-released", {"model.layer.initial_values": "released", "model.head_bias": False}),
        ("parity.py:diagonal,grazzi2025-released", {"model.norm_bias": False, "model.head_bias": False}),
        ("parity.py:slstm,grazzi2025-released", {"model.layer.bias_init": "powerlaw_by_block"}),
        ("word_problem.py:deltaproduct,siems2025", {"model.layer.heads": 8, "model.layer.initial_values": "released"}),
        ("word_problem.py:full_matrix,grazzi2025", {"model.depth": 1, "model.layer.size": 32, "optim.lr": 1e-4}),
        ("word_problem.py:mamba,grazzi2025", {"model.depth": 5, "model.width": 128, "train.batch_size": 512}),
    ],
)
def test_settings_of_single_layers_in_the_paper(arg, expected):
    fields = dict(flatten(load_config(f"{data_folder('configs')}/{arg}")))
    assert {path: fields[path] for path in expected} == expected


def test_the_released_mamba_decays_everything_but_its_transition_and_its_skip():
    paths = [f"block_0/layer/{name}" for name in ("A_log", "D", "dt_proj/bias", "in_proj/kernel")] + [
        "norm/scale",
        "embed/embedding",
    ]
    rules = load_config(f"{data_folder('configs')}/modular_arithmetic.py:mamba,grazzi2025-released").optim.groups
    found = {path: [decay for pattern, _, decay in rules if re.search(pattern, path)] for path in paths}
    assert found == {path: [0.0] if path in paths[:2] else [1.0] for path in paths}


# MAD's released task files: vocabulary, length, training examples; and the values of each change of one variable.
MAD = {
    "compression": ((16, 32, 12_800), {"vocabulary": (32, 64, 128), "length": (64, 128, 256)}),
    "fuzzy_in_context_recall": ((16, 128, 12_800), {"vocabulary": (32, 64, 128), "length": (256, 512, 1024)}),
    "in_context_recall": ((16, 128, 12_800), {"vocabulary": (32, 64, 128), "length": (256, 512, 1024)}),
    "memorization": ((256, 32, 256), {"vocabulary": (512, 1024, 2048, 4096, 8192)}),
    "noisy_in_context_recall": (
        (32, 128, 12_800),
        {"vocabulary": (48, 80, 144), "length": (256, 512, 1024), "noise": (0.4, 0.6, 0.8)},
    ),
    "selective_copying": (
        (16, 256, 12_800),
        {"vocabulary": (32, 64, 128), "length": (512, 1024), "copies": (32, 64, 96)},
    ),
}


@pytest.mark.parametrize("name", MAD)
def test_the_mad_protocol(name):
    file = f"{data_folder('configs')}/{name}.py"
    (vocabulary, length, examples), changes = MAD[name]
    baseline = dict(flatten(load_config(f"{file}:mad")))
    assert (baseline["task.vocabulary"], baseline["train.length"], baseline["eval.lengths"]) == (
        vocabulary,
        [length, length],
        [[length, length]],
    )
    expected = {
        "task.train_examples": examples,
        "train.duration": "200 epochs",
        "train.batch_size": 128,
        "eval.examples": 1280,
        "eval.best_metric": "macro_accuracy",
        "optim.lr": 5e-4,
        "optim.weight_decay": 0.0,
        "optim.beta2": 0.999,
        "optim.schedule": "constant",
        "optim.warmup": "0 steps",
        "model.width": 128,
        "model.depth": 2,
        # its benchmark leaves the norm to its models; the auto-encoder alone draws all matrices anew
        "model.norm": "rmsnorm",
        "model.initial_values": "released" if name == "compression" else "default",
        "model.mixer": "swiglu",
        "model.mixer_hidden": 352,
        "model.positions": "none",
    }
    assert {path: baseline[path] for path in expected} == expected
    assert train_steps(load_config(f"{file}:mad")) == 200 * examples // 128
    if name != "memorization":
        changes = {**changes, "train_examples": (6400, 3200, 1600, 800)}
    found = []
    for point in load_sweep(file, "difficulties"):
        fields = dict(flatten(load_config(f"{file}:mad", point)))
        found.append({path: value for path, value in fields.items() if value != baseline[path]})
    expected_points = [{}]
    for change, values in changes.items():
        for value in values:
            if change == "length":
                same = [value, value]
                expected_points.append({"train.length": same, "eval.lengths": [same], "eval.headline": same})
            else:
                expected_points.append({f"task.{change}": value})
    assert sorted(map(str, map(sorted, map(dict.items, found)))) == sorted(
        map(str, map(sorted, map(dict.items, expected_points)))
    )


@pytest.mark.parametrize(
    ("arg", "expected"),
    [
        ("in_context_recall.py", {"task.vocabulary": 16, "train.length": [64, 64], "task.train_examples": 20_000}),
        ("selective_copying.py", {"task.vocabulary": 16, "train.length": [64, 64], "task.copies": 16}),
        ("compression.py", {"model.head": "autoencoder", "model.positions": "learned", "model.max_length": 1280}),
        ("fuzzy_in_context_recall.py", {"task.vocabulary": 32, "train.length": [64, 64], "task.train_examples": 20_000}),
        ("fuzzy_in_context_recall.py", {"task.key_motif": 1, "task.value_motif": 1}),
        ("memorization.py", {"task.vocabulary": 4096, "train.length": [64, 64], "task.train_examples": 20_000}),
        ("word_problem.py:S3", {"train.length": [16, 16], "task.train_examples": 100_000, "task.padding": False}),
        ("word_problem.py:S2", {"task.bos": False, "task.letters": "all", "model.mixer_hidden": 352, "model.head": "token"}),
    ],
)
def test_settings_of_dubinin2026(arg, expected):
    file, _, option = arg.partition(":")
    c = load_config(f"{data_folder('configs')}/{file}:{','.join(filter(None, ('dubinin2026', option)))}")
    fields = dict(flatten(c))
    shared = {"optim.lr": 5e-4, "train.batch_size": 128, "train.duration": "200 epochs", "model.initial_values": "released"}
    expected = {**shared, "model.width": 128, "model.depth": 2, "model.norm": "layernorm", "eval.examples": 1280, **expected}
    assert {path: fields[path] for path in expected} == expected


# Orvieto et al. 2023, Tables 8 and 9: depth, H, N, iterations, batch, learning-rate factor, dropout, ring, largest phase / pi,
# both directions, mixer; and the longest sequence.
@pytest.mark.parametrize(
    ("arg", "expected", "steps"),
    [
        ("image_classification", (6, 512, 384, 180_000, 50, 0.25, 0.1, 0.9, 0.999, 2, False, "glu"), 1024),
        ("listops", (6, 128, 256, 80_000, 32, 0.5, 0.0, 0.0, 0.99, 2, False, "glu"), 2048),
        ("text_classification", (6, 256, 192, 50_000, 32, 0.1, 0.1, 0.5, 0.9, 2, False, "glu"), 4096),
        ("retrieval", (6, 128, 256, 100_000, 64, 0.5, 0.1, 0.5, 0.9, 2, False, "glu"), 4000),
        ("pathfinder", (6, 192, 256, 500_000, 64, 0.25, 0.0, 0.9, 0.999, 2, True, "glu"), 1024),
        ("pathfinder,128", (6, 128, 256, 250_000, 32, 0.25, 0.0, 0.999, 0.9999, 0.1, True, "half_glu1"), 16_384),
    ],
)
def test_settings_of_orvieto2023(arg, expected, steps):
    name, _, option = arg.partition(",")
    c = load_config(f"{data_folder('configs')}/{name}.py:lru,orvieto2023{',' + option if option else ''}")
    layer = c.model.layer
    found = (
        *(c.model.depth, c.model.width, layer.state_size, train_steps(c), c.train.batch_size, c.optim.recurrent_lr),
        *(c.model.dropout, layer.r_min, layer.r_max, pytest.approx(layer.max_phase / math.pi)),
        *(layer.bidirectional, c.model.mixer),
    )
    assert found == expected
    assert c.train.length[1] == steps and (name != "image_classification" or not c.task.grey)
    assert (c.optim.weight_decay, c.optim.lr, c.optim.final_lr, c.optim.warmup) == (0.05, 4e-3, 1e-7, "10%")
    # App. D.1: the last block is pooled; D.2: all but A, B, gamma and the step sizes decay
    assert not c.model.final_norm and c.optim.groups == [["(bias|scale)$", 1.0, 1.0]]
    assert (c.model.norm, c.model.norm_position, c.model.head) == (
        "batchnorm",
        "pre",
        "pair" if name == "retrieval" else "mean",
    )
