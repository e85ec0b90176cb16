"""What the last state of a linear recurrence keeps of its input: Vandermonde matrices, the gain of a ring, horizons.

``h_t = Lambda h_{t-1} + 1 u_t`` from ``h_0 = 0`` ends at ``h_T = V u`` with ``V[n, t] = lambda_n^(T - 1 - t)``: u can be had
back from h_T where V has full column rank, and as exactly as its condition number allows. The N eigenvalues of a real A are
closed under conjugation, so that N complex numbers h_T hold N real ones, whatever the eigenvalues are.

Source: Orvieto et al. 2023, Lemma 2 and Proposition 3. Orvieto et al. 2024 use the Vandermonde matrix; only that paper's
abstract could be read, and what is computed here is ours.
"""

import math

import numpy as np
import scipy.linalg
from jaxtyping import Complex, Float

Eigenvalues = Complex[np.ndarray, " N"]

SPECTRA = ("uniform [-1, 1]", "uniform [0, 1]", "disk", "ring", "roots of unity")


def draw_ring(rng: np.random.Generator, count: int, r_min: float, r_max: float, max_phase: float = 2 * np.pi) -> Eigenvalues:
    """Draws eigenvalues uniform on ``r_min <= |lambda| <= r_max``, by Lemma 2 of Orvieto et al. 2023.

    ``|lambda|^2 = u1 (r_max^2 - r_min^2) + r_min^2``, phase ``u2 max_phase``, u1 and u2 uniform.

    Args:
      rng: random numbers.
      count: N.
      r_min: smallest absolute value, at least 0.
      r_max: largest.
      max_phase: largest phase, radians.
    """
    radius = np.sqrt(rng.uniform(size=count) * (r_max**2 - r_min**2) + r_min**2)
    return radius * np.exp(1j * max_phase * rng.uniform(size=count))


