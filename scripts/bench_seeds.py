"""Many seeds in one program against the same runs one after another.

    python scripts/bench_seeds.py [CONFIG] [S ...]

First the claim as a user meets it: `lrnn train --config.seeds=8` against eight commands `lrnn train --config.seed=i`, start-up
and compilation included. Then, for each S (default 1 2 4 8 16 32), milliseconds per training step of one compiled program with
S members, compilation not included, and how many times faster that is than S steps of a single one.
"""

import subprocess
import sys
import tempfile
import time

import jax

from lrnn_jax.bench.measuring import take_turns
from lrnn_jax.bench.steps import prepare_steps
from lrnn_jax.config.files import load_config
from lrnn_jax.config.identity import split_seeds
from lrnn_jax.training.program import make_program

SEEDS, ROUNDS = 8, 5


def time_command(*arguments: str) -> float:
    """Returns the seconds that an ``lrnn`` command takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "lrnn_jax", *arguments], check=True, capture_output=True)
    return time.perf_counter() - began


def milliseconds_per_step(spec: str, members: int) -> float:
    """Returns the median over a few dispatches of a program with ``members`` seeds."""
    config = load_config(spec)
    config.seeds = members
    steps = prepare_steps(make_program(*split_seeds(config)), config.train.steps_per_dispatch)
    seconds = take_turns({spec: steps}, ROUNDS)[spec].seconds
    assert seconds is not None
    return seconds * 1e3


def main() -> None:
    """Runs both comparisons and prints them."""
    spec = sys.argv[1] if len(sys.argv) > 1 else "configs/parity.py"
    sizes = [int(word) for word in sys.argv[2:]] or [1, 2, 4, 8, 16, 32]
    with tempfile.TemporaryDirectory() as folder:
        train = ("train", f"--config={spec}")
        together = time_command(*train, f"--config.seeds={SEEDS}", f"--workdir={folder}/together")
        print(f"{spec} on {jax.devices()[0].device_kind}: {SEEDS} seeds in one program {together:.1f} s", flush=True)
        apart = sum(time_command(*train, f"--config.seed={i}", f"--workdir={folder}/{i}") for i in range(SEEDS))
        print(f"one after another {apart:.1f} s; together / apart {together / apart:.2f}", flush=True)
    single = milliseconds_per_step(spec, 1)
    for members in sizes:
        ms = single if members == 1 else milliseconds_per_step(spec, members)
        print(f"S={members:<4} {ms:8.3f} ms per step   {members * single / ms:6.2f} times S single steps", flush=True)


if __name__ == "__main__":
    main()
