"""Training throughput: K steps per compiled call with data made on the device, against a Python loop with data from the host.

    python scripts/bench_training.py [CONFIG]

Ways of training the same config from the same state, taken in turn several times in one process:

* ours: `Program.advance`, as the training loop calls it; metric sums run over every step and are read once per call;
* dataset: one compiled step per call, batches from a map-style data set that seeds one generator per example and collates
  them, as the papers' released code does; the step's metrics are read and added up, so that the log is the same as ours;
* numpy: the same with batches from vectorised NumPy;
* dataset, blind and numpy, blind: nothing is ever read back, so the loop runs ahead of the device and the log has no metrics.

Prints medians of milliseconds per step, and of the ratio to ours within each round.
"""

import collections
import functools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.config.files import load_config
from lrnn_jax.tasks.base import Batch
from lrnn_jax.training.program import make_program
from lrnn_jax.training.steps import TrainState, TrainStep

ROUNDS, STEPS = 7, 400


def numpy_batch(step: int, size: int, length: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """A parity batch from whole-array NumPy."""
    rng = np.random.default_rng(step)
    lengths = rng.integers(length[0], length[1] + 1, size, dtype=np.int32) - 1
    bits = rng.integers(0, 2, (size, length[1]), dtype=np.int32)
    inside = np.arange(length[1])[None] < lengths[:, None]
    targets = np.where(inside, bits, 0).sum(axis=1, dtype=np.int32) % 2
    return np.where(inside, bits + 1, 0), targets, np.ones(size, np.float32), lengths


def dataset_batch(step: int, size: int, length: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """A parity batch from a map-style data set: one seeded generator per example, then collation."""
    rows = []
    for i in range(size):
        rng = np.random.default_rng(step * size + i)
        n = int(rng.integers(length[0], length[1] + 1)) - 1
        bits = rng.integers(0, 2, n)
        padded = np.zeros(length[1], np.int32)
        padded[:n] = bits + 1
        rows.append((padded, np.int32(bits.sum() % 2), np.float32(1.0), np.int32(n)))
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


def main() -> None:
    """Runs the comparison and prints it."""
    spec = sys.argv[1] if len(sys.argv) > 1 else "configs/parity.py"
    program = make_program(load_config(spec))
    if program.config.task.name != "parity":
        sys.exit("the host-made batches are parity's: give a parity config")
    step, per_call = program.step, program.config.train.steps_per_dispatch

    @functools.partial(jax.jit, donate_argnums=0)
    def one_step(state: TrainState, batch: Batch) -> Any:
        return TrainStep.step(step, program.hyper, jax.tree.map(lambda x: x[None], batch), jnp.int32(0), (state, {}))

    def ours(state: TrainState) -> TrainState:
        for _ in range(STEPS // per_call):
            state, sums = program.advance(state, per_call, start=0)
            jax.device_get(sums)
        return state

    def loop(make: Callable[..., tuple[np.ndarray, ...]], *, read: bool) -> Callable[[TrainState], TrainState]:
        def run(state: TrainState) -> TrainState:
            totals: collections.Counter[str] = collections.Counter()
            for number in range(STEPS):
                batch = Batch(*map(jnp.asarray, make(number, step.batch_size, step.length)))
                state, sums = one_step(state, batch)
                if read:
                    totals.update({name: float(total) for name, (total, _) in jax.device_get(sums).items()})
            return state

        return run

    ways = {
        "ours": ours,
        "dataset": loop(dataset_batch, read=True),
        "numpy": loop(numpy_batch, read=True),
        "dataset, blind": loop(dataset_batch, read=False),
        "numpy, blind": loop(numpy_batch, read=False),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(ROUNDS + 1):
        for name, run in ways.items():
            state: Any = jax.block_until_ready(program.init())
            began = time.perf_counter()
            jax.block_until_ready(run(state))
            if i:  # the first round compiles
                times[name].append((time.perf_counter() - began) / STEPS * 1e3)
    print(f"{spec}: medians of {ROUNDS} rounds of {STEPS} steps, batch {step.batch_size}")
    for name, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, times["ours"], strict=True))
        print(f"{name:<15} {statistics.median(values):7.3f} ms per step   {ratio:5.2f} times ours")


if __name__ == "__main__":
    main()
