"""Initial values that several layers share."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def uniform(bound: float) -> nn.initializers.Initializer:
    """Returns an initialiser that draws uniformly from +-``bound``."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def xavier_uniform(inputs: int, outputs: int, gain: float = 1.0) -> nn.initializers.Initializer:
    """Returns an initialiser that draws uniformly with standard deviation ``gain sqrt(2 / (inputs + outputs))``.

    Args:
      inputs: fan in.
      outputs: fan out, which is not the array's where matrices stand side by side in it.
      gain: factor.
    """
    return uniform(gain * (6.0 / (inputs + outputs)) ** 0.5)


def log_uniform(low: float, high: float) -> nn.initializers.Initializer:
    """Returns an initialiser of logarithms that are uniform between those of ``low`` and ``high``."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, jnp.log(low), jnp.log(high))

    return init


def init_dt_bias(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Draws a bias whose softplus, a step size, is log-uniform in [1e-3, 1e-1]. Source: the code of Gu and Dao 2023."""
    dt = jnp.exp(jax.random.uniform(key, shape, dtype, math.log(1e-3), math.log(1e-1)))
    return dt + jnp.log(-jnp.expm1(-dt))  # the inverse of softplus


def common_key(module: nn.Module) -> jax.Array:
    """Returns one random key for the initial values of several parameters that must be drawn together."""
    # where a module is applied, initial values are traced for their shapes alone, and there may be no key
    return module.make_rng("params") if module.has_rng("params") else jax.random.key(0)
