"""What every test runs under: strict dtypes and ranks, two CPU devices, annotated shapes checked, warnings as errors."""

import atexit
import os
import shutil
import tempfile

# Compiling takes most of the time, so XLA optimises little: a program takes it a fifth of the time.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + (
    " --xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
os.environ["JAX_PLATFORMS"] = os.environ.get("LRNN_TEST_PLATFORM", "cpu")  # LRNN_TEST_PLATFORM=cuda: layers and scans on a GPU

# Many tests train the same tiny model: each program is compiled once per session, by whichever process comes first.
# A folder of this session's own, whatever a killed session has left half-written.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="lrnn-jax-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

# Tokens of the text that tests read, likewise once per session; never in the user's own cache, even where that is named.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["LRNN_CACHE_DIR"] = tempfile.mkdtemp(prefix="lrnn-tokens-tests-")
    atexit.register(shutil.rmtree, os.environ["LRNN_CACHE_DIR"], ignore_errors=True)

from jaxtyping import install_import_hook

# Checks every array annotation of the pure functions and of what surrounds the layers, while tests run.
install_import_hook(["lrnn_jax.scans", "lrnn_jax.models", "lrnn_jax.tasks"], "beartype.beartype")

import jax  # noqa: E402 - after the hook and the flags

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_addoption(parser):
    parser.addoption("--layer", help="module:Class of a layer outside the package, which the generic tests shall take as well")


def pytest_configure(config):
    from lrnn_jax.registry import LAYERS

    if layer := config.getoption("--layer"):
        LAYERS[layer] = layer