def draw_spectrum(name: str, rng: np.random.Generator, count: int, radius: float = 1.0) -> Eigenvalues:
    """Draws the eigenvalues of a real matrix, scaled by ``radius``.

    Args:
      name: one of `SPECTRA`; "disk" is uniform on the unit disk, "ring" on absolute values from 0.99 to 1.
      rng: random numbers.
      count: N, even.
      radius: factor.

    Raises:
      ValueError: another name, or an odd count.
    """
    if name not in SPECTRA:
        raise ValueError(f"name: {name!r} is not one of {', '.join(SPECTRA)}")
    if count % 2:
        raise ValueError(f"count: {count} is odd, and complex eigenvalues come in pairs")
    if name.startswith("uniform"):
        return radius * rng.uniform(-1.0 if "-1" in name else 0.0, 1.0, count).astype(complex)
    if name == "roots of unity":
        return radius * np.exp(2j * np.pi * np.arange(count) / count)
    half = draw_ring(rng, count // 2, 0.0 if name == "disk" else 0.99, 1.0, np.pi)
    return radius * np.concatenate([half, half.conj()])


def make_vandermonde(lam: Eigenvalues, steps: int) -> Complex[np.ndarray, "N T"]:
    """Returns ``V[n, t] = lambda_n^(T - 1 - t)`` in complex128: what the recurrence applies to its input."""
    return lam[:, None] ** np.arange(steps - 1, -1, -1)


def condition_number(lam: Eigenvalues, steps: int) -> float:
    """Returns ``s_1 / s_min`` of the Vandermonde matrix, with min(N, T) singular values.

    Numerics: float64 cannot tell condition numbers beyond 1e16 or so from each other.
    """
    s = np.linalg.svd(make_vandermonde(lam, steps), compute_uv=False)
    return float(s[0] / s[-1]) if s[-1] > 0 else math.inf


def run_recurrence(lam: Eigenvalues, u: Float[np.ndarray, "S T"], dtype: str) -> Complex[np.ndarray, "S N"]:
    """Returns the last state of ``h_t = lambda h_{t-1} + u_t`` for S inputs, computed step by step in ``dtype``.

    Args:
      lam: eigenvalues.
      u: inputs.
      dtype: "float32" or "float64", of the real and of the imaginary parts.
    """
    kind = np.result_type(dtype, np.complex64)
    lam, u = lam.astype(kind), u.astype(dtype)
    h = np.zeros((len(u), len(lam)), kind)
    for t in range(u.shape[1]):
        h = lam * h + u[:, t : t + 1]
    return h


def reconstruct(
    lam: Eigenvalues, h: Complex[np.ndarray, "S N"], steps: int, basis: Float[np.ndarray, "T P"] | None = None
) -> Float[np.ndarray, "S T"]:
    """Returns the inputs that explain last states best: least squares in the states' own precision.

    Args:
      lam: eigenvalues.
      h: last states of S inputs.
      steps: T, of the inputs.
      basis: columns whose span the inputs are known to lie in; all inputs if None.

    Numerics: singular values below ``eps max(N, T)`` of the largest are taken for zero, so that directions that the precision
      cannot tell come out as 0 and not as noise.
    """
    matrix = make_vandermonde(lam, steps)
    if basis is not None:
        matrix = matrix @ basis
    # real unknowns, real equations: real and imaginary parts below each other
    matrix = np.concatenate([matrix.real, matrix.imag]).astype(h.real.dtype)
    # SciPy's, because NumPy's computes in float64 whatever it is given
    smallest = np.finfo(matrix.dtype).eps * max(len(lam), steps)
    found = scipy.linalg.lstsq(matrix, np.concatenate([h.real, h.imag], axis=1).T, cond=smallest, check_finite=False)[0].T
    return found if basis is None else found @ basis.T.astype(found.dtype)


def ring_gain(r_min: float, r_max: float) -> float:
    """Returns ``E|x|^2 / E|B u|^2`` of a stationary recurrence with eigenvalues uniform on a ring (Proposition 3).

    ``1 / (r_max^2 - r_min^2) log((1 - r_min^2) / (1 - r_max^2))``, and ``1 / (1 - r^2)`` where both are r.

    Args:
      r_min: smallest absolute value, at least 0.
      r_max: largest, below 1.

    Raises:
      ValueError: other radii.
    """
    if not 0.0 <= r_min <= r_max < 1.0:
        raise ValueError(f"r_min: {r_min} and r_max={r_max} must satisfy 0 <= r_min <= r_max < 1")
    if r_min == r_max:
        return 1.0 / (1.0 - r_max**2)
    return math.log((1.0 - r_min**2) / (1.0 - r_max**2)) / (r_max**2 - r_min**2)


def measure_gain(
    lam: Complex[np.ndarray, "*R N"], b: Complex[np.ndarray, "*R N"], u: Float[np.ndarray, "*R T"]
) -> Float[np.ndarray, " *R"]:
    """Returns ``|x_T|^2 / |b|^2`` of ``x_t = lambda x_{t-1} + b u_t`` from ``x_0 = 0``, in float64, for R runs side by side."""
    x = np.zeros(np.broadcast_shapes(lam.shape, b.shape), complex)
    for t in range(u.shape[-1]):
        x = lam * x + b * u[..., t, None]
    return np.sum(np.abs(x) ** 2, axis=-1) / np.sum(np.abs(b) ** 2, axis=-1)


def gradient_norms(lam: Eigenvalues, steps: int) -> Float[np.ndarray, " T"]:
    """Returns ``|d h_T / d u_{T-k}| / |d h_T / d u_T| = sqrt(mean_n |lambda_n|^(2k))`` for k = 0, ..., T - 1."""
    return np.sqrt(np.mean(np.abs(lam)[:, None] ** (2 * np.arange(steps)), axis=0))


def horizon(values: Float[np.ndarray, " T"], bound: float) -> int:
    """Returns how many values come before the first that is above ``bound``: all of them where none is."""
    above = np.flatnonzero(~(values <= bound))
    return int(above[0]) if above.size else len(values)
