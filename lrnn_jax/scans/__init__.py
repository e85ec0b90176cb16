"""The maths of every recurrence as pure array functions: no modules, no config."""

from lrnn_jax.scans.attention import scan_attention
from lrnn_jax.scans.delta import scan_delta_product, scan_delta_rule
from lrnn_jax.scans.diagonal import scan_diagonal, scan_diagonal_complex
from lrnn_jax.scans.dplr import scan_dplr
from lrnn_jax.scans.outer import scan_gated_outer
from lrnn_jax.scans.product import scan_product
from lrnn_jax.scans.selective import scan_selective

__all__ = [
    "scan_attention",
    "scan_delta_product",
    "scan_delta_rule",
    "scan_diagonal",
    "scan_diagonal_complex",
    "scan_dplr",
    "scan_gated_outer",
    "scan_product",
    "scan_selective",
]
