"""Layers as somebody outside the package writes them: what is generic must work for them too."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrnn_jax.parts.layer import MATRICES, RecurrentLayer
from lrnn_jax.scans import scan_diagonal
from lrnn_jax.scans.exact import einsum
from lrnn_jax.scans.method import Serves


class Leaky(RecurrentLayer):
    """``y_t = a y_{t-1} + x_t``, elementwise. Its convolution knows neither states nor resets."""

    SOURCE = "none"
    METHODS = {"sequential": Serves(), "convolution": Serves(state=False, reset=False)}
    PARAM_GROUPS = {"decay$": MATRICES}
    VARIANTS = {"slow": {"start": 3.0}}
    START_STATE = False

    start: float = 1.0

    @nn.compact
    def recur(self, x, state, reset, scan):
        decay = self._decay()
        if scan == "convolution":
            assert state is None
            lag = jnp.arange(x.shape[1])[:, None] - jnp.arange(x.shape[1])[None]
            powers = jnp.where(lag[..., None] < 0, 0.0, decay[None, None] ** jnp.maximum(lag, 0).astype(jnp.float32)[..., None])
            y = einsum("tsd,bsd->btd", powers, x.astype(jnp.float32))
            return y, y[:, -1]
        a = jnp.broadcast_to(decay[None, None], x.shape)
        return scan_diagonal(a, x.astype(jnp.float32), h0=state, reset=reset, method=scan)

    def init_state(self, batch):
        return jnp.zeros((batch, self.width), jnp.float32)

    @nn.compact
    def transition(self, x):
        return self._decay()

    def parameter_count(self):
        return self.width

    def state_count(self):
        return self.width

    def _decay(self):
        return nn.sigmoid(self.param("decay", lambda key: self.start + 0.1 * jax.random.normal(key, (self.width,))))


class BothWays(Leaky):
    """The sum of `Leaky` from the left and from the right: not causal, and without a state."""

    METHODS = {"sequential": Serves()}
    CAUSAL = False

    @nn.compact
    def recur(self, x, state, reset, scan):
        a, x = jnp.broadcast_to(self._decay()[None, None], x.shape), x.astype(jnp.float32)
        left, _ = scan_diagonal(a, x, reset=reset, method=scan)
        right, _ = scan_diagonal(a, x, reset=reset, method=scan, reverse=True)
        return left + right, ()

    def init_state(self, batch):
        return ()

    def state_count(self):
        return 0
