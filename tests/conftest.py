"""What every test runs under: strict dtypes and ranks, eight CPU devices, annotated shapes checked, warnings as errors."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

from jaxtyping import install_import_hook

# Checks every array annotation of the pure functions and of what surrounds the layers, while tests run.
install_import_hook(["lrnn_jax.scans", "lrnn_jax.models", "lrnn_jax.tasks"], "beartype.beartype")

import jax  # noqa: E402 - after the hook and the flags

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
