"""Time in chunks: what the chunked forms fill up, cut, run one after the other and join."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Tree = Any


def split(x: jax.Array, size: int, *, fill: int = 0) -> jax.Array:
    """Cuts ``[B T ...]`` into ``[B N C ...]``.

    Args:
      x: array with time second.
      size: positions C of a chunk.
      fill: what fills up the last chunk. Zeros write nothing and are read by nobody; what multiplies a state needs a 1.
    """
    end = -x.shape[1] % size
    x = jnp.pad(x, [(0, 0), (0, end), *[(0, 0)] * (x.ndim - 2)], constant_values=fill)
    return x.reshape(x.shape[0], x.shape[1] // size, size, *x.shape[2:])


def join(x: jax.Array, steps: int) -> jax.Array:
    """Puts ``[B N C ...]`` back together and cuts off what filled up the last chunk: ``[B T ...]`` with T = ``steps``."""
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:])[:, :steps]


def chunks_first(x: jax.Array) -> jax.Array:
    """``[B N C ...]`` to ``[N B C ...]``, as loops over chunks want it, and back."""
    return jnp.swapaxes(x, 0, 1)


def run_chunks(run: Callable[[Tree, Tree], tuple[Tree, jax.Array]], h0: Tree, chunks: Tree, steps: int) -> tuple[Any, Tree]:
    """Runs ``h, y = run(h, chunk)`` over one chunk after the other; the backward pass computes each once more.

    Args:
      run: function of a state and a chunk, whose arrays are ``[B C ...]``.
      h0: state before the first chunk.
      chunks: pytree of ``[B N C ...]`` arrays.
      steps: positions T.

    Returns:
      ``(y, h_last)``: outputs ``[B T ...]`` and the state after the last chunk.
    """
    last, y = lax.scan(jax.checkpoint(run, prevent_cse=False), h0, jax.tree.map(chunks_first, chunks))
    return join(chunks_first(y), steps), last
