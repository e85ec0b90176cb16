"""What keeping less (`model.remat`) and compiling one block for all (`model.scan_blocks`) save, and what they cost.

    python scripts/bench_blocks.py [LAYER] [BLOCKS] [ROWS] [LENGTH] [WIDTH]

Defaults: DeltaNet, 8 blocks, 8 rows of 512 positions, width 64, float32, SwiGLU mixers and the head "token". Prints for each
combination the seconds to trace and compile the gradients of a cross-entropy, XLA's temporary memory of that program, and
the median of the milliseconds of a call. The combinations take turns, after all of them are compiled.
"""

import itertools
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lrnn_jax.models.backbone import Backbone
from lrnn_jax.registry import load_layer

VOCABULARY, ROUNDS = 64, 5


def compile_gradients(model: Backbone, tokens: jax.Array) -> tuple[Any, Any, float]:
    """Returns a compiled function of (params, tokens), its parameters, and the seconds that it took to trace and compile."""
    params = jax.jit(model.init)(jax.random.key(0), tokens[:, :2])["params"]

    def compute_loss(params: Any, tokens: jax.Array) -> jax.Array:
        logits, _ = model.apply({"params": params}, tokens)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, tokens))

    began = time.perf_counter()
    compiled = jax.jit(jax.value_and_grad(compute_loss)).lower(params, tokens).compile()
    return compiled, params, time.perf_counter() - began


def milliseconds(function: Any, *args: Any) -> float:
    """Returns the wall time of one call."""
    began = time.perf_counter()
    jax.block_until_ready(function(*args))
    return (time.perf_counter() - began) * 1e3


def main() -> None:
    """Reads the arguments, compiles the four combinations and prints a line for each."""
    name = sys.argv[1] if len(sys.argv) > 1 else "deltanet"
    given = [int(word) for word in sys.argv[2:]]
    blocks, rows, length, width = (*given, *(8, 8, 512, 64)[len(given) :])
    tokens = jax.random.randint(jax.random.key(1), (rows, length), 0, VOCABULARY)
    device = f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
    print(f"{device}: {blocks} blocks of {name}, {rows} rows of {length}, width {width}")
    print(f"{'remat':<8}{'scan_blocks':<13}{'compiling':>11}{'temporary':>15}{'a call':>14}", flush=True)
    made: dict[tuple[bool, bool], Any] = {}
    times: dict[tuple[bool, bool], list[float]] = {}
    for remat, scan_blocks in itertools.product((False, True), repeat=2):
        fields: Any = {"mixer": "swiglu", "mixer_hidden": 2 * width, "remat": remat, "scan_blocks": scan_blocks}
        model = Backbone(load_layer(name), (), VOCABULARY, VOCABULARY, width, blocks, **fields)
        made[remat, scan_blocks], times[remat, scan_blocks] = compile_gradients(model, tokens), []
    for _ in range(1 + ROUNDS):
        for key, (compiled, params, _) in made.items():
            times[key].append(milliseconds(compiled, params, tokens))
    for (remat, scan_blocks), (compiled, _, seconds) in made.items():
        megabytes = compiled.memory_analysis().temp_size_in_bytes / 2**20
        median = statistics.median(times[remat, scan_blocks][1:])
        print(f"{remat!s:<8}{scan_blocks!s:<13}{seconds:>9.1f} s{megabytes:>11.1f} MiB{median:>11.1f} ms", flush=True)


if __name__ == "__main__":
    main()
