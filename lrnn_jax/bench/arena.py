"""Training steps at the settings of the Long Range Arena, on random examples: their time and memory."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lrnn_jax.bench.measuring import Candidate, say, take_turns
from lrnn_jax.config.checks import validate_config
from lrnn_jax.config.durations import train_steps
from lrnn_jax.config.fields import set_field
from lrnn_jax.config.files import load_config
from lrnn_jax.registry import build_model, build_task
from lrnn_jax.tasks.base import Batch, Task
from lrnn_jax.training.program import bytes_needed, compile_steps, make_step, stack_hyper

# Steps inside one call, each on a batch of its own.
STEPS = 2


class Training:
    """A compiled training step with its state, which each call takes `STEPS` further."""

    def __init__(self, config: ConfigDict) -> None:
        """Compiles and draws the batches; reads no data."""
        task = build_task(config.task)
        self.hyper = stack_hyper([config])
        step = make_step(config, task, build_model(config.model, task), self.hyper)
        self.batches = draw_batches(task, config.train.batch_size, config.train.length[1])
        began = time.perf_counter()
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.batches)
        self.compiled = compile_steps(step, 1, shapes)
        self.compile_s = time.perf_counter() - began
        self.make_state = lambda: jax.jit(step.init)(self.hyper)
        self.state: Any = None

    def __call__(self) -> Any:
        if self.state is None:
            self.state = self.make_state()
        self.state, sums = self.compiled(self.hyper, self.state, jnp.int32(STEPS), self.batches)
        return sums

    def memory_analysis(self) -> Any:
        """XLA's account of the program."""
        return self.compiled.memory_analysis()


def draw_batches(task: Task, size: int, length: int) -> Batch:
    """Returns random batches of a classification task, stacked ``[K ...]``, whose rows all have the full length."""
    spec = task.example_spec(length)
    lead = (STEPS, size)
    rng = np.random.default_rng(0)
    shape = (*lead, *spec.inputs.shape)
    if task.vocab_size:
        inputs, rows = rng.integers(0, task.vocab_size, shape).astype(np.int32), spec.inputs.shape[:-1]
    else:
        inputs, rows = rng.normal(size=shape).astype(np.float32), spec.inputs.shape[:-2]
    targets = rng.integers(0, task.outputs, lead).astype(np.int32)
    lengths = jnp.full((*lead, *rows), length, jnp.int32)
    return Batch(jnp.asarray(inputs), jnp.asarray(targets), jnp.ones(lead, jnp.float32), lengths)


def study_training(
    *, setting: str, tasks: Mapping[str, Sequence[str]], layers: Sequence[str], rounds: int, scan: str = "auto"
) -> list[dict[str, Any]]:
    """Returns steps per second and memory of training, layer by layer, the layers of a task in turns.

    Args:
      setting: of the tasks' configs.
      tasks: name -> config file and the options of its part after the colon.
      layers: ``LAYER[/VARIANT]``.
      rounds: of which the median is taken; 0 compiles only.
      scan: method of the recurrences. Of what the parallel scans of an accelerator take, the account of ``"associative"`` says
        more than that of the loop that a CPU takes by itself.
    """
    found = []
    for name, (file, *options) in tasks.items():
        configs = {}
        for layer in layers:
            config = load_config(f"{file}:{','.join((layer, setting, *options))}")
            if scan != "auto" and not layer.startswith("rnn"):  # a dense RNN has but the loop
                set_field(config, "model.scan", scan)
            validate_config(config)
            configs[layer] = config
        found += _measure_task(name, configs, rounds)
    return found


def _measure_task(name: str, configs: Mapping[str, ConfigDict], rounds: int) -> list[dict[str, Any]]:
    trained = {}
    for layer, config in configs.items():
        say(f"{name}: compiling {layer}")
        trained[layer] = Training(config)
    candidates = {layer: Candidate(each, (), each.compile_s, repeats=STEPS) for layer, each in trained.items()}
    rows = []
    for layer, timed in take_turns(candidates, rounds).items():
        train = configs[layer].train
        say(f"{name}: {layer} {timed.failed or f'{1 / (timed.seconds or 1):.2f} steps/s'}")
        rows.append(
            {
                "task": name,
                "layer": layer,
                "batch": train.batch_size,
                "length": train.length[1],
                "iterations": train_steps(configs[layer]),
                "steps/s": None if timed.seconds is None else 1 / timed.seconds,
                "GiB": bytes_needed(trained[layer]) / 2**30,
                "compile s": timed.compile_s,
            }
        )
    return rows
