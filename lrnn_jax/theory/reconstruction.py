"""Studies of how much of its input a linear recurrence's last state holds (`lrnn_jax.theory.memory`), by spectrum and size."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from lrnn_jax.theory.memory import (
    SPECTRA,
    condition_number,
    draw_spectrum,
    gradient_norms,
    horizon,
    make_vandermonde,
    reconstruct,
    run_recurrence,
)

DTYPES = ("float32", "float64")


def study_reconstruction(
    *,
    steps: int,
    ratios: Sequence[float],
    radii: Sequence[float],
    lengths: Sequence[int],
    dimensions: int,
    sequences: int = 16,
    draws: int = 3,
) -> list[dict[str, Any]]:
    """Returns the error of reconstruction by least squares beside the condition number, over N/T, radius and T.

    ``error = |u_hat - u| / |u|`` over all sequences of a draw of eigenvalues; the median over the draws, as of the condition
    number. Three walks from N = T = ``steps`` and radius 1: over ``ratios`` N/T, over ``radii``, over ``lengths`` with N = T.
    Inputs are white noise; over the ratios also combinations of the ``dimensions`` lowest cosines, which the decoder knows.

    Args:
      steps: T of the first two walks.
      ratios: N/T.
      radii: factors of the eigenvalues.
      lengths: T of the third walk.
      dimensions: P of the smooth inputs.
      sequences: per draw.
      draws: of eigenvalues.
    """
    places = [("N/T", "white noise", steps, round(ratio * steps), 1.0) for ratio in ratios]
    places += [("N/T", f"smooth, P={dimensions}", steps, round(ratio * steps), 1.0) for ratio in ratios]
    places += [("radius", "white noise", steps, steps, radius) for radius in radii]
    places += [("T", "white noise", length, length, 1.0) for length in lengths]
    rows = []
    for (walk, data, length, count, radius), spectrum in itertools.product(places, SPECTRA):
        basis = make_cosines(length, dimensions) if data.startswith("smooth") else None
        # the same draws whatever else a list of arguments holds
        seeds = [np.random.SeedSequence([SPECTRA.index(spectrum), length, count, draw]) for draw in range(draws)]
        found = [_reconstruct_once(spectrum, length, count, radius, basis, sequences, seed) for seed in seeds]
        condition, *errors = (float(np.median(values)) for values in zip(*found, strict=True))
        place = {"walk": walk, "data": data, "spectrum": spectrum, "T": length, "N": count, "radius": radius}
        rows.append({**place, "condition": condition, **dict(zip(DTYPES, errors, strict=True))})
    return rows


def _reconstruct_once(
    spectrum: str, steps: int, count: int, radius: float, basis: Any, sequences: int, seed: np.random.SeedSequence
) -> list[float]:
    """Condition number, and errors by dtype."""
    rng = np.random.default_rng(seed)
    lam = draw_spectrum(spectrum, rng, count, radius)
    if basis is None:
        u, condition = rng.normal(size=(sequences, steps)), condition_number(lam, steps)
    else:
        u = rng.normal(size=(sequences, basis.shape[1])) @ basis.T
        condition = float(np.linalg.cond(make_vandermonde(lam, steps) @ basis))
    errors = []
    for dtype in DTYPES:
        given = u.astype(dtype)
        found = reconstruct(lam, run_recurrence(lam, given, dtype), steps, basis)
        errors.append(float(np.linalg.norm(found.astype(np.float64) - given) / np.linalg.norm(given)))
    return [condition, *errors]


def make_cosines(steps: int, count: int) -> np.ndarray:
    """Returns the ``count`` lowest cosines ``cos(pi p (t + 1/2) / T)`` with norm 1 as columns: they are orthogonal."""
    waves = np.cos(np.pi * np.arange(count) * (np.arange(steps)[:, None] + 0.5) / steps)
    return waves / np.linalg.norm(waves, axis=0)


def study_horizons(
    *,
    steps: int,
    count: int,
    radii: Sequence[float],
    vanished: float,
    tolerance: float,
    sequences: int = 64,
    draws: int = 3,
) -> list[dict[str, Any]]:
    """Returns how far back gradients reach and how far back the input is known, for eigenvalues scaled by each radius.

    Lag k counts from the last input. ``gradient`` is the number of lags whose gradient is at least ``vanished`` times that of
    lag 0; ``float32`` and ``float64`` that of lags whose input is reconstructed from h_T with a root mean square error of at
    most ``tolerance``, of inputs with variance 1, before the first that is not; the median over the draws.

    Args:
      steps: T.
      count: N.
      radii: factors of the eigenvalues.
      vanished: share of a gradient that counts as gone.
      tolerance: error of an input that counts as known.
      sequences: white noise, per draw.
      draws: of eigenvalues.
    """
    rows = []
    for spectrum, radius in itertools.product(("roots of unity", "ring", "disk", "uniform [-1, 1]"), radii):
        found = []
        for draw in range(draws):
            rng = np.random.default_rng([SPECTRA.index(spectrum), draw])
            lam, u = draw_spectrum(spectrum, rng, count, radius), rng.normal(size=(sequences, steps))
            reach = [horizon(-gradient_norms(lam, steps), -vanished)]
            for dtype in DTYPES:
                given = u.astype(dtype)
                errors = reconstruct(lam, run_recurrence(lam, given, dtype), steps).astype(np.float64) - given
                reach.append(horizon(np.sqrt(np.mean(errors[:, ::-1] ** 2, axis=0)), tolerance))
            found.append(reach)
        medians = [int(value) for value in np.median(found, axis=0)]
        rows.append({"spectrum": spectrum, "radius": radius, **dict(zip(("gradient", *DTYPES), medians, strict=True))})
    return rows
