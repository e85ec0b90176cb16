"""Training throughput: K steps per compiled call with data made on the device, against a Python loop with data from the host.

    python scripts/bench_training.py [CONFIG]

Three ways of training the same config from the same state, taken in turn several times in one process:

* ours: `train_many`, as the trainer calls it;
* numpy: one compiled step per call, batches from vectorised NumPy;
* dataset: one compiled step per call, batches from a map-style data set that seeds one generator per example and collates
  them, as the papers' released code does.

Neither Python loop reads anything back, so both are the best case of their kind. Prints medians of steps/s and ratios.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.config import load_config
from lrnn_jax.tasks.base import Batch
from lrnn_jax.training.steps import Trainable, TrainState, init_state, train_many
from lrnn_jax.training.trainer import make_program

ROUNDS, STEPS = 7, 200


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
    trainable, seed = program.trainable, jnp.uint32(0)
    per_call = program.config.train.steps_per_dispatch
    one_step = jax.jit(Trainable.step, static_argnums=0, donate_argnums=1)

    def ours(state: TrainState) -> TrainState:
        for _ in range(STEPS // per_call):
            state, _ = train_many(trainable, state, seed, per_call)
        return state

    def loop(make: Callable[..., tuple[np.ndarray, ...]]) -> Callable[[TrainState], TrainState]:
        def run(state: TrainState) -> TrainState:
            for step in range(STEPS):
                batch = Batch(*map(jnp.asarray, make(step, trainable.batch_size, trainable.length)))
                state, _ = one_step(trainable, state, seed, batch)
            return state

        return run

    ways = {"ours": ours, "numpy": loop(numpy_batch), "dataset": loop(dataset_batch)}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(ROUNDS + 1):
        for name, run in ways.items():
            state: Any = jax.block_until_ready(init_state(trainable.model, trainable.optimizer, seed))
            began = time.perf_counter()
            jax.block_until_ready(run(state))
            if i:  # the first round compiles
                rates[name].append(STEPS / (time.perf_counter() - began))
    print(f"{spec}: median of {ROUNDS} rounds of {STEPS} steps, batch {trainable.batch_size}")
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(rates["ours"], values, strict=True))
        print(f"{name:<8} {statistics.median(values):8.1f} steps/s   ours / {name}: {ratio:.2f}")


if __name__ == "__main__":
    main()
