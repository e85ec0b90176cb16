"""Products of full matrices, kept at norm 1 with the logarithm of the norm beside them."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from lrnn_jax.scans.checks import check_arrays
from lrnn_jax.scans.exact import matmul
from lrnn_jax.scans.method import Serves, choose_method
from lrnn_jax.scans.recurrence import keep_mask, run_recurrence

METHODS = {"sequential": Serves(), "associative": Serves()}
# A product whose squared norm is below this is left as it is: what has become zero stays so, with finite gradients.
TINY = 1e-30

Scaled = tuple[Float[Array, "..."], Float[Array, "..."]]


@check_arrays
def scan_product(
    a: Float[Array, "B T N N"],
    *,
    h0: tuple[Float[Array, "B N N"], Float[Array, " B"]] | None = None,
    reset: Bool[Array, "B T"] | None = None,
    method: str = "auto",
) -> tuple[tuple[Float[Array, "B T N N"], Float[Array, "B T"]], tuple[Float[Array, "B N N"], Float[Array, " B"]]]:
    """Computes ``H_t = a_t H_{t-1}`` as ``(H_t / ||H_t||, log ||H_t||)``, with Frobenius norms: no length overflows.

    Args:
      a: the factors.
      h0: state before the first position, as pair; the identity if None.
      reset: True where a new sequence starts, from the identity.
      method: ``"sequential"``, ``"associative"`` (O(T N^2) memory, several times over), or ``"auto"`` (sequential on a CPU,
        associative elsewhere).

    Returns:
      ``(hs, h_last)``, pairs of normalised matrix and logarithm of the norm, in float32.

    Raises:
      ValueError: unknown method, or arrays that do not fit, see `check_arrays`.

    Source: Grazzi et al. 2025, Eq. 1 with B = 0.
    Numerics: a matrix whose squared norm is below 1e-30, such as zero, is not normalised.

    Example: powers of 2.

    >>> (h, log_norm), h_last = scan_product(np.full((1, 3, 1, 1), 2.0))
    >>> np.exp(log_norm).round(4).tolist()
    [[2.0, 4.0, 8.0]]
    """
    method = choose_method(method, METHODS, accelerator="associative", steps=a.shape[1])
    a = a.astype(jnp.float32)
    h0 = start_product(a.shape[0], a.shape[-1]) if h0 is None else jax.tree.map(lambda x: x.astype(jnp.float32), h0)
    keep = keep_mask(reset)
    if method == "sequential":
        return run_recurrence(_step, (), h0, (a, keep), emits_state=True)
    return _associative(a, h0, keep)


def start_product(batch: int, size: int) -> tuple[jax.Array, jax.Array]:
    """Returns the identity as a pair of normalised matrix and logarithm of the norm."""
    identity = jnp.broadcast_to(jnp.eye(size, dtype=jnp.float32) * size**-0.5, (batch, size, size))
    return identity, jnp.full((batch,), 0.5 * jnp.log(jnp.float32(size)))


def _step(_: tuple, h: Scaled, x: tuple[jax.Array, Any]) -> tuple[Scaled, Scaled]:
    a, keep = x
    if keep is not None:
        h = _choose(keep > 0.5, h, start_product(a.shape[0], a.shape[-1]))
    h = _multiply((a, jnp.zeros_like(h[1])), h)
    return h, h


def _associative(a: jax.Array, h0: Scaled, keep: jax.Array | None) -> tuple[Scaled, Scaled]:
    cut = jnp.zeros(a.shape[:2], bool) if keep is None else keep < 0.5

    def combine(left: tuple[Scaled, jax.Array], right: tuple[Scaled, jax.Array]) -> tuple[Scaled, jax.Array]:
        (earlier, before), (later, here) = left, right
        return _choose(here, later, _multiply(later, earlier)), before | here

    products, cut = lax.associative_scan(combine, (_normalise(a, jnp.zeros(a.shape[:2])), cut), axis=1)
    first = start_product(a.shape[0], a.shape[-1])
    start = jax.tree.map(lambda x: jnp.broadcast_to(x[:, None], (*a.shape[:2], *x.shape[1:])), (first, h0))
    hs = _multiply(products, _choose(cut, *start))
    return hs, jax.tree.map(lambda x: x[:, -1], hs)


def _multiply(later: Scaled, earlier: Scaled) -> Scaled:
    return _normalise(matmul(later[0], earlier[0]), later[1] + earlier[1])


def _normalise(matrix: jax.Array, log_norm: jax.Array) -> Scaled:
    square = jnp.sum(matrix * matrix, axis=(-2, -1))
    square = jnp.where(square > TINY, square, 1.0)
    return matrix * lax.rsqrt(square)[..., None, None], log_norm + 0.5 * jnp.log(square)


def _choose(condition: jax.Array, yes: Scaled, no: Scaled) -> Scaled:
    return jnp.where(condition[..., None, None], yes[0], no[0]), jnp.where(condition, yes[1], no[1])
