"""Studies behind the small figures of Orvieto et al. 2023 on eigenvalues: their place, response, gain and parametrisation."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from lrnn_jax.theory.memory import draw_ring, measure_gain, ring_gain


def study_eigenvalues(*, size: int, r_min: float, r_max: float, seed: int = 0) -> list[dict[str, Any]]:
    """Returns eigenvalues of a Glorot matrix, ``A_ij ~ N(0, 1/N)``, and of a diagonal drawn from the disk and from a ring.

    Args:
      size: N.
      r_min: of the ring.
      r_max: of the ring.
      seed: of all draws.
    """
    rng = np.random.default_rng(seed)
    drawn = {
        "Glorot matrix": np.linalg.eigvals(rng.normal(size=(size, size)) * size**-0.5),
        "disk": draw_ring(rng, size, 0.0, 1.0),
        f"ring [{r_min:g}, {r_max:g}]": draw_ring(rng, size, r_min, r_max),
    }
    return [{"from": name, "re": lam.real, "im": lam.imag} for name, values in drawn.items() for lam in values]


def study_impulse(
    *, steps: int, nu: float, phases: Sequence[float], states: int, points: int, seed: int = 0
) -> list[dict[str, Any]]:
    """Returns the impulse response ``lambda^k`` with ``lambda = exp(-nu + i theta)`` at some lags k.

    ``sum`` is ``|sum_{j <= k} lambda^j|``, what a constant input has added up to.

    Args:
      steps: L, the largest lag.
      nu: decay per step.
      phases: largest phases, in units of pi; theta is uniform below each.
      states: eigenvalues of each range of phases; the same fractions of every range.
      points: lags that are kept.
      seed: of the phases.
    """
    fractions = np.random.default_rng(seed).uniform(size=states)
    rows = []
    for largest, (state, fraction) in itertools.product(phases, enumerate(fractions)):
        theta = largest * np.pi * fraction
        lam = np.exp(-nu + 1j * theta)
        for k in np.unique(np.linspace(0, steps, points).astype(int)):
            place = {"largest phase / pi": largest, "state": state, "theta": theta, "lag": int(k)}
            rows.append({**place, "response": (lam**k).real, "sum": abs((1 - lam ** (k + 1)) / (1 - lam))})
    return rows


def study_gains(
    *, size: int, steps: int, runs: int, rings: Sequence[tuple[float, float]], seed: int = 0
) -> list[dict[str, Any]]:
    """Returns the measured gain ``|x_L|^2 / |B u|^2`` of every run beside Proposition 3's.

    Args:
      size: N.
      steps: L.
      runs: of each ring, each with its own eigenvalues, B and input.
      rings: (r_min, r_max).
      seed: of all draws.
    """
    rng, rows = np.random.default_rng(seed), []
    for r_min, r_max in rings:
        lam = draw_ring(rng, runs * size, r_min, r_max).reshape(runs, size)
        b = rng.normal(size=(runs, size)) + 1j * rng.normal(size=(runs, size))
        inputs = {"constant": np.ones((runs, steps)), "random": rng.normal(size=(runs, steps))}
        for name, u in inputs.items():
            for run, gain in enumerate(measure_gain(lam, b, u)):
                place = {"r_min": r_min, "r_max": r_max, "input": name, "run": run}
                rows.append({**place, "gain": gain, "closed form": ring_gain(r_min, r_max)})
    return rows


def study_landscape(
    *, power: int, radius: float, phases: Sequence[float], offset: float, steps: int, lrs: Sequence[float], every: int
) -> list[dict[str, Any]]:
    """Returns the loss ``|lambda^k - target^k|^2 / 2`` while Adam moves lambda, by its parametrisation.

    "Re+Im": ``lambda = a + i b``. "Exp": ``lambda = exp(-nu + i theta)``. Both start at the target's absolute value.

    Args:
      power: k.
      radius: absolute value of the target.
      phases: of the targets, in units of pi.
      offset: of the start's phase from the target's, radians.
      steps: of Adam.
      lrs: learning rates.
      every: steps from one kept loss to the next.
    """
    rows = []
    for lr, phase, name in itertools.product(lrs, phases, ("Re+Im", "Exp")):
        target = radius * np.exp(1j * np.pi * phase)
        losses = fit_power(name, target * np.exp(1j * offset), target, power=power, steps=steps, lr=lr)
        place = {"lr": lr, "phase / pi": phase, "parametrisation": name}
        rows += [{**place, "step": step, "loss": losses[step]} for step in range(0, steps + 1, every)]
    return rows


def fit_power(name: str, start: complex, target: complex, *, power: int, steps: int, lr: float) -> Float[np.ndarray, " S"]:
    """Returns the losses ``|lambda^k - target^k|^2 / 2`` before and after each step of Adam (0.9, 0.999, 1e-8).

    Args:
      name: "Re+Im" or "Exp", as in `study_landscape`.
      start: lambda before the first step.
      target: where the loss is 0.
      power: k.
      steps: of Adam.
      lr: its learning rate.
    """
    log = np.log(start)
    x = np.array([start.real, start.imag] if name == "Re+Im" else [-log.real, log.imag])
    m, v, losses = np.zeros(2), np.zeros(2), []
    for step in range(1, steps + 2):
        lam = complex(*x) if name == "Re+Im" else np.exp(complex(-x[0], x[1]))
        error = lam**power - target**power
        losses.append(0.5 * abs(error) ** 2)
        by_lam = power * lam ** (power - 1)
        moves = (1.0, 1j) if name == "Re+Im" else (-lam, 1j * lam)  # d lambda / d x
        g = np.array([(np.conj(error) * by_lam * move).real for move in moves])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - lr * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return np.array(losses)
