"""S4, the structured state space model of Gu et al. 2022: HiPPO-LegS as a diagonal matrix and one of rank 1."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.parts.discretise import check_state_size_and_steps
from lrnn_jax.parts.hippo import make_hippo_legs, make_hippo_n
from lrnn_jax.parts.initializers import log_uniform
from lrnn_jax.parts.layer import MATRICES, RECURRENT, RecurrentLayer, State
from lrnn_jax.scans.exact import einsum, matmul
from lrnn_jax.scans.method import Serves, choose_method
from lrnn_jax.scans.pairs import Pair, multiply
from lrnn_jax.scans.recurrence import cut, keep_mask, run_recurrence
from lrnn_jax.scans.time_invariant import convolve

METHODS = {"sequential": Serves(), "convolution": Serves(state=False, reset=False)}

# Fewest positions of a kernel: over fewer, slow states hardly decay, and ``I - Abar^n`` is nearly singular.
SHORTEST = 128


class Step(NamedTuple):
    """What one position needs: ``Abar`` is ``(I - k F P^*) (diag(E) - F P^*)`` and ``Bbar`` is ``(I - k F P^*) G``.

    Pairs are ``[D N/2]``.
    """

    e: Pair
    f: Pair
    g: Pair
    p: Pair
    k: jax.Array  # [D]


class S4(RecurrentLayer):
    """``h_t = Abar h_{t-1} + Bbar u_t``, ``y_t = 2 Re(C h_t) + D u_t`` per channel, with ``A = Lambda - P P^*``.

    Discretised by the bilinear rule: ``Abar = (I - dt A / 2)^-1 (I + dt A / 2)``, ``Bbar = (I - dt A / 2)^-1 dt B``, with
    ``Lambda = -exp(A_re_log) + i A_im`` and ``dt = exp(log_dt)``. Of each pair of conjugate states one is kept; products with
    P^* and C go over both.

    Attributes:
      state_size: N, even.
      dt_min: smallest initial step.
      dt_max: largest initial step; they are log-uniform in between.
      bidirectional: adds ``2 Re(C' h'_t)``, h' running from the last position to the first with the same A, B and dt.

    Parameters (name, as in the paper: shape):
      ``A_re_log``: [D N/2].
      ``A_im``: [D N/2].
      ``P_re``: [D N/2].
      ``P_im``: [D N/2].
      ``B_re``: [D N/2].
      ``B_im``: [D N/2].
      ``log_dt``: [D].
      ``C_re``: [D N/2]; [2 D N/2] if bidirectional: C, then C'.
      ``C_im``: as C_re.
      ``D``: [D].

    Source: Gu et al. 2022 (S4), Section 3 and Appendix C; A = Lambda - P P^*, which training cannot make unstable: Goel et al.
    2022.
    Numerics: float32. The kernel's generating function is a sum over states at the roots of unity (complex64), of
    ``C (I - Abar^n)``, so that the convolution is the recurrence to rounding: 1e-5 of the largest
    output or better. The gradient of ``log_dt`` loses most digits by it: 5e-4 of its largest entry at T = 1024.
    Differs: C is a parameter as such and ``C (I - Abar^n)`` made from it at every call; the released code trains
    the latter. Read backwards, a position sees itself, as in S5; in the released code it does not. The GELU of its blocks
    is exact, and that of `lrnn_jax.models.mixers` the tanh form.

    Example:
    >>> layer, x = S4(width=8, state_size=6), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), ((1, 8, 3), (1, 8, 3)))
    """

    state_size: int = 64
    dt_min: float = 0.001
    dt_max: float = 0.1
    bidirectional: bool = False

    SOURCE = "Gu et al. 2022 (S4), Section 3"
    METHODS = METHODS
    DIAGONAL = False
    START_STATE = False
    BLOCK = {"norm": "batchnorm", "mixer": "glu"}
    PARAM_GROUPS = {r"^(A_re_log|A_im|P_re|P_im|B_re|B_im|log_dt)$": RECURRENT, r"^(C_re|C_im|D)$": MATRICES}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_state_size_and_steps(fields)

    def setup(self) -> None:
        shape, start = (self.width, self.state_size // 2), _start_values(self.state_size)
        read = (2, *shape) if self.bidirectional else shape
        self.A_re_log = self.param("A_re_log", nn.initializers.constant(np.log(0.5)), shape)
        self.A_im, self.P_re, self.P_im, self.B_re, self.B_im = (
            self.param(name, _repeat(values), shape) for name, values in start.items()
        )
        self.log_dt = self.param("log_dt", log_uniform(self.dt_min, self.dt_max), (self.width,))
        self.C_re = self.param("C_re", nn.initializers.normal(0.5**0.5), read)
        self.C_im = self.param("C_im", nn.initializers.normal(0.5**0.5), read)
        self.D = self.param("D", nn.initializers.normal(1.0), (self.width,))

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        x = x.astype(jnp.float32)
        parallel = "convolution" if x.shape[1] > 1 else "sequential"
        needs = {"state": state is not None, "reset": reset is not None}
        method = choose_method(scan, METHODS, accelerator=parallel, cpu=parallel, **needs)
        loop = functools.partial(self._loop, x, state, reset)
        run = functools.partial(self._convolve, x) if method == "convolution" else loop
        skip = self.D[None, None] * x
        if not self.bidirectional:
            y, state = run((self.C_re, self.C_im), False)
            return y + skip, state
        return run((self.C_re[0], self.C_im[0]), False)[0] + run((self.C_re[1], self.C_im[1]), True)[0] + skip, ()

    def init_state(self, batch: int) -> State:
        return () if self.bidirectional else self._zeros(batch)

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns Abar, ``[D N N]`` float32, which maps real above imaginary parts; it does not depend on ``x``."""
        return _make_dense(self._discretise())

    def parameter_count(self) -> int:
        return self.width * (self.state_size // 2 * (10 if self.bidirectional else 8) + 2)

    def state_count(self) -> int:
        return 0 if self.bidirectional else self.width * self.state_size

    def _zeros(self, batch: int) -> Pair:
        shape = (batch, self.width, self.state_size // 2)
        return (jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.float32))

    def _loop(self, x: jax.Array, state: Any, reset: jax.Array | None, c: Pair, reverse: bool) -> tuple[jax.Array, Pair]:
        start = state if state is not None and not self.bidirectional else self._zeros(x.shape[0])
        rows = (x, keep_mask(reset, reverse=reverse))
        return run_recurrence(_read_step, (self._discretise(), c), start, rows, reverse=reverse)

    def _convolve(self, x: jax.Array, c: Pair, reverse: bool) -> tuple[jax.Array, Pair]:
        x = x[:, ::-1] if reverse else x
        step = self._discretise()
        squares = [_make_dense(step)]  # Abar, Abar^2, Abar^4, ...
        while 1 << (len(squares) - 1) < max(x.shape[1], SHORTEST):
            squares.append(matmul(squares[-1], squares[-1]))
        real_c = jnp.concatenate([c[0], -c[1]], axis=-1)
        left = real_c - einsum("di,dij->dj", real_c, squares[-1])  # C (I - Abar^n)
        half = self.state_size // 2
        factors = self._lambda(), (self.P_re, self.P_im), (self.B_re, self.B_im), (left[:, :half], -left[:, half:])
        kernel = jax.lax.map(
            jax.checkpoint(functools.partial(_make_kernel, 1 << (len(squares) - 1))), (jnp.exp(self.log_dt), *factors)
        )
        y = convolve(x, kernel[:, : x.shape[1]])
        last = _find_last(squares, _advance(step, self._zeros(1), jnp.ones((1, self.width), x.dtype)), x)
        return (y[:, ::-1] if reverse else y), last

    def _lambda(self) -> Pair:
        return -jnp.exp(self.A_re_log), self.A_im

    def _discretise(self) -> Step:
        """With s = 2 / dt and ``R = (s - Lambda)^-1`` by Woodbury: ``E = R (s + Lambda)``, ``F = R P``, ``G = 2 R B``."""
        (re, im), s = self._lambda(), 2.0 * jnp.exp(-self.log_dt)[:, None]
        p = self.P_re, self.P_im
        squared = (s - re) ** 2 + im**2
        r = (s - re) / squared, im / squared
        f = multiply(r, p)
        g = multiply(r, (2.0 * self.B_re, 2.0 * self.B_im))
        return Step(multiply(r, (s + re, im)), f, g, p, 1.0 / (1.0 + _meet(p, f)))


def _advance(step: Step, h: Pair, x: jax.Array) -> Pair:
    """``Abar h + Bbar x`` for states ``[B D N/2]`` and inputs ``[B D]``."""
    e, f, g, p, k = jax.tree.map(lambda z: z[None], step)
    met, x = _meet(p, h)[..., None], x[..., None]
    moved = multiply(e, h)
    h = moved[0] - f[0] * met + g[0] * x, moved[1] - f[1] * met + g[1] * x
    met = (k * _meet(p, h))[..., None]
    return h[0] - f[0] * met, h[1] - f[1] * met


def _read_step(constants: tuple[Step, Pair], h: Pair, x: tuple[jax.Array, jax.Array | None]) -> tuple[Pair, jax.Array]:
    step, c = constants
    u, keep = x
    h = _advance(step, (cut(h[0], keep), cut(h[1], keep)), u)
    return h, 2.0 * jnp.sum(c[0][None] * h[0] - c[1][None] * h[1], axis=-1)


def _make_dense(step: Step) -> jax.Array:
    """Abar as real matrices ``[D N N]`` on real above imaginary parts: what becomes of each unit vector."""
    channels, half = step.e[0].shape
    units = jnp.broadcast_to(jnp.eye(2 * half, dtype=step.k.dtype)[:, None], (2 * half, channels, 2 * half))
    h = _advance(step, (units[..., :half], units[..., half:]), jnp.zeros((2 * half, channels), step.k.dtype))
    return jnp.transpose(jnp.concatenate(h, axis=-1), (1, 2, 0))


def _make_kernel(size: int, factors: tuple[jax.Array, Pair, Pair, Pair, Pair]) -> jax.Array:
    """One channel's ``2 Re(C Abar^t Bbar)`` for t below ``size``: dt, Lambda, P, B and ``C (I - Abar^size)`` are its factors.

    Its discrete Fourier transform is ``2 C (I - Abar^size) [2 (1 - z) / dt I - (1 + z) A]^-1 B`` at the roots of unity z.
    """
    dt, *pairs = factors
    lam, p, b, c = (jnp.concatenate([z, jnp.conj(z)])[None] for z in (jax.lax.complex(*pair) for pair in pairs))
    z = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)[:, None]
    low, high = jnp.asarray(1 - z, lam.dtype), jnp.asarray(1 + z, lam.dtype)
    r = 1.0 / ((2.0 / dt).astype(lam.dtype) * low - high * lam)
    cb, cp, pb, pp = (jnp.sum(left * r * right, axis=1) for left in (c, jnp.conj(p)) for right in (b, p))
    high = high[:, 0]
    return jnp.fft.irfft(2.0 * (cb - high * cp * pb / (1.0 + high * pp)), size)


