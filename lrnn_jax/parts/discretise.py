"""From continuous time to positions: what the state space models S4, S4D and S5 share."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lrnn_jax.errors import UserError
from lrnn_jax.parts.hippo import MOST
from lrnn_jax.parts.layer import check_at_least
from lrnn_jax.scans.pairs import Pair, multiply

DISCRETISATIONS = ("zoh", "bilinear")
# Of the Taylor series of (exp(z) - 1) / z for |z| < 1/2: the first that is left out is below 1e-8.
TERMS = 9


def check_steps(fields: Mapping[str, Any]) -> None:
    """Refuses steps that are not in order.

    Raises:
      UserError: names both and the rule.
    """
    if not 0.0 < fields["dt_min"] <= fields["dt_max"] < math.inf:
        raise UserError(f"dt_min={fields['dt_min']} and dt_max={fields['dt_max']} must satisfy 0 < dt_min <= dt_max")


def check_state_size_and_steps(fields: Mapping[str, Any]) -> None:
    """Refuses what neither S4D nor S4 can be made of.

    Raises:
      UserError: an odd number of states, or steps that are not in order.
    """
    check_at_least(2, fields, "state_size")
    if fields["state_size"] % 2:
        raise UserError(f"state_size={fields['state_size']} must be even: states are pairs of conjugates")
    if fields["state_size"] > MOST:
        raise UserError(f"state_size={fields['state_size']} must be at most {MOST}, for the eigenvectors of HiPPO")
    check_steps(fields)


def discretise(lam: Pair, step: jax.Array, method: str) -> tuple[Pair, Pair]:
    """Returns ``Lambda_bar`` and ``B_bar / B`` of the continuous system ``h' = lam h + B u`` held for ``step``.

    Args:
      lam: eigenvalues as a pair of real and imaginary parts.
      step: time from one position to the next.
      method: "zoh" (``Lambda_bar = exp(lam step)``, ``B_bar = (Lambda_bar - 1) / lam B``) or "bilinear" (``Lambda_bar =
        (1 + lam step / 2) / (1 - lam step / 2)``, ``B_bar = step / (1 - lam step / 2) B``).
    """
    re, im = lam[0] * step, lam[1] * step
    if method == "bilinear":
        size = jnp.square(1.0 - re / 2) + jnp.square(im / 2)
        inverse = ((1.0 - re / 2) / size, im / 2 / size)
        return multiply(inverse, (1.0 + re / 2, im / 2)), (inverse[0] * step, inverse[1] * step)
    mean = _average_exponential((re, im))
    return _exponential((re, im)), (mean[0] * step, mean[1] * step)


def _average_exponential(z: Pair) -> Pair:
    """``(exp(z) - 1) / z``, below |z| = 1/2 by its Taylor series: there the quotient's gradient would lose most digits."""
    near = jnp.square(z[0]) + jnp.square(z[1]) < 0.25
    total = (jnp.ones_like(z[0]), jnp.zeros_like(z[1]))
    for k in range(TERMS, 1, -1):
        more = multiply(z, total)
        total = (1.0 + more[0] / k, more[1] / k)
    z = (jnp.where(near, 1.0, z[0]), jnp.where(near, 0.0, z[1]))
    size = jnp.square(z[0]) + jnp.square(z[1])
    above = _exponential(z)
    quotient = multiply((above[0] - 1.0, above[1]), (z[0] / size, -z[1] / size))
    return jnp.where(near, total[0], quotient[0]), jnp.where(near, total[1], quotient[1])


def _exponential(z: Pair) -> Pair:
    return jnp.exp(z[0]) * jnp.cos(z[1]), jnp.exp(z[0]) * jnp.sin(z[1])
