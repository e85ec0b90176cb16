"""The configs' settings that are named after a paper, beside what the paper and its released files say."""

import re

import pytest

from lrnn_jax.config.durations import train_steps
from lrnn_jax.config.fields import flatten
from lrnn_jax.config.files import data_folder, load_config


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
