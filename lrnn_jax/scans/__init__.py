"""The maths of every recurrence as pure array functions: no modules, no config.

All of them take batch first and time second, NumPy arrays or JAX's, of any floating dtype and any length, 0 included. They
compute in float32 (attention multiplies in its inputs' dtype) and return every output with the last state, which continues the
row in another call as ``h0``. What does not fit together is refused by name and shape; nothing is broadcast.

The examples take ``import numpy as np`` and ``from lrnn_jax.scans import *`` for granted.
"""

from lrnn_jax.scans.attention import scan_attention
from lrnn_jax.scans.blocks import scan_blocks
from lrnn_jax.scans.companion import scan_companion
from lrnn_jax.scans.delta import scan_delta_product, scan_delta_rule
from lrnn_jax.scans.dense import scan_dense
from lrnn_jax.scans.diagonal import scan_diagonal, scan_diagonal_complex
from lrnn_jax.scans.dplr import scan_dplr
from lrnn_jax.scans.outer import scan_gated_outer
from lrnn_jax.scans.product import scan_product
from lrnn_jax.scans.selective import scan_selective
from lrnn_jax.scans.time_invariant import scan_time_invariant

__all__ = [
    "scan_attention",
    "scan_blocks",
    "scan_companion",
    "scan_delta_product",
    "scan_delta_rule",
    "scan_dense",
    "scan_diagonal",
    "scan_diagonal_complex",
    "scan_dplr",
    "scan_gated_outer",
    "scan_product",
    "scan_selective",
    "scan_time_invariant",
]
