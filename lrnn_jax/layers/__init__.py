"""One file is one paper's layer.

Their examples take ``import jax``, ``import jax.numpy as jnp`` and ``from lrnn_jax import`` of the layer for granted.
"""
