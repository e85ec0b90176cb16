"""Layers and tasks from outside the package, each trained for 50 steps by the command, whose loss falls."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TASK = """
import dataclasses
import jax
import jax.numpy as jnp
from lrnn_jax.tasks.base import Batch, Example, SyntheticTask

def spec(shape, dtype):
    return jax.ShapeDtypeStruct(shape, dtype)
"""
# What each module holds, and what the command adds to `configs/parity.py:diagonal,smoke`.
OUTSIDE = {
    "layer": (
        """
        import flax.linen as nn
        import jax
        import jax.numpy as jnp
        from lrnn_jax.parts.layer import MATRICES, NO_DECAY, RecurrentLayer
        from lrnn_jax.scans import scan_diagonal
        from lrnn_jax.scans.method import Serves

        class Leaky(RecurrentLayer):
            '''h_t = a h_(t-1) + W x_t with one learned a per feature.'''

            SOURCE = "here"
            METHODS = {"sequential": Serves(), "associative": Serves()}
            PARAM_GROUPS = {r"kernel$": MATRICES, r"decay$": NO_DECAY}
            start: float = 0.9

            @nn.compact
            def recur(self, x, state, reset, scan):
                decay = self.param("decay", nn.initializers.constant(self.start), (self.width,))
                b = nn.Dense(self.width, use_bias=False)(x)
                h, last = scan_diagonal(jnp.broadcast_to(decay, b.shape), b, h0=state["h"], reset=reset, method=scan)
                return h, {"h": last}

            def init_state(self, batch):
                return {"h": jnp.zeros((batch, self.width))}

            def transition(self, x):
                return jnp.broadcast_to(self.variables["params"]["decay"], x.shape)

            def parameter_count(self):
                return self.width**2 + self.width

            def state_count(self):
                return self.width
        """,
        ["--config.model.layer.name=outside_layer:Leaky", "--config.model.layer.start=0.5"],
    ),
    "images": (
        TASK
        + """
        @dataclasses.dataclass(frozen=True)
        class Colours(SyntheticTask):
            '''Which of three channels is the brightest in a picture read pixel by pixel?'''

            EVAL_LENGTHS = ((16, 16),)
            CHANCE = 1 / 3
            vocab_size = 0
            outputs = 3

            def example_spec(self, length):
                return Example(spec((length, 3), jnp.float32), spec((), jnp.int32))

            def batch(self, key, size, length, split="train"):
                label_key, noise_key = jax.random.split(key)
                targets = jax.random.randint(label_key, (size,), 0, 3)
                pixels = jax.random.normal(noise_key, (size, length[1], 3)) + jax.nn.one_hot(targets, 3)[:, None]
                return Batch(pixels, targets, jnp.ones(size), jnp.full(size, length[1], jnp.int32))
        """,
        ["--config.task.name=outside_images:Colours"],
    ),
    "pairs": (
        TASK
        + """
        @dataclasses.dataclass(frozen=True)
        class SameStart(SyntheticTask):
            '''Do two rows hold the same token throughout?'''

            EVAL_LENGTHS = ((16, 16),)
            HEADS = ("pair",)
            CHANCE = 0.5
            vocab_size = 3
            outputs = 2

            def example_spec(self, length):
                return Example(spec((2, length), jnp.int32), spec((), jnp.int32))

            def batch(self, key, size, length, split="train"):
                tokens = jax.random.randint(key, (size, 2), 1, 3)
                rows = jnp.broadcast_to(tokens[:, :, None], (size, 2, length[1]))
                lengths = jnp.full((size, 2), length[1], jnp.int32)
                return Batch(rows, (tokens[:, 0] == tokens[:, 1]).astype(jnp.int32), jnp.ones(size), lengths)

            def oracle(self, example):
                return int(example[0][0] == example[1][0])
        """,
        ["--config.task.name=outside_pairs:SameStart", "--config.model.head=pair"],
    ),
    "autoencoder": (
        TASK
        + """
        @dataclasses.dataclass(frozen=True)
        class Repeat(SyntheticTask):
            '''The whole input, read from the state after it.'''

            EVAL_LENGTHS = ((8, 8),)
            HEADS = ("autoencoder",)
            CHANCE = 0.25
            vocab_size = 4
            outputs = 4

            def batch(self, key, size, length, split="train"):
                tokens = jax.random.randint(key, (size, length[1]), 0, 4)
                return Batch(tokens, tokens, jnp.ones(tokens.shape), jnp.full(size, length[1], jnp.int32))

            def oracle(self, example):
                return example
        """,
        [
            "--config.task.name=outside_autoencoder:Repeat",
            "--config.model.head=autoencoder",
            "--config.model.max_length=16",
            "--config.train.length=[8,8]",
            "--config.eval.lengths=[[8,8]]",
            "--config.eval.headline=[8,8]",
        ],
    ),
    "regression": (
        TASK
        + """
        @dataclasses.dataclass(frozen=True)
        class Means(SyntheticTask):
            '''The mean of each of two series of numbers.'''

            EVAL_LENGTHS = ((16, 16),)
            HEADS = ("regression",)
            METRICS = {"loss": "lower", "error": "lower"}
            CHANCE = 0.0
            vocab_size = 0
            outputs = 2

            def example_spec(self, length):
                return Example(spec((length, 2), jnp.float32), spec((2,), jnp.float32))

            def batch(self, key, size, length, split="train"):
                level_key, noise_key = jax.random.split(key)
                level = jax.random.normal(level_key, (size, 1, 2))
                series = level + 0.1 * jax.random.normal(noise_key, (size, length[1], 2))
                return Batch(series, jnp.mean(series, axis=1), jnp.ones(size), jnp.full(size, length[1], jnp.int32))

            def metrics(self, outputs, batch):
                distance = jnp.mean(jnp.abs(outputs - batch.targets), axis=-1)
                return {"error": (jnp.sum(distance * batch.weights), jnp.sum(batch.weights))}
        """,
        ["--config.task.name=outside_regression:Means", "--config.model.head=regression", "--config.eval.best_metric=error"],
    ),
    "bidirectional": (
        """
        import flax.linen as nn
        import jax.numpy as jnp
        from lrnn_jax.parts.layer import MATRICES, NO_DECAY, RecurrentLayer
        from lrnn_jax.scans import scan_diagonal
        from lrnn_jax.scans.method import Serves

        class BothWays(RecurrentLayer):
            '''Two leaky sums of W x, one from the left and one from the right.'''

            SOURCE = "here"
            METHODS = {"sequential": Serves(), "associative": Serves()}
            PARAM_GROUPS = {r"kernel$": MATRICES, r"decay$": NO_DECAY}
            CAUSAL = False

            @nn.compact
            def recur(self, x, state, reset, scan):
                decay = self.param("decay", nn.initializers.constant(0.9), (self.width,))
                b = nn.Dense(self.width, use_bias=False)(x)
                a = jnp.broadcast_to(decay, b.shape)
                left, last = scan_diagonal(a, b, h0=state["h"], reset=reset, method=scan)
                right, _ = scan_diagonal(a, b, reset=reset, method=scan, reverse=True)
                return left + right, {"h": last}

            def init_state(self, batch):
                return {"h": jnp.zeros((batch, self.width))}

            def transition(self, x):
                return jnp.broadcast_to(self.variables["params"]["decay"], x.shape)

            def parameter_count(self):
                return self.width**2 + self.width

            def state_count(self):
                return self.width
        """,
        ["--config.model.layer.name=outside_bidirectional:BothWays", "--config.model.head=mean"],
    ),
}
# What the loss falls below, as a share of the first one; 1 where it is not said.
FALLS = {"images": 0.8, "pairs": 0.8, "autoencoder": 0.98, "regression": 0.5}
COMMON = [
    "--config.train.duration=50 steps",
    "--config.train.batch_size=32",
    "--config.train.length=[16,16]",
    "--config.eval.lengths=[[16,16]]",
    "--config.eval.headline=[16,16]",
    "--config.eval.examples=32",
    "--config.eval.best_metric=loss",
    "--config.log.every=5 steps",
    "--config.optim.lr=0.02",
    "--config.model.width=8",
    "--config.model.residual=True",
]


def run(folder, *arguments):
    """The command as its user calls it, in the folder that holds the module."""
    command = [sys.executable, "-m", "lrnn_jax", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("what", OUTSIDE)
def test_what_is_written_outside_trains_and_its_loss_falls(what, tmp_path):
    module, arguments = OUTSIDE[what]
    Path(tmp_path, f"outside_{what}.py").write_text(textwrap.dedent(module) if not module.startswith(TASK) else _joined(module))
    overrides = {flag.partition("=")[0]: flag for flag in [*COMMON, *arguments]}
    done = run(tmp_path, "train", "--config=configs/parity.py:diagonal,smoke", *overrides.values(), "--workdir=run")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in Path(tmp_path, "run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["split"] == "train"]
    assert len(losses) == 10
    # parity itself is not learned in 50 steps: there the loss falls to that of an even guess
    assert sum(losses[-3:]) / 3 < FALLS.get(what, 1.0) * losses[0]
    result = json.loads(Path(tmp_path, "run/result.json").read_text())
    assert result["status"] == "finished" and result["best"]["metrics"]


def _joined(module):
    return TASK + textwrap.dedent(module.removeprefix(TASK))
