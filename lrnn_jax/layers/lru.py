"""The Linear Recurrent Unit of Orvieto et al. 2023, and the rungs of the ladder that leads to it."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.errors import UserError
from lrnn_jax.parts.dense import project
from lrnn_jax.parts.initializers import common_key
from lrnn_jax.parts.layer import MATRICES, RECURRENT, RecurrentLayer, State, check_at_least, check_choice
from lrnn_jax.parts.readout import read_states
from lrnn_jax.scans.diagonal import METHODS

PARAMETRISATIONS = ("stable_exp_phase", "stable_exp", "exp", "real_imag")
UNIT_DISK = {"r_min": 0.0, "r_max": 1.0, "max_phase": 2 * math.pi}


class LRU(RecurrentLayer):
    """``h_t = lambda * h_{t-1} + exp(gamma_log) * (B u_t)``, ``y_t = Re(C h_t) + D * u_t``, complex and time-invariant.

    ``lambda = exp(-exp(nu_log) + i exp(theta_log))``, so ``|lambda| < 1`` whatever the parameters are. The variants
    "real_imag", "exp", "stable_exp", "ring" and "lru" are the paper's ladder; "ring" differs from "stable_exp" by the task's
    ``r_min`` and ``r_max``, which it leaves to the config.

    Attributes:
      state_size: N, complex states.
      r_min: smallest initial ``|lambda|``.
      r_max: largest initial ``|lambda|``.
      max_phase: largest initial phase of ``lambda``, radians.
      parametrisation: of lambda: "stable_exp_phase" as above, "stable_exp" (``exp(-exp(nu_log) + i theta)``), "exp"
        (``exp(-nu + i theta)``) or "real_imag" (its two parts); the last two may leave the unit circle. All start alike.
      gamma: scales the input by ``exp(gamma_log)``, which starts as ``sqrt(1 - |lambda|^2)``.
      bidirectional: adds ``Re(C' h'_t)``, h' running from the last position to the first with the same lambda, gamma and B.

    Parameters (name, as in the paper: shape):
      ``nu_log``: [N]; ``nu`` if "exp".
      ``theta_log``: [N]; ``theta`` if "stable_exp" or "exp". If "real_imag", ``lambda_re`` and ``lambda_im`` instead of both.
      ``gamma_log``: [N].
      ``B_re``: [N D].
      ``B_im``: [N D].
      ``C_re``: [D N]; [2 D N] if bidirectional: C, then C'.
      ``C_im``: as C_re.
      ``D``: [D].

    Source: Orvieto et al. 2023, Section 3 and the listing of Appendix A; bidirectional as S5 (Smith et al. 2023).
    Differs: main text and listing disagree on the variance of C and on D; this is the listing (C of standard deviation
    1/sqrt(N) per part, D a vector).

    Example:
    >>> layer, x = LRU(width=8, state_size=6), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), ((1, 6), (1, 6)))
    """

    state_size: int = 64
    r_min: float = 0.0
    r_max: float = 1.0
    max_phase: float = 2 * math.pi
    parametrisation: str = "stable_exp_phase"
    gamma: bool = True
    bidirectional: bool = False

    SOURCE = "Orvieto et al. 2023, Section 3.4 and App. A"
    METHODS = METHODS
    VARIANTS = {
        "lru": {"parametrisation": "stable_exp_phase", "gamma": True},
        "ring": {"parametrisation": "stable_exp", "gamma": False},
        "stable_exp": {"parametrisation": "stable_exp", "gamma": False, **UNIT_DISK},
        "exp": {"parametrisation": "exp", "gamma": False, **UNIT_DISK},
        "real_imag": {"parametrisation": "real_imag", "gamma": False, **UNIT_DISK},
    }
    BLOCK = {"norm": "batchnorm", "mixer": "glu"}
    # The paper's "learning-rate factor" (0.1 to 0.5 by task; 0.25 on half of them) applies to lambda, B and gamma,
    # which do not decay either.
    PARAM_GROUPS = {
        r"^(nu|nu_log|theta|theta_log|lambda_re|lambda_im|gamma_log|B_re|B_im)$": RECURRENT,
        r"^(C_re|C_im|D)$": MATRICES,
    }

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        if not 0.0 <= fields["r_min"] < fields["r_max"] <= 1.0:
            raise UserError(f"r_min={fields['r_min']} and r_max={fields['r_max']} must satisfy 0 <= r_min < r_max <= 1")
        if not 0.0 < fields["max_phase"] <= 2 * math.pi + 1e-6:
            raise UserError(f"max_phase={fields['max_phase']} must be above 0 and at most 2 pi")
        check_at_least(1, fields, "state_size")
        check_choice("parametrisation", fields["parametrisation"], PARAMETRISATIONS)

    @property
    def may_expand(self) -> bool:
        return self.parametrisation in ("exp", "real_imag")

    def setup(self) -> None:
        size, width = self.state_size, self.width
        if self.parametrisation == "real_imag":
            key = common_key(self)
            self.lambda_re = self.param("lambda_re", lambda _: self._draw_lambda(key)[0])
            self.lambda_im = self.param("lambda_im", lambda _: self._draw_lambda(key)[1])
        elif self.parametrisation == "exp":
            self.nu = self.param("nu", self._init_nu, (size,))
        else:
            self.nu_log = self.param("nu_log", self._init_nu_log, (size,))
        if self.parametrisation == "stable_exp_phase":
            self.theta_log = self.param("theta_log", self._init_theta_log, (size,))
        elif self.parametrisation != "real_imag":
            self.theta = self.param("theta", self._init_theta, (size,))
        if self.gamma:
            self.gamma_log = self.param("gamma_log", self._init_gamma_log, (size,))
        self.B_re = self.param("B_re", nn.initializers.normal((2 * width) ** -0.5), (size, width))
        self.B_im = self.param("B_im", nn.initializers.normal((2 * width) ** -0.5), (size, width))
        read = (2, width, size) if self.bidirectional else (width, size)
        self.C_re = self.param("C_re", nn.initializers.normal(size**-0.5), read)
        self.C_im = self.param("C_im", nn.initializers.normal(size**-0.5), read)
        self.D = self.param("D", nn.initializers.normal(1.0), (width,))

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        matrices = (self.B_re, self.B_im)
        if self.gamma:
            gamma = jnp.exp(self.gamma_log)[:, None]
            matrices = (gamma * self.B_re, gamma * self.B_im)
        b_re, b_im = (project(x, part.astype(self.dtype).T) for part in matrices)
        lam = self._eigenvalue_parts()
        y, state = read_states(lam, (b_re, b_im), (self.C_re, self.C_im), state=state, reset=reset, scan=scan)
        return y.astype(jnp.float32) + self.D[None, None] * x.astype(jnp.float32), state

    def init_state(self, batch: int) -> State:
        if self.bidirectional:
            return ()
        return (jnp.zeros((batch, self.state_size), jnp.float32), jnp.zeros((batch, self.state_size), jnp.float32))

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns the eigenvalues lambda, ``[N]`` complex64; they do not depend on ``x``."""
        return jax.lax.complex(*self._eigenvalue_parts())

    def parameter_count(self) -> int:
        vectors, matrices = 3 if self.gamma else 2, 6 if self.bidirectional else 4
        return self.state_size * (vectors + matrices * self.width) + self.width

    def state_count(self) -> int:
        return 0 if self.bidirectional else 2 * self.state_size

    def _eigenvalue_parts(self) -> tuple[jax.Array, jax.Array]:
        if self.parametrisation == "real_imag":
            return self.lambda_re, self.lambda_im
        radius = jnp.exp(-self.nu if self.parametrisation == "exp" else -jnp.exp(self.nu_log))
        phase = jnp.exp(self.theta_log) if self.parametrisation == "stable_exp_phase" else self.theta
        return radius * jnp.cos(phase), radius * jnp.sin(phase)

    def _init_nu_log(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Uniform on the ring r_min <= |lambda| <= r_max (the paper's Lemma 2)."""
        u = jax.random.uniform(key, shape, minval=jnp.finfo(jnp.float32).tiny)
        squared = u * (self.r_max**2 - self.r_min**2) + self.r_min**2
        # u so near 1 that |lambda| rounds to 1 would give log(0)
        return jnp.log(jnp.maximum(-0.5 * jnp.log(squared), jnp.finfo(jnp.float32).eps))

    def _init_theta_log(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        u = jax.random.uniform(key, shape, minval=jnp.finfo(jnp.float32).tiny)
        return jnp.log(self.max_phase * u)

    def _init_nu(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jnp.exp(self._init_nu_log(key, shape))

    def _init_theta(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jnp.exp(self._init_theta_log(key, shape))

    def _draw_lambda(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        radius_key, phase_key = jax.random.split(key)
        shape = (self.state_size,)
        radius, phase = jnp.exp(-self._init_nu(radius_key, shape)), self._init_theta(phase_key, shape)
        return radius * jnp.cos(phase), radius * jnp.sin(phase)

    def _init_gamma_log(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """sqrt(1 - |lambda|^2), by expm1 because |lambda| may be very near 1."""
        if self.parametrisation == "real_imag":
            squared = jnp.square(self.lambda_re) + jnp.square(self.lambda_im)
            return 0.5 * jnp.log(jnp.maximum(1.0 - squared, jnp.finfo(jnp.float32).eps))
        return 0.5 * jnp.log(-jnp.expm1(-2.0 * (self.nu if self.parametrisation == "exp" else jnp.exp(self.nu_log))))
