"""Every way of running every layer, forward and with all gradients: what `auto` should take on this device.

    python scripts/bench_methods.py [ROWS] [LENGTH] [WIDTH] [LAYER ...]

Defaults: 8 rows of 2048 positions, width 256 and every layer, float32 and each layer's default fields. Prints for each method
the median of milliseconds of one forward pass and of one with the gradients of parameters and input, and XLA's temporary memory
of the latter. The methods of a layer take turns, after all of them are compiled.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.registry import LAYERS, load_layer

ROUNDS = 7


def compile_method(layer: nn.Module, method: str, variables: Any, x: jax.Array) -> tuple[Any, Any]:
    """Returns two compiled functions of (variables, input): the outputs, and the gradients of a loss of them."""

    def run(variables: Any, x: jax.Array) -> jax.Array:
        return nn.apply(lambda m, x: m(x, scan=method)[0], layer)(variables, x)

    def compute_loss(variables: Any, x: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(run(variables, x)))

    forward, backward = (jax.jit(f).lower(variables, x).compile() for f in (run, jax.grad(compute_loss, argnums=(0, 1))))
    return forward, backward


def milliseconds(function: Callable[..., Any], *args: Any) -> float:
    """Returns the wall time of one call."""
    began = time.perf_counter()
    jax.block_until_ready(function(*args))
    return (time.perf_counter() - began) * 1e3


def bench(name: str, x: jax.Array) -> None:
    """Measures one layer and prints a line per method."""
    layer = load_layer(name)(width=x.shape[-1])
    variables = jax.jit(layer.init)(jax.random.key(0), x[:, :2])
    compiled = {method: compile_method(layer, method, variables, x) for method in layer.METHODS}
    times: dict[str, list[tuple[float, ...]]] = {method: [] for method in compiled}
    for _ in range(1 + ROUNDS):
        for method, functions in compiled.items():
            times[method].append(tuple(milliseconds(function, variables, x) for function in functions))
    for method, (_, backward) in compiled.items():
        forward_ms, backward_ms = (statistics.median(column) for column in zip(*times[method][1:], strict=True))
        megabytes = backward.memory_analysis().temp_size_in_bytes / 2**20
        print(f"{name:<16}{method:<13}{forward_ms:>9.2f} ms{backward_ms:>9.2f} ms{megabytes:>9.0f} MiB", flush=True)


def main() -> None:
    """Reads the arguments and measures one layer after the other."""
    given = [int(word) for word in sys.argv[1:4]]
    rows, length, width = (*given, *(8, 2048, 256)[len(given) :])
    x = jax.random.normal(jax.random.key(1), (rows, length, width))
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}: {rows} rows of {length}, width {width}, float32")
    print(f"{'layer':<16}{'method':<13}{'forward':>12}{'gradients':>12}{'temporary':>13}", flush=True)
    for name in sys.argv[4:] or LAYERS:
        bench(name, x)


if __name__ == "__main__":
    main()
