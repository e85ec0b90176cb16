"""A complex diagonal recurrence and its real outputs, from the left or from both ends."""

from typing import Any

import jax
from jaxtyping import Array, Bool, Float

from lrnn_jax.parts.dense import project
from lrnn_jax.scans import scan_diagonal_complex
from lrnn_jax.scans.pairs import Pair


def read_states(
    lam: tuple[Float[Array, " N"], Float[Array, " N"]],
    b: tuple[Float[Array, "B T N"], Float[Array, "B T N"]],
    c: tuple[Float[Array, "*S D N"], Float[Array, "*S D N"]],
    *,
    state: Any,
    reset: Bool[Array, "B T"] | None,
    scan: str,
) -> tuple[Float[Array, "B T D"], Any]:
    """Computes ``y_t = Re(C h_t)`` with ``h_t = lam * h_{t-1} + b_t``; plus ``Re(C' h'_t)``, ``h'_t = lam * h'_{t+1} + b_t``.

    Args:
      lam: eigenvalues; complex numbers are pairs of a real and an imaginary part.
      b: inputs; products with C are in their dtype.
      c: C, or C and C' on one more axis, which makes the recurrence run from both ends.
      state: h before the first position; of no matter where it runs from both ends.
      reset: True where a new sequence starts.
      scan: method of `lrnn_jax.scans.scan_diagonal_complex`.

    Returns:
      ``(y, h_last)``, and ``()`` for the state where the recurrence runs from both ends.
    """
    both = c[0].ndim == 3
    c_forward = (c[0][0], c[1][0]) if both else c
    h, last = scan_diagonal_complex(lam, b, h0=None if both else state, reset=reset, method=scan)
    y = _read(h, c_forward, b[0].dtype)
    if not both:
        return y, last
    h, _ = scan_diagonal_complex(lam, b, reset=reset, method=scan, reverse=True)
    return y + _read(h, (c[0][1], c[1][1]), b[0].dtype), ()


def _read(h: Pair, c: Pair, dtype: Any) -> jax.Array:
    h_re, h_im = (part.astype(dtype) for part in h)
    # the matrix negated, and not its product: so both products have one cotangent, which is as large as the output
    return project(h_re, c[0].astype(dtype).T) + project(h_im, -c[1].astype(dtype).T)
