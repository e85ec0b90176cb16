"""Diagonal recurrences of one input and one output per channel, the same at every position, read out where they run."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from lrnn_jax.scans.checks import check_arrays
from lrnn_jax.scans.chunks import join, run_chunks, split
from lrnn_jax.scans.diagonal import scan_diagonal_complex
from lrnn_jax.scans.exact import einsum
from lrnn_jax.scans.method import Serves, choose_method
from lrnn_jax.scans.pairs import Pair, multiply
from lrnn_jax.scans.recurrence import cut, keep_mask, run_recurrence, start_state

METHODS = {
    "sequential": Serves(),
    "associative": Serves(),
    "chunked": Serves(reset=False),
    "convolution": Serves(reset=False),
}

# Positions of a chunk: as many of them as there are states cost as much within chunks as between them.
CHUNK = 64

Coefficients = tuple[Float[Array, "D N"], Float[Array, "D N"]]
State = tuple[Float[Array, "B D N"], Float[Array, "B D N"]]


class System(NamedTuple):
    """The coefficients of a call, pairs of float32 ``[D N]``."""

    a: Pair
    b: Pair
    c: Pair


@check_arrays
def scan_time_invariant(
    a: Coefficients,
    b: Coefficients,
    c: Coefficients,
    x: Float[Array, "B T D"],
    *,
    h0: State | None = None,
    reset: Bool[Array, "B T"] | None = None,
    method: str = "auto",
    reverse: bool = False,
) -> tuple[Float[Array, "B T D"], State]:
    """Computes ``h_t[d, n] = a[d, n] h_{t-1}[d, n] + b[d, n] x_t[d]`` and ``y_t[d] = Re(sum_n c[d, n] h_t[d, n])``.

    Coefficients and states are complex, as (real, imaginary) pairs of float32 arrays. No method holds ``[B T D N]``, in the
    backward pass either.

    Args:
      a: eigenvalues, of magnitude at most 1, or powers of them overflow.
      b: input weights.
      c: readout weights.
      x: input per position and channel.
      h0: state before the first position, or after the last one in reverse; zeros if None.
      reset: True where a new sequence starts, as for `scan_diagonal`.
      method: ``"sequential"`` (one state at a time), ``"associative"`` (an associative scan over 64 positions at a time),
        ``"chunked"`` (products with Toeplitz matrices within chunks of 64 positions, and a scan over their states),
        ``"convolution"`` (by FFT with the kernel ``k_j = Re(sum_n c a^j b)``), or ``"auto"``: chunked; where there are resets,
        which neither it nor the convolution takes, sequential on a CPU and associative elsewhere.
      reverse: computes ``h_t = a h_{t+1} + b x_t``, from the last position to the first.

    Returns:
      ``(y, h_last)`` in float32: outputs, and the state after the final step, which is that of position 0 in reverse.

    Raises:
      ValueError: unknown method, one that takes no resets, or arrays that do not fit, see `check_arrays`.

    Source: kernel and convolution: Gu et al. 2022, "On the Parameterization and Initialization of Diagonal State Space Models",
    Section 2; chunks: the state-space dual form of Dao and Gu 2024, for a transition that does not depend on t.
    Numerics: powers of ``a`` are products, so that 0 and -1 are exact; outputs of the convolution are off by float32's rounding
    of the largest output of their row, not of each.

    Example: a leaky sum, with one state.

    >>> half, one = ((np.full((1, 1), value), np.zeros((1, 1))) for value in (0.5, 1.0))
    >>> y, h_last = scan_time_invariant(half, one, one, np.ones((1, 3, 1)))
    >>> y.tolist()
    [[[1.0], [1.5], [1.75]]]
    """
    parallel = "chunked" if reset is None else "associative"
    cpu = "chunked" if reset is None and x.shape[1] > 1 else "sequential"
    needs = {"state": h0 is not None, "reset": reset is not None}
    method = choose_method(method, METHODS, accelerator=parallel, cpu=cpu, steps=x.shape[1], **needs)
    system, x = System(*((re.astype(jnp.float32), im.astype(jnp.float32)) for re, im in (a, b, c))), x.astype(jnp.float32)
    start, shape = (None, None) if h0 is None else h0, (x.shape[0], *a[0].shape)
    h0 = (start_state(start[0], shape), start_state(start[1], shape))
    if reverse:
        y, last = _run(method, system, x[:, ::-1], h0, _turn(reset))
        return y[:, ::-1], last
    return _run(method, system, x, h0, reset)


def _turn(reset: jax.Array | None) -> jax.Array | None:
    """The resets of flipped rows: what enters t from t + 1 is cut where t + 1 starts."""
    if reset is None:
        return None
    return jnp.concatenate([reset[:, 1:], jnp.zeros_like(reset[:, :1])], axis=1)[:, ::-1]


def _run(method: str, system: System, x: jax.Array, h0: Pair, reset: jax.Array | None) -> tuple[jax.Array, Pair]:
    if method == "sequential":
        return _run_steps(system, x, h0, reset)
    if method == "associative":
        return _run_associative(system, x, h0, reset)
    return (_run_chunks if method == "chunked" else _convolve)(system, x, h0)


def _run_steps(system: System, x: jax.Array, h0: Pair, reset: jax.Array | None) -> tuple[jax.Array, Pair]:
    """States are [B N D]: sums over N are then sums of rows."""
    turned = jax.tree.map(jnp.transpose, system)
    y, last = run_recurrence(_step, turned, _swap(h0), (x, keep_mask(reset)))
    return y, _swap(last)


def _step(system: System, h: Pair, x: tuple[jax.Array, jax.Array | None]) -> tuple[Pair, jax.Array]:
    (a, b, c), (u, keep) = jax.tree.map(lambda z: z[None], system), x
    moved, u = multiply(a, (cut(h[0], keep), cut(h[1], keep))), u[:, None]
    h = (moved[0] + b[0] * u, moved[1] + b[1] * u)
    return h, jnp.sum(c[0] * h[0] - c[1] * h[1], axis=1)


def _run_associative(system: System, x: jax.Array, h0: Pair, reset: jax.Array | None) -> tuple[jax.Array, Pair]:
    """Whole chunks, and what is left on its own: it cannot be filled up, for every position moves the state."""
    size = min(x.shape[1], CHUNK)
    whole = x.shape[1] - x.shape[1] % size
    run = functools.partial(_run_chunk, system)
    rows = (x, reset)
    y, h = run_chunks(run, h0, jax.tree.map(lambda z: split(z[:, :whole], size), rows), whole)
    if whole == x.shape[1]:
        return y, h
    h, rest = run(h, jax.tree.map(lambda z: z[:, whole:], rows))
    return jnp.concatenate([y, rest], axis=1), h


def _run_chunk(system: System, h: Pair, x: tuple[jax.Array, jax.Array | None]) -> tuple[Pair, jax.Array]:
    u, reset = x
    _, b, c = jax.tree.map(lambda z: z[None, None], system)
    states, last = scan_diagonal_complex(
        system.a, (b[0] * u[..., None], b[1] * u[..., None]), h0=h, reset=reset, method="associative"
    )
    return last, jnp.sum(c[0] * states[0] - c[1] * states[1], axis=-1)


def _run_chunks(system: System, x: jax.Array, h0: Pair) -> tuple[jax.Array, Pair]:
    """With s the state before a chunk: ``y_i = sum_{j <= i} k_{i-j} x_j + Re(sum_n c a^{i+1} s)`` within it."""
    a, b, c = system
    steps = x.shape[1]
    size = min(steps, CHUNK)
    powers = raise_to_powers(a, size + 1)  # [D C+1 N]
    # real and imaginary parts side by side: one product for both
    into = _join(multiply(_take(powers, slice(-2, None, -1)), _widen(b)))
    out_re, out_im = multiply(_take(powers, slice(1, None)), _widen(c))
    kernel = jnp.sum(multiply(_widen(multiply(c, b)), _take(powers, slice(size)))[0], axis=-1)

    rows = jnp.transpose(split(x, size), (3, 0, 1, 2))  # [D B chunks C], as products of each channel want it
    written = einsum("dbmj,djn->bmdn", rows[:, :, :-1], into)
    states, before = scan_diagonal_complex((powers[0][:, size], powers[1][:, size]), _part(written), h0=h0)
    starts = jnp.concatenate([_join(h0)[:, None], _join(states)], axis=1)
    y = einsum("dbmj,dij->bmid", rows, make_toeplitz(kernel)) + einsum("bmdn,din->bmid", starts, _join((out_re, -out_im)))

    left = steps - size * (rows.shape[2] - 1)  # of the last chunk, behind which there are zeros
    end = einsum("dbj,djn->bdn", rows[:, :, -1, :left], into[:, size - left :])
    return join(y, steps), _add(multiply((powers[0][None, :, left], powers[1][None, :, left]), before), _part(end))


def _convolve(system: System, x: jax.Array, h0: Pair) -> tuple[jax.Array, Pair]:
    """Powers of ``a`` up to T are products of small and of large ones, of which there are about sqrt(T) each."""
    a, b, c = system
    steps = x.shape[1]
    size = 1 << (max(steps - 1, 1).bit_length() + 1) // 2
    chunks = -(-steps // size)
    small = raise_to_powers(a, size + 1)
    large = raise_to_powers((small[0][:, size], small[1][:, size]), chunks + 1)
    small, low, high = _take(small, slice(size)), steps % size, steps // size

    def weigh(weights: Pair) -> jax.Array:
        """``Re(sum_n w a^t)`` for all t: ``[B D N]`` to ``[B D T]``."""
        weighted = multiply((weights[0][:, :, None], weights[1][:, :, None]), (large[0][None, :, :-1], large[1][None, :, :-1]))
        return _real_sum("bdmn,din->bdmi", weighted, small).reshape(*weights[0].shape[:2], chunks * size)[:, :, :steps]

    kernel = weigh(_one(multiply(c, b)))[0]
    y = convolve(x, kernel) + jnp.swapaxes(weigh(multiply(_one(multiply(c, a)), h0)), 1, 2)

    rows = jnp.pad(x, ((0, 0), (chunks * size - steps, 0), (0, 0))).reshape(x.shape[0], chunks, size, x.shape[2])
    written = [einsum("bmid,din->bdmn", rows, part[:, ::-1]) for part in small]
    met = multiply((written[0], written[1]), (large[0][None, :, -2::-1], large[1][None, :, -2::-1]))
    summed = (jnp.sum(met[0], axis=2), jnp.sum(met[1], axis=2))
    start = multiply((small[0][:, low], small[1][:, low]), (large[0][:, high], large[1][:, high]))
    return y, _add(multiply(_one(start), h0), multiply(_one(b), summed))


def convolve(x: Float[Array, "B T D"], kernel: Float[Array, "D T"]) -> Float[Array, "B T D"]:
    """Returns ``y_t[d] = sum_{j <= t} k_j[d] x_{t-j}[d]``, by FFT over twice the length or more, float32."""
    size = 1 << max(2 * x.shape[1] - 1, 1).bit_length()
    spectrum = jnp.fft.rfft(x, size, axis=1) * jnp.fft.rfft(kernel.T, size, axis=0)[None]
    return jnp.fft.irfft(spectrum, size, axis=1)[:, : x.shape[1]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def raise_to_powers(a: Pair, steps: int) -> Pair:
    """Returns ``a^0, ..., a^(steps - 1)`` on an axis before the last, by doubling: ``[D N]`` to ``[D steps N]``."""
    powers = (jnp.ones_like(a[0])[:, None], jnp.zeros_like(a[0])[:, None])
    factor = _widen(a)
    while powers[0].shape[1] < steps:
        more = multiply(powers, factor)
        powers = (jnp.concatenate([powers[0], more[0]], axis=1), jnp.concatenate([powers[1], more[1]], axis=1))
        # one doubling at a time: in one piece XLA takes ten times as long to compile them
        powers, factor = lax.optimization_barrier((powers, multiply(factor, factor)))
    return _take(powers, slice(steps))


def _raise_forward(a: Pair, steps: int) -> tuple[Pair, Pair]:
    powers = raise_to_powers(a, steps)
    return powers, powers


def _raise_backward(steps: int, powers: Pair, g: Pair) -> tuple[Pair]:
    """``j a^(j - 1)``, conjugated, meets the cotangent of ``a^j``."""
    j = jnp.arange(1, steps, dtype=g[0].dtype)[None, :, None]
    below = (j * powers[0][:, :-1], -j * powers[1][:, :-1])
    met = multiply(below, _take(g, slice(1, None)))
    return ((jnp.sum(met[0], axis=1), jnp.sum(met[1], axis=1)),)


raise_to_powers.defvjp(_raise_forward, _raise_backward)


def make_toeplitz(kernel: jax.Array) -> jax.Array:
    """Returns the matrices with ``k_{i-j}`` below and on the diagonal, 0 above: ``[D C]`` to ``[D C C]``."""
    channels, size = kernel.shape
    # row i of C rows of 2C - 1 numbers starts i places later in the repeated row: a reshape, whose gradient is one too
    row = jnp.concatenate([kernel, jnp.zeros_like(kernel)], axis=1)
    rows = jnp.broadcast_to(row[:, None], (channels, size, 2 * size)).reshape(channels, -1)
    return jnp.swapaxes(rows[:, : size * (2 * size - 1)].reshape(channels, size, -1)[:, :, :size], 1, 2)


def _real_sum(axes: str, x: Pair, y: Pair) -> jax.Array:
    """The real part of a complex product of arrays."""
    return einsum(axes, x[0], y[0]) - einsum(axes, x[1], y[1])


def _add(x: Pair, y: Pair) -> Pair:
    return x[0] + y[0], x[1] + y[1]


def _take(x: Pair, which: slice) -> Pair:
    """Powers on the second axis."""
    return x[0][:, which], x[1][:, which]


def _widen(x: Pair) -> Pair:
    """``[D N]`` to ``[D 1 N]``."""
    return x[0][:, None], x[1][:, None]


def _one(x: Pair) -> Pair:
    """A batch of one."""
    return x[0][None], x[1][None]


def _join(x: Pair) -> jax.Array:
    """The parts side by side on the last axis, and `_part` them again."""
    return jnp.concatenate(x, axis=-1)


def _part(x: jax.Array) -> Pair:
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def _swap(h: Pair) -> Pair:
    return jnp.swapaxes(h[0], 1, 2), jnp.swapaxes(h[1], 1, 2)
