"""Complex numbers as pairs of real arrays, which a CPU multiplies several times faster than complex64."""

from typing import Any

import jax

# Real and imaginary parts: of anything.
Pair = tuple[jax.Array, jax.Array]


def multiply(x: tuple[Any, Any], y: tuple[Any, Any]) -> tuple[Any, Any]:
    """Returns ``x y``, elementwise; of NumPy arrays too, as a layer's parameters may be."""
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]
