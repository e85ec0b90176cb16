"""A layer that is not in this package gets a row in a paper's table."""

import dataclasses
import sys

from lrnn_jax.cli.main import main
from lrnn_jax.tables import reproducing

LAYER = '''
"""A layer of somebody's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.parts.layer import RecurrentLayer
from lrnn_jax.scans import scan_diagonal
from lrnn_jax.scans.diagonal import METHODS


class Leaky(RecurrentLayer):
    """h_t = a * h_{t-1} + W x_t and y_t = h_t, with a = tanh(w)."""

    start: float = 1.0

    SOURCE = "none"
    METHODS = METHODS
    PARAM_GROUPS = {"^W/kernel$": {"lr": 1.0, "wd": 1.0}, "^w$": {"lr": 1.0, "wd": 0.0}}
    VARIANTS = {"slow": {"start": 2.0}, "fast": {"start": 0.5}}

    @nn.compact
    def recur(self, x, state, reset, scan):
        w = self.param("w", lambda _: jnp.ones(self.width) * self.start)
        b = nn.Dense(self.width, use_bias=False, name="W")(x).astype(jnp.float32)
        return scan_diagonal(jnp.broadcast_to(jnp.tanh(w), b.shape), b, h0=state, reset=reset, method=scan)

    def init_state(self, batch):
        return jnp.zeros((batch, self.width))

    def transition(self, x):
        return jnp.tanh(self.variables["params"]["w"])

    def parameter_count(self):
        return self.width**2 + self.width

    def state_count(self):
        return self.width
'''


# One seed, one length bucket and 20 steps show as much as three, five and 100 do, and compile less.
SHORT = {"eval.lengths": [[40, 64]], "eval.every": "100%", "train.duration": "20 steps"}


def load_shortened(name, **options):
    table = load_experiment(name, **options)
    return dataclasses.replace(table, seeds=1, columns=tuple(dataclasses.replace(c, fields=SHORT) for c in table.columns))


load_experiment = reproducing.load_experiment


def test_a_layer_from_outside_gets_a_row_in_table_3(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(reproducing, "load_experiment", load_shortened)
    (tmp_path / "leaky.py").write_text(LAYER)
    command = ["reproduce", "grazzi2025_table3", "--setting=smoke", "--layer=leaky:Leaky/fast", "--results=results"]
    assert main([*command, "--workdir=runs", "--cells=parity/leaky:Leaky/fast"]) == 0
    shown = capsys.readouterr()
    assert "parity/leaky:Leaky/fast, seed 0" in shown.err and "(leaky:Leaky)" not in shown.err
    lines = shown.out.splitlines()
    row = next(line for line in lines if line.startswith("| leaky:Leaky/fast |  |"))
    assert "missing" not in row and row.count(" | ") == 5
    assert "| DeltaNet [-1, 1] | 1.000 | missing | missing |  |  |" in lines
    # every column has the row, and the paper's own table stays as it is
    (overview,) = [line for line in lines if line.startswith("| leaky:Leaky/fast |") and line.count("missing") == 3]
    assert overview.count(" | ") == 4
    results = tmp_path / "results"
    assert [path.name for path in (results / "grazzi2025_table3" / "smoke").iterdir()] == ["leaky-Leaky-fast"]
    assert len(list((results / "runs").iterdir())) == 1
    # what has been trained is drawn again without the layer's being trained again
    assert main([*command, "--render"]) == 0
    assert row in capsys.readouterr().out.splitlines()


def test_a_layer_that_cannot_be_found_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for layer, said in (
        ("nowhere:Layer", "nowhere"),
        ("deltanet/negativ", "did you mean 'negative'"),
        ("deltanett", "'deltanet'"),
    ):
        assert main(["reproduce", "grazzi2025_fig1", "--setting=smoke", f"--layer={layer}", "--results=r"]) == 2
        err = capsys.readouterr().err
        assert len(err.splitlines()) == 1 and said in err
    assert list(tmp_path.iterdir()) == []
