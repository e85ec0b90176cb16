"""The Linear Recurrent Unit of Orvieto et al. 2023."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.errors import UserError
from lrnn_jax.parts.dense import project
from lrnn_jax.parts.layer import MATRICES, RecurrentLayer, State, check_at_least
from lrnn_jax.scans import scan_diagonal_complex
from lrnn_jax.scans.diagonal import METHODS


class LRU(RecurrentLayer):
    """``h_t = lambda * h_{t-1} + exp(gamma_log) * (B u_t)``, ``y_t = Re(C h_t) + D * u_t``, complex and time-invariant.

    ``lambda = exp(-exp(nu_log) + i exp(theta_log))``, so ``|lambda| < 1`` whatever the parameters are.

    Attributes:
      state_size: N, complex states.
      r_min: smallest initial ``|lambda|``.
      r_max: largest initial ``|lambda|``.
      max_phase: largest initial phase of ``lambda``, radians.

    Parameters (name, as in the paper: shape):
      ``nu_log``: [N].
      ``theta_log``: [N].
      ``gamma_log``: [N].
      ``B_re``: [N D].
      ``B_im``: [N D].
      ``C_re``: [D N].
      ``C_im``: [D N].
      ``D``: [D].

    Source: Orvieto et al. 2023, Section 3 and the listing of Appendix A.
    Differs: main text and listing disagree on the variance of C and on D; this is the listing (C of standard deviation
    1/sqrt(N) per part, D a vector).
    """

    state_size: int = 64
    r_min: float = 0.0
    r_max: float = 1.0
    max_phase: float = 2 * math.pi

    SOURCE = "Orvieto et al. 2023, Section 3.4 and App. A"
    METHODS = METHODS
    BLOCK = {"norm": "batchnorm", "mixer": "glu"}
    # The paper's "learning-rate factor" (0.1 to 0.5 by task; 0.25 on half of them) applies to lambda, B and gamma,
    # which do not decay either.
    PARAM_GROUPS = {r"^(nu_log|theta_log|gamma_log|B_re|B_im)$": {"lr": 0.25, "wd": 0.0}, r"^(C_re|C_im|D)$": MATRICES}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        if not 0.0 <= fields["r_min"] < fields["r_max"] <= 1.0:
            raise UserError(
                f"model.layer.r_min={fields['r_min']} and r_max={fields['r_max']} must satisfy 0 <= r_min < r_max <= 1"
            )
        if not 0.0 < fields["max_phase"] <= 2 * math.pi + 1e-6:
            raise UserError(f"model.layer.max_phase={fields['max_phase']} must be above 0 and at most 2 pi")
        check_at_least(1, fields, "state_size")

    def setup(self) -> None:
        size, width = self.state_size, self.width
        self.nu_log = self.param("nu_log", self._init_nu_log, (size,))
        self.theta_log = self.param("theta_log", self._init_theta_log, (size,))
        self.gamma_log = self.param("gamma_log", self._init_gamma_log, (size,))
        self.B_re = self.param("B_re", nn.initializers.normal((2 * width) ** -0.5), (size, width))
        self.B_im = self.param("B_im", nn.initializers.normal((2 * width) ** -0.5), (size, width))
        self.C_re = self.param("C_re", nn.initializers.normal(size**-0.5), (width, size))
        self.C_im = self.param("C_im", nn.initializers.normal(size**-0.5), (width, size))
        self.D = self.param("D", nn.initializers.normal(1.0), (width,))

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        gamma = jnp.exp(self.gamma_log)[:, None]
        b_re, b_im = (project(x, (gamma * part).astype(self.dtype).T) for part in (self.B_re, self.B_im))
        h, state = scan_diagonal_complex(self._eigenvalue_parts(), (b_re, b_im), h0=state, reset=reset, method=scan)
        h_re, h_im = (part.astype(self.dtype) for part in h)
        y = project(h_re, self.C_re.astype(self.dtype).T) - project(h_im, self.C_im.astype(self.dtype).T)
        return y.astype(jnp.float32) + self.D[None, None] * x.astype(jnp.float32), state

    def init_state(self, batch: int) -> State:
        return (jnp.zeros((batch, self.state_size), jnp.float32), jnp.zeros((batch, self.state_size), jnp.float32))

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns the eigenvalues lambda, ``[N]`` complex64; they do not depend on ``x``."""
        return jax.lax.complex(*self._eigenvalue_parts())

    def parameter_count(self) -> int:
        return 3 * self.state_size + 4 * self.state_size * self.width + self.width

    def state_count(self) -> int:
        return 2 * self.state_size

    def _eigenvalue_parts(self) -> tuple[jax.Array, jax.Array]:
        radius = jnp.exp(-jnp.exp(self.nu_log))
        phase = jnp.exp(self.theta_log)
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

    def _init_gamma_log(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """sqrt(1 - |lambda|^2), by expm1 because |lambda| may be very near 1."""
        return 0.5 * jnp.log(-jnp.expm1(-2.0 * jnp.exp(self.nu_log)))
