"""S4D, the diagonal state space model of Gu et al. 2022."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.errors import UserError
from lrnn_jax.parts.discretise import DISCRETISATIONS, check_steps, discretise
from lrnn_jax.parts.hippo import MOST, make_hippo_n
from lrnn_jax.parts.initializers import log_uniform
from lrnn_jax.parts.layer import MATRICES, RECURRENT, RecurrentLayer, State, check_at_least, check_choice
from lrnn_jax.scans import scan_time_invariant
from lrnn_jax.scans.pairs import Pair
from lrnn_jax.scans.time_invariant import METHODS

EIGENVALUES = ("legs", "lin", "inv")


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
        lam = -jnp.exp(self.A_re_log), self.A_im
        return discretise(lam, jnp.exp(self.log_dt)[:, None], self.discretisation)

    def _init_frequencies(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        size, n = self.state_size, np.arange(self.state_size // 2)
        frequencies = {
            "legs": lambda: make_hippo_n(size)[0].imag[size // 2 :],
            "lin": lambda: np.pi * n,
            "inv": lambda: size / np.pi * (size / (2 * n + 1) - 1),
        }[self.eigenvalues]()
        return jnp.broadcast_to(jnp.asarray(frequencies, jnp.float32)[None], shape)


def check_state_size_and_steps(fields: Mapping[str, Any]) -> None:
    """Refuses what neither S4D nor S4 can be made of.

    Raises:
      UserError: an odd number of states, or steps that are not in order.
    """
    check_at_least(2, fields, "state_size")
    if fields["state_size"] % 2:
        raise UserError(f"model.layer.state_size={fields['state_size']} must be even: states are pairs of conjugates")
    if fields["state_size"] > MOST:
        raise UserError(f"model.layer.state_size={fields['state_size']} must be at most {MOST}, for the eigenvectors of HiPPO")
    check_steps(fields)
