"""HiPPO-LegS and its eigenvalues, in NumPy and float64: the initial values of S4, S4D and S5."""

import numpy as np
from jaxtyping import Complex, Float

# N of the largest matrix whose eigenvectors are computed, which takes N^3 operations and 32 N^2 bytes.
MOST = 2048


def make_hippo_n(size: int) -> tuple[Complex[np.ndarray, " N"], Complex[np.ndarray, "N N"]]:
    """Returns the eigenvalues and, as columns, the orthonormal eigenvectors of HiPPO-N, which is ``A + P P^T``.

    HiPPO-LegS is ``A[n, k] = -sqrt((2n + 1)(2k + 1))`` below the diagonal, ``-(n + 1)`` on it and 0 above, and
    ``P[n] = sqrt(n + 1/2)``. The sum is -1/2 plus a skew-symmetric matrix, so that all eigenvalues have the real part -1/2.
    They are sorted by imaginary part: numbers j and N - 1 - j are each other's conjugates.

    Args:
      size: N, at least 1.

    Source: Gu et al. 2022 (S4), Theorem 1; Smith et al. 2023 (S5), Section 2.3.
    """
    root = np.sqrt(np.arange(size) + 0.5)
    below = np.tril(root[:, None] * root[None], -1)
    # i times a skew-symmetric matrix is Hermitian
    frequencies, vectors = np.linalg.eigh(-1j * (below.T - below))
    return -0.5 + 1j * frequencies, vectors


def make_hippo_legs(size: int) -> tuple[Float[np.ndarray, "N N"], Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Returns A, P and ``B[n] = sqrt(2n + 1)`` of HiPPO-LegS, as `make_hippo_n` defines them.

    Source: Gu et al. 2022 (S4), Eq. 2 and Theorem 1.
    """
    n = np.arange(size)
    b = np.sqrt(2.0 * n + 1.0)
    return -np.tril(b[:, None] * b[None], -1) - np.diag(n + 1.0), np.sqrt(n + 0.5), b
