"""The simplified state space layer S5 of Smith et al. 2023."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.errors import UserError
from lrnn_jax.parts.dense import project
from lrnn_jax.parts.discretise import DISCRETISATIONS, check_steps, discretise
from lrnn_jax.parts.hippo import MOST, make_hippo_n
from lrnn_jax.parts.initializers import common_key, log_uniform
from lrnn_jax.parts.layer import MATRICES, RECURRENT, RecurrentLayer, State, check_at_least, check_choice
from lrnn_jax.parts.readout import read_states
from lrnn_jax.scans.diagonal import METHODS
from lrnn_jax.scans.pairs import Pair, multiply

C_INITS = ("trunc_standard_normal", "lecun_normal", "complex_normal")
# The largest real part of a clipped eigenvalue.
CLIP = -1e-4
# Standard deviation of a normal draw that is cut off at two.
TRUNCATED = 0.87962566103423978


class S5(RecurrentLayer):
    """``h_t = Lambda_bar * h_{t-1} + B_bar u_t``, ``y_t = 2 Re(C h_t) + D * u_t``, complex and time-invariant.

    ``Lambda_bar = exp(Lambda Delta)`` and ``B_bar = Lambda^-1 (Lambda_bar - 1) * B`` with ``Delta = exp(log_step)``: one
    continuous system for all features. Lambda starts as the eigenvalues of J blocks of HiPPO-N, B as ``V^-1 B_0`` and C as
    ``C_0 V`` with their eigenvectors V. Of every conjugate pair of states one is kept: P = N / 2 of them.

    Attributes:
      state_size: N, states of the real system.
      blocks: J.
      discretisation: "zoh" as above, or "bilinear" (``Lambda_bar = (1 + Delta Lambda / 2) / (1 - Delta Lambda / 2)`` and
        ``B_bar = Delta / (1 - Delta Lambda / 2) * B``).
      conj_sym: keeps one state of each conjugate pair; without, P = N and ``y_t = Re(C h_t) + D * u_t``.
      clip_eigs: keeps the real part of Lambda at -1e-4 or below, so that the state cannot grow.
      bidirectional: adds ``2 Re(C' h'_t)``, h' running from the last position to the first with the same Lambda and B.
      c_init: C_0's parts normal, cut off at two deviations, of variance 1/N ("trunc_standard_normal") or 1/(N D)
        ("lecun_normal"); or "complex_normal": C's own parts normal with variance 1/2.
      dt_min: smallest initial Delta; it is uniform in its logarithm.
      dt_max: largest initial Delta.

    Parameters (name, as in the paper: shape):
      ``Lambda_re``: [P].
      ``Lambda_im``: [P].
      ``log_step``: [P].
      ``B_re``: [P D].
      ``B_im``: [P D].
      ``C_re``: [D P]; [2 D P] if bidirectional: C, then C'.
      ``C_im``: as C_re.
      ``D``: [D].

    Source: Smith et al. 2023 (S5), Section 3 and App. B; initial values and clipping from its released code (B_0 normal, cut
    off at two deviations, of variance 1/N). There, real and imaginary parts are the last axis of ``B`` and ``C``, and C and C'
    are ``C1`` and ``C2``, or stand side by side in ``C``.
    Numerics: B_bar and its gradients are as exact for a Lambda Delta near or at 0 as elsewhere.

    Example:
    >>> layer, x = S5(width=8, state_size=12, blocks=2), jnp.ones((1, 5, 8))
    >>> (y, state), variables = layer.init_with_output(jax.random.key(0), x)
    >>> y.shape, jax.tree.map(jnp.shape, state)
    ((1, 5, 8), ((1, 6), (1, 6)))
    """

    state_size: int = 64
    blocks: int = 8
    discretisation: str = "zoh"
    conj_sym: bool = True
    clip_eigs: bool = False
    bidirectional: bool = False
    c_init: str = "trunc_standard_normal"
    dt_min: float = 1e-3
    dt_max: float = 1e-1

    SOURCE = "Smith et al. 2023, Section 3"
    METHODS = METHODS
    MAY_EXPAND = True
    BLOCK = {"norm": "batchnorm", "mixer": "half_glu1"}
    PARAM_GROUPS = {r"^(Lambda_re|Lambda_im|log_step|B_re|B_im)$": RECURRENT, r"^(C_re|C_im|D)$": MATRICES}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        check_at_least(1, fields, "state_size", "blocks")
        size, blocks = fields["state_size"], fields["blocks"]
        if size % (blocks * (2 if fields["conj_sym"] else 1)):
            pairs = " of conjugate pairs" if fields["conj_sym"] else ""
            raise UserError(f"blocks={blocks} must divide state_size={size} into blocks{pairs}")
        if size // blocks > MOST:
            raise UserError(f"state_size={size} must be at most {MOST} per block, for the eigenvectors of HiPPO")
        check_choice("discretisation", fields["discretisation"], DISCRETISATIONS)
        check_choice("c_init", fields["c_init"], C_INITS)
        check_steps(fields)

    @property
    def may_expand(self) -> bool:
        return not self.clip_eigs

    def setup(self) -> None:
        states, width = self._kept, self.width
        eigenvalues, vectors = self._hippo()
        self.Lambda_re = self.param("Lambda_re", lambda key: jnp.asarray(eigenvalues.real, jnp.float32))
        self.Lambda_im = self.param("Lambda_im", lambda key: jnp.asarray(eigenvalues.imag, jnp.float32))
        self.log_step = self.param("log_step", log_uniform(self.dt_min, self.dt_max), (states,))
        key = common_key(self)
        self.B_re = self.param("B_re", lambda _: self._draw_b(key, vectors)[0])
        self.B_im = self.param("B_im", lambda _: self._draw_b(key, vectors)[1])
        key = common_key(self)
        self.C_re = self.param("C_re", lambda _: self._draw_c(key, vectors)[0])
        self.C_im = self.param("C_im", lambda _: self._draw_c(key, vectors)[1])
        self.D = self.param("D", nn.initializers.normal(1.0), (width,))

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        lam, scale = self._discretise()
        b_bar = multiply((scale[0][:, None], scale[1][:, None]), (self.B_re, self.B_im))
        b_re, b_im = (project(x, part.astype(self.dtype).T) for part in b_bar)
        factor = 2.0 if self.conj_sym else 1.0
        c = (factor * self.C_re, factor * self.C_im)
        y, state = read_states(lam, (b_re, b_im), c, state=state, reset=reset, scan=scan)
        return y.astype(jnp.float32) + self.D[None, None] * x.astype(jnp.float32), state

    def init_state(self, batch: int) -> State:
        if self.bidirectional:
            return ()
        return (jnp.zeros((batch, self._kept), jnp.float32), jnp.zeros((batch, self._kept), jnp.float32))

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns the eigenvalues Lambda_bar of the states that are kept, ``[P]`` complex64; they do not depend on ``x``."""
        return jax.lax.complex(*self._discretise()[0])

    def parameter_count(self) -> int:
        return self._kept * (3 + (6 if self.bidirectional else 4) * self.width) + self.width

    def state_count(self) -> int:
        return 0 if self.bidirectional else 2 * self._kept

    @property
    def _kept(self) -> int:
        """P."""
        return self.state_size // 2 if self.conj_sym else self.state_size

    def _discretise(self) -> tuple[Pair, Pair]:
        """Lambda_bar and what B is multiplied with."""
        real = jnp.minimum(self.Lambda_re, CLIP) if self.clip_eigs else self.Lambda_re
        return discretise((real, self.Lambda_im), jnp.exp(self.log_step), self.discretisation)

    def _hippo(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues of all blocks, ``[P]``, and the eigenvectors of one, ``[N/J P/J]``."""
        eigenvalues, vectors = make_hippo_n(self.state_size // self.blocks)
        kept = self._kept // self.blocks
        return np.tile(eigenvalues[:kept], self.blocks), vectors[:, :kept]

    def _draw_b(self, key: jax.Array, vectors: np.ndarray) -> Pair:
        """``V^-1 B_0``, block after block."""
        b = nn.initializers.lecun_normal()(key, (self.state_size, self.width)).reshape(self.blocks, -1, self.width)
        shape = self._kept, self.width
        re, im = (jnp.asarray(part, jnp.float32) for part in (vectors.real, -vectors.imag))
        return jnp.einsum("np,jnd->jpd", re, b).reshape(shape), jnp.einsum("np,jnd->jpd", im, b).reshape(shape)

    def _draw_c(self, key: jax.Array, vectors: np.ndarray) -> Pair:
        """``C_0 V``, block after block, once per direction."""
        lead = (2, self.width) if self.bidirectional else (self.width,)
        if self.c_init == "complex_normal":
            parts = math.sqrt(0.5) * jax.random.normal(key, (2, *lead, self._kept))
            return parts[0], parts[1]
        spread = self.state_size * (self.width if self.c_init == "lecun_normal" else 1)
        deviation = spread**-0.5 / TRUNCATED
        drawn = deviation * jax.random.truncated_normal(key, -2.0, 2.0, (2, *lead, self.blocks, self.state_size // self.blocks))
        re, im = (jnp.asarray(part, jnp.float32) for part in (vectors.real, vectors.imag))
        c = (drawn[0] @ re - drawn[1] @ im, drawn[0] @ im + drawn[1] @ re)
        return c[0].reshape(*lead, -1), c[1].reshape(*lead, -1)
