"""lrnn_jax: the lab bench for linear recurrent networks in JAX."""

__version__ = "0.1.0"
