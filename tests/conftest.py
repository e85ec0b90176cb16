"""What every test runs under: strict dtypes and ranks, eight CPU devices, annotated shapes checked, warnings as errors."""

import atexit
import os
import shutil
import tempfile

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

# Many tests train the same tiny model: each program is compiled once per session, by whichever process comes first.
# A folder of this session's own: what a killed session has left half-written crashes the process that reads it.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="lrnn-jax-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

# Tokens of the text that tests read, once per session and never in the user's own cache.
os.environ["LRNN_CACHE_DIR"] = f"{tempfile.gettempdir()}/lrnn-tokens-tests-{os.getuid()}"

from jaxtyping import install_import_hook

# Checks every array annotation of the pure functions and of what surrounds the layers, while tests run.
install_import_hook(["lrnn_jax.scans", "lrnn_jax.models", "lrnn_jax.tasks"], "beartype.beartype")

import jax  # noqa: E402 - after the hook and the flags

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
