"""What the layers of the delta rule have in common; each of them opens a part of it as fields of its own."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lrnn_jax.parts.conv import CausalConv, count_parameters, count_state, empty_history
from lrnn_jax.parts.dense import Dense, project
from lrnn_jax.parts.initializers import init_dt_bias, xavier_uniform
from lrnn_jax.parts.layer import (
    EIGENVALUE_RANGES,
    INITIAL_VALUES,
    MATRICES,
    NO_DECAY,
    RecurrentLayer,
    State,
    check_at_least,
    check_choice,
    check_divides,
)
from lrnn_jax.parts.norm import normalise_l2
from lrnn_jax.scans import scan_delta_product
from lrnn_jax.scans.delta import METHODS, transition_matrices

KEY_ACTIVATIONS = ("silu", "linear")


class DeltaRuleLayer(RecurrentLayer):
    """``S <- g_t S``, ``S <- (I - beta_j k_j k_j^T) S + beta_j k_j v_j^T`` for j = 1..n_h, ``y_t = W_o RMSNorm(S^T q_t)``.

    `DeltaProduct` says what each symbol is. The class attributes below are its fields; a subclass makes fields of those that it
    leaves open.
    """

    heads: int = 4
    conv_width: int = 4
    negative_eigenvalues: bool = True
    initial_values: str = "default"

    head_dim = 0
    expand_v = 1
    householders = 1
    key_activation = "silu"
    gated = False
    output_gate = False

    METHODS = METHODS
    DIAGONAL = False
    VARIANTS = EIGENVALUE_RANGES
    BLOCK = {"norm": "rmsnorm", "mixer": "swiglu"}
    PARAM_GROUPS = {r"kernel$": MATRICES, r"(A_log|dt_bias|scale)$": NO_DECAY}

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> None:
        fixed = {name: getattr(cls, name) for name in ("head_dim", "expand_v", "householders", "key_activation")}
        fields = {**fixed, **fields}
        check_at_least(1, fields, "heads", "expand_v", "householders")
        check_at_least(0, fields, "head_dim", "conv_width")
        check_choice("key_activation", fields["key_activation"], KEY_ACTIVATIONS)
        check_choice("initial_values", fields["initial_values"], INITIAL_VALUES)
        if not fields["head_dim"]:
            check_divides("heads", fields["heads"], fields["width"])

    @property
    def _key_dim(self) -> int:
        return self.head_dim or self.width // self.heads

    @property
    def _keys(self) -> int:
        return self.heads * self._key_dim

    @property
    def _values(self) -> int:
        return self.expand_v * self._keys

    @property
    def _convolved(self) -> int:
        return self._keys + self.householders * (self._keys + self._values)

    def setup(self) -> None:
        width, keys, values = self.width, self._keys, self._values
        self.q = self._make_dense(width, keys)
        self.k = self._make_dense(width, keys, self.householders)
        self.v = self._make_dense(width, values, self.householders)
        self.conv = CausalConv(self._convolved, self.conv_width, use_bias=False, dtype=self.dtype)
        self.beta = self._make_dense(width, self.heads, self.householders, dtype=jnp.float32, precision="highest")
        if self.gated:
            self.decay = ForgetGate(self.heads, self._kernel_init(width, self.heads))
        if self.output_gate:
            self.gate = self._make_dense(width, values)
        self.norm = nn.RMSNorm(epsilon=1e-5, dtype=jnp.float32)
        self.out = self._make_dense(values, width)

    def recur(self, x: jax.Array, state: State, reset: jax.Array | None, scan: str) -> tuple[jax.Array, State]:
        q, k, v, beta, history = self._project(x, state["conv"], reset)
        log_gate = self.decay(x) if self.gated else None
        o, s = scan_delta_product(q, k, v, beta, log_gate=log_gate, h0=state["S"], reset=reset, method=scan)
        o = self.norm(o).reshape(*x.shape[:2], -1)
        if self.output_gate:
            o = o * nn.silu(self.gate(x).astype(jnp.float32))
        return self.out(o.astype(self.dtype)), {"S": s, "conv": history}

    def init_state(self, batch: int) -> State:
        return {
            "S": jnp.zeros((batch, self.heads, self._key_dim, self.expand_v * self._key_dim), jnp.float32),
            "conv": empty_history(batch, self._convolved, self.conv_width),
        }

    def transition(self, x: jax.Array) -> jax.Array:
        """Returns ``g_t (I - beta_{n_h} k_{n_h} k_{n_h}^T) ... (I - beta_1 k_1 k_1^T)``, ``[B T H K K]`` float32."""
        _, k, _, beta, _ = self._project(x, self.init_state(x.shape[0])["conv"], None)
        return transition_matrices(k, beta, self.decay(x) if self.gated else None)

    def parameter_count(self) -> int:
        outputs = self._convolved + self.householders * self.heads + self._values
        gates = self.gated * (self.width + 2) * self.heads + self.output_gate * self.width * self._values
        conv = count_parameters(self._convolved, self.conv_width, use_bias=False)
        return self.width * outputs + conv + gates + self._values // self.heads

    def state_count(self) -> int:
        return self._key_dim * self._values + count_state(self._convolved, self.conv_width)

    def _make_dense(self, inputs: int, outputs: int, matrices: int = 1, **how: Any) -> Dense:
        """Several matrices ``[inputs outputs]`` side by side."""
        kernel_init = self._kernel_init(inputs, outputs)
        return Dense(matrices * outputs, use_bias=False, kernel_init=kernel_init, **{"dtype": self.dtype, **how})

    def _kernel_init(self, inputs: int, outputs: int) -> nn.initializers.Initializer:
        released = self.initial_values == "released"
        return xavier_uniform(inputs, outputs, gain=2**-2.5) if released else nn.linear.default_kernel_init

    def _project(self, x: jax.Array, history: jax.Array, reset: jax.Array | None) -> tuple:
        """Returns q, k, v and beta per head, k, v and beta with an axis n_h after T, in float32, and the conv's state."""
        joined = jnp.concatenate([self.q(x), self.k(x), self.v(x)], axis=-1)
        joined, history = self.conv(joined, history, reset)
        ends = [self._keys, (1 + self.householders) * self._keys]
        q, k, v = jnp.split(joined.astype(jnp.float32), ends, axis=-1)
        if self.key_activation == "silu":
            q, k = nn.silu(q), nn.silu(k)
        q = q.reshape(*q.shape[:2], self.heads, -1)
        k, v = (z.reshape(*z.shape[:2], self.householders, self.heads, -1) for z in (k, nn.silu(v)))
        beta = nn.sigmoid(self.beta(x.astype(jnp.float32))).reshape(k.shape[:-1])
        beta = 2.0 * beta if self.negative_eigenvalues else beta
        return normalise_l2(q) * self._key_dim**-0.5, normalise_l2(k), v, beta, history


class ForgetGate(nn.Module):
    """``log alpha_t = -exp(A_log) softplus(W_a x_t + dt_bias)`` per head, in float32.

    Attributes:
      heads: H.
      kernel_init: of W_a.

    Source: Dao and Gu 2024; Yang et al. 2025, Section 3.1, whose code starts as this does: exp(A_log) uniform in [0, 16],
    softplus(dt_bias) log-uniform in [1e-3, 1e-1].
    """

    heads: int
    kernel_init: nn.initializers.Initializer = nn.linear.default_kernel_init

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T H"]:
        """Returns the logarithm of the gate, at most 0."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.heads), jnp.float32)
        a_log = self.param("A_log", _init_a_log, (self.heads,))
        dt_bias = self.param("dt_bias", init_dt_bias, (self.heads,))
        dt = nn.softplus(project(x.astype(jnp.float32), kernel, precision="highest") + dt_bias[None, None])
        return -jnp.exp(a_log)[None, None] * dt


def _init_a_log(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    # at exactly 0 the logarithm would be infinite
    return jnp.log(jax.random.uniform(key, shape, dtype, jnp.finfo(dtype).tiny, 16.0))
