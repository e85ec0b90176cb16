"""Driven ODE: follow a differential equation's state from the input that drives it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lrnn_jax.errors import UserError, suggest
from lrnn_jax.tasks.base import Batch, Example, Length
from lrnn_jax.tasks.regression import RegressionTask

# A right-hand side: (state [... O], input [...]) -> derivative [... O].
Derivative = Callable[[Float[Array, "*B O"], Float[Array, " *B"]], Float[Array, "*B O"]]


def move_proteins(y: Float[Array, "*B 5"], u: Float[Array, " *B"]) -> Float[Array, "*B 5"]:
    """Returns the derivative of the protein signalling transduction pathway of Vyshemirsky and Girolami 2008.

    ``S' = -k1 S - k2 S R + k3 RS + u``, ``D' = k1 S``, ``R' = -k2 S R + k3 RS + V P / (Km + P)``,
    ``RS' = k2 S R - k3 RS - k4 RS``, ``P' = k4 RS - V P / (Km + P)``, with P the activated R, which they call Rpp.

    Differs: u, which makes new S, is ours; theirs has none.
    """
    k1, k2, k3, k4, V, Km = 0.07, 0.6, 0.05, 0.3, 0.017, 0.3
    S, _, R, RS, P = jnp.moveaxis(y, -1, 0)
    bind, release, back = k2 * S * R, k3 * RS, V * P / (Km + P)
    return jnp.stack(
        [-k1 * S - bind + release + u, k1 * S, -bind + release + back, bind - release - k4 * RS, k4 * RS - back], axis=-1
    )


def move_populations(y: Float[Array, "*B 2"], u: Float[Array, " *B"]) -> Float[Array, "*B 2"]:
    """Returns the derivative of Lotka and Volterra's prey X and hunters Y: ``X' = X (1 + u - Y)``, ``Y' = Y (X - 1)``.

    The state is ``(log X, log Y)``, which stay finite. u, which changes how fast prey is born, is ours.
    """
    p, q = jnp.moveaxis(y, -1, 0)
    return jnp.stack([1.0 + u - jnp.exp(q), jnp.exp(p) - 1.0], axis=-1)


class System(NamedTuple):
    """A differential equation and how it is driven.

    Attributes:
      move: its right-hand side.
      start: state at time 0.
      time: that a sequence spans, whatever its length.
      low: smallest input.
      high: largest input.
      mean: of each number of the state, over the positions of a sequence.
      deviation: of the same.
    """

    move: Derivative
    start: tuple[float, ...]
    time: float
    low: float
    high: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


SYSTEMS: Mapping[str, System] = {
    "protein_transduction": System(
        move_proteins,
        start=(1.0, 0.0, 1.0, 0.0, 0.0),
        time=100.0,
        low=0.0,
        high=0.04,
        mean=(0.13, 0.55, 0.24, 0.063, 0.70),
        deviation=(0.069, 0.24, 0.062, 0.064, 0.116),
    ),
    "lotka_volterra": System(
        move_populations,
        start=(0.0, 0.0),
        time=15.0,
        low=-0.5,
        high=0.5,
        mean=(-0.14, -0.10),
        deviation=(0.52, 0.50),
    ),
}


@dataclasses.dataclass(frozen=True)
class DrivenODE(RegressionTask):
    """What is the state after each input? The system starts where it always does, and the input is all that is seen.

    ``y_t = y(t dt)`` with ``y' = f(y, u_t)`` during step t and ``dt = time / T``; targets are y less its mean, over its
    deviation. The model sees ``s_t``, a normal combination of ``waves`` sines and cosines with 1, 2, ... periods in a sequence,
    of variance 1 on the whole; the system is driven by ``u_t = low + (high - low) sigmoid(1.5 s_t)``.

    Attributes:
      system: "protein_transduction" or "lotka_volterra".
      waves: at least 1.

    Source: ours; Orvieto et al. 2024 learn ODE-driven sequences, but how theirs are driven could not be read. Equations and
    constants of the pathway: Vyshemirsky and Girolami 2008.
    Numerics: Runge-Kutta of order 4 with `SUBSTEPS` steps per position.
    """

    system: str = "protein_transduction"
    waves: int = 8

    EVAL_LENGTHS = ((64, 64),)
    HEADS = ("token",)
    MAX_LENGTH = 1024
    MIN_LENGTH = 16
    SUBSTEPS = 4

    def __post_init__(self) -> None:
        if self.system not in SYSTEMS:
            raise UserError(f"system={self.system!r} is not one of {', '.join(SYSTEMS)}{suggest(self.system, tuple(SYSTEMS))}")
        if self.waves < 1:
            raise UserError(f"waves={self.waves} must be at least 1")

    @property
    def outputs(self) -> int:
        return len(SYSTEMS[self.system].start)

    def example_spec(self, length: int) -> Example:
        shapes = ((length, 1), (length, self.outputs))
        return Example(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))

    def batch(self, key: jax.Array, size: int, length: Length, split: str = "train") -> Batch:
        system, steps = SYSTEMS[self.system], length[1]
        s = self._draw_waves(key, size, steps)
        u = system.low + (system.high - system.low) * jax.nn.sigmoid(1.5 * s)
        y = integrate(system, u, dt=system.time / steps, substeps=self.SUBSTEPS)
        mean, deviation = (jnp.asarray(values)[None, None] for values in (system.mean, system.deviation))
        targets = (y - mean) / deviation
        return Batch(s[..., None], targets, jnp.ones((size, steps)), jnp.full((size,), steps, jnp.int32))

    def _draw_waves(self, key: jax.Array, size: int, steps: int) -> Float[Array, "B T"]:
        """Of unit variance on the whole."""
        amplitudes = jax.random.normal(key, (size, 2, self.waves)) * self.waves**-0.5
        angles = 2 * np.pi * np.arange(1, self.waves + 1)[:, None] * np.arange(steps) / steps
        table = jnp.asarray(np.stack([np.sin(angles), np.cos(angles)]), jnp.float32)
        return jnp.einsum("bpk,pkt->bt", amplitudes, table, precision="highest")


def integrate(system: System, u: Float[Array, "B T"], *, dt: float, substeps: int) -> Float[Array, "B T O"]:
    """Returns the state at the end of every position, from the system's start, with the input constant during a position.

    Args:
      system: what moves.
      u: inputs.
      dt: time of one position.
      substeps: steps of Runge-Kutta's method of order 4 in it.
    """
    h, f = dt / substeps, system.move

    def step(y: jax.Array, u_t: jax.Array) -> tuple[jax.Array, jax.Array]:
        for _ in range(substeps):
            k1 = f(y, u_t)
            k2 = f(y + 0.5 * h * k1, u_t)
            k3 = f(y + 0.5 * h * k2, u_t)
            k4 = f(y + h * k3, u_t)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y, y

    start = jnp.broadcast_to(jnp.asarray(system.start, jnp.float32), (u.shape[0], len(system.start)))
    _, y = jax.lax.scan(step, start, u.T)
    return jnp.swapaxes(y, 0, 1)
