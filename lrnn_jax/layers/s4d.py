"""S4D, the diagonal state space model of Gu et al. 2022."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.errors import UserError
from lrnn_jax.parts.hippo import make_hippo_n
from lrnn_jax.parts.initializers import log_uniform
from lrnn_jax.parts.layer import MATRICES, RECURRENT, RecurrentLayer, State, check_at_least, check_choice
from lrnn_jax.scans import scan_time_invariant
from lrnn_jax.scans.time_invariant import METHODS

EIGENVALUES = ("legs", "lin", "inv")
DISCRETISATIONS = ("zoh", "bilinear")
Pair = tuple[jax.Array, jax.Array]


class S4D(RecurrentLayer):
    """``h_t = Abar * h_{t-1} + Bbar u_t``, ``y_t = 2 Re(C h_t) + D u_t`` per channel, complex, diagonal and time-invariant.

    ``A = -exp(A_re_log) + i A_im`` and B = 1 in continuous time, with steps ``dt = exp(log_dt)``. By zero-order hold
    ``Abar = exp(dt A)`` and ``Bbar = (Abar - 1) / A``; by the bilinear rule ``Abar = (1 + dt A / 2) / (1 - dt A / 2)`` and
    ``Bbar = dt / (1 - dt A / 2)``. Of each pair of conjugate states one is kept.

    Attributes:
      state_size: N, even.
      eigenvalues: initial A, real parts -1/2: "legs" (those of HiPPO-N), "lin" (imaginary parts ``pi n``) or "inv"
        (``N / pi (N / (2n + 1) - 1)``), n from 0 to N/2 - 1.
      discretisation: "zoh" or "bilinear".
      dt_min: smallest initial step.
      dt_max: largest initial step; they are log-uniform in between.
      bidirectional: adds ``2 Re(C' h'_t)``, h' running from the last position to the first with the same A and dt.

    Parameters (name, as in the paper: shape):
      ``A_re_log``: [D N/2].
      ``A_im``: [D N/2].
      ``log_dt``: [D].
      ``C_re``: [D N/2]; [2 D N/2] if bidirectional: C, then C'.
      ``C_im``: as C_re.
      ``D``: [D].

    Source: Gu et al. 2022, "On the Parameterization and Initialization of Diagonal State Space Models", Sections 3 and 4; C
    complex normal of variance 1, D normal.
    Differs: the paper may train B too; only products of B and C enter y, so that B = 1 loses nothing but a parametrisation.
    """

    state_size: int = 64
    eigenvalues: str = "legs"
    discretisation: str = "zoh"
    dt_min: float = 0.001
    dt_max: float = 0.1
    bidirectional: bool = False

    SOURCE = "Gu et al. 2022 (S4D), Sections 3 and 4"
    METHODS = METHODS
    VARIANTS = {**{name: {"eigenvalues": name} for name in EIGENVALUES}, "bilinear": {"discretisation": "bilinear"}}
    BLOCK = {"norm": "batchnorm", "mixer": "glu"}
    PARAM_GROUPS = {r"^(A_re_log|A_im|log_dt)$": RECURRENT, r"^(C_re|C_im|D)$": MATRICES}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_state_size_and_steps(fields)
        check_choice("eigenvalues", fields["eigenvalues"], EIGENVALUES)
        check_choice("discretisation", fields["discretisation"], DISCRETISATIONS)

    def setup(self) -> None:
        shape = (self.width, self.state_size // 2)
        read = (2, *shape) if self.bidirectional else shape
        self.A_re_log = self.param("A_re_log", nn.initializers.constant(np.log(0.5)), shape)
        self.A_im = self.param("A_im", self._init_frequencies, shape)
        self.log_dt = self.param("log_dt", log_uniform(self.dt_min, self.dt_max), (self.width,))
        self.C_re = self.param("C_re", nn.initializers.normal(0.5**0.5), read)
        self.C_im = self.param("C_im", nn.initializers.normal(0.5**0.5), read)
        self.D = self.param("D", nn.initializers.normal(1.0), (self.width,))

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        x = x.astype(jnp.float32)
        a, b = self._discretise()
        c = 2.0 * self.C_re, 2.0 * self.C_im
        skip = self.D[None, None] * x
        if not self.bidirectional:
            y, state = scan_time_invariant(a, b, c, x, h0=state, reset=reset, method=scan)
            return y + skip, state
        y, _ = scan_time_invariant(a, b, (c[0][0], c[1][0]), x, reset=reset, method=scan)
        back, _ = scan_time_invariant(a, b, (c[0][1], c[1][1]), x, reset=reset, method=scan, reverse=True)
        return y + back + skip, ()

    def init_state(self, batch: int) -> State:
        if self.bidirectional:
            return ()
        shape = (batch, self.width, self.state_size // 2)
        return (jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.float32))

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns Abar, ``[D N/2]`` complex64; it does not depend on ``x``."""
        return jax.lax.complex(*self._discretise()[0])

    def parameter_count(self) -> int:
        return self.width * (self.state_size // 2 * (6 if self.bidirectional else 4) + 2)

    def state_count(self) -> int:
        return 0 if self.bidirectional else self.width * self.state_size

    def _discretise(self) -> tuple[Pair, Pair]:
        """Abar and Bbar."""
        a_re, a_im, dt = -jnp.exp(self.A_re_log), self.A_im, jnp.exp(self.log_dt)[:, None]
        u, v = dt * a_re, dt * a_im
        if self.discretisation == "bilinear":
            # (1 + z) / (1 - z) with z = dt A / 2
            size = (1.0 - u / 2) ** 2 + (v / 2) ** 2
            return ((1.0 - (u**2 + v**2) / 4) / size, v / size), (dt * (1.0 - u / 2) / size, dt * v / 2 / size)
        factor = _mean_of_exponential(u, v)
        return (jnp.exp(u) * jnp.cos(v), jnp.exp(u) * jnp.sin(v)), (dt * factor[0], dt * factor[1])

    def _init_frequencies(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        size, n = self.state_size, np.arange(self.state_size // 2)
        frequencies = {
            "legs": lambda: make_hippo_n(size)[0].imag[size // 2 :],
            "lin": lambda: np.pi * n,
            "inv": lambda: size / np.pi * (size / (2 * n + 1) - 1),
        }[self.eigenvalues]()
        return jnp.broadcast_to(jnp.asarray(frequencies, jnp.float32)[None], shape)


def _mean_of_exponential(u: jax.Array, v: jax.Array) -> Pair:
    """``(exp(z) - 1) / z`` with z = u + iv; for small z a series, for the difference and its gradient have no digits there.

    Numerics: within the series ``|z| < 1/2``, and nine terms leave out less than 1e-8.
    """
    is_small = u**2 + v**2 < 0.25
    near = jnp.ones_like(u), jnp.zeros_like(v)
    for k in range(9, 1, -1):
        near = 1.0 + (u * near[0] - v * near[1]) / k, (u * near[1] + v * near[0]) / k
    u, v = jnp.where(is_small, 1.0, u), jnp.where(is_small, 0.0, v)
    re, im, squared = jnp.exp(u) * jnp.cos(v) - 1.0, jnp.exp(u) * jnp.sin(v), u**2 + v**2
    far = (re * u + im * v) / squared, (im * u - re * v) / squared
    return jnp.where(is_small, near[0], far[0]), jnp.where(is_small, near[1], far[1])


def check_state_size_and_steps(fields: Mapping[str, Any]) -> None:
    """Refuses what neither S4D nor S4 can be made of.

    Raises:
      UserError: an odd number of states, or steps that are not in order.
    """
    check_at_least(2, fields, "state_size")
    if fields["state_size"] % 2:
        raise UserError(f"model.layer.state_size={fields['state_size']} must be even: states are pairs of conjugates")
    if not 0.0 < fields["dt_min"] <= fields["dt_max"]:
        raise UserError(
            f"model.layer.dt_min={fields['dt_min']} and dt_max={fields['dt_max']} must satisfy 0 < dt_min <= dt_max"
        )