def _find_last(squares: list[jax.Array], b: Pair, x: jax.Array) -> Pair:
    """The state after ``x`` from zeros, by chunks of about sqrt(T) positions; ``b`` is Bbar, ``[1 D N/2]``."""
    doublings = (x.shape[1].bit_length() + 1) // 2
    size = 1 << doublings
    into = jnp.concatenate(b, axis=-1)[0][..., None]  # Abar^j Bbar, [D N size]
    for square in squares[:doublings]:
        into = jnp.concatenate([into, matmul(square, into)], axis=-1)
    chunks = -(-x.shape[1] // size)
    rows = jnp.pad(x, ((0, 0), (chunks * size - x.shape[1], 0), (0, 0))).reshape(x.shape[0], chunks, size, x.shape[2])
    written = einsum("bmjd,dnj->mbdn", rows, into[..., ::-1])

    def advance(h: jax.Array, now: jax.Array) -> tuple[jax.Array, None]:
        return einsum("dij,bdj->bdi", squares[doublings], h) + now, None

    h, _ = jax.lax.scan(advance, jnp.zeros_like(written[0]), written)
    half = h.shape[-1] // 2
    return h[..., :half], h[..., half:]


def _start_values(size: int) -> dict[str, np.ndarray]:
    """HiPPO-LegS in the basis in which its normal part is diagonal, one of each pair of conjugates."""
    lam, vectors = make_hippo_n(size)
    _, p, b = make_hippo_legs(size)
    p, b = (vectors.conj().T[size // 2 :] @ z for z in (p, b))
    return {"A_im": lam.imag[size // 2 :], "P_re": p.real, "P_im": p.imag, "B_re": b.real, "B_im": b.imag}


def _repeat(values: np.ndarray) -> Callable[[jax.Array, tuple[int, ...]], jax.Array]:
    return lambda key, shape: jnp.broadcast_to(jnp.asarray(values, jnp.float32)[None], shape)


def _meet(x: Pair, y: Pair) -> jax.Array:
    """``x^* y`` over states and their conjugates."""
    return 2.0 * jnp.sum(x[0] * y[0] + x[1] * y[1], axis=-1)
