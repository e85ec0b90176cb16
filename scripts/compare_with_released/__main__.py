"""Compares layers with the PyTorch code released with their papers: the same weights in both, float32, one CPU.

From the root of a checkout, in an environment of its own that has this package and the released ones:

    pip install -e . torch triton einops transformers xlstm flash-linear-attention setuptools wheel packaging
    MAMBA_FORCE_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=TRUE pip install --no-deps --no-build-isolation mamba-ssm
    python -m scripts.compare_with_released [--layer NAME]

Every weight is drawn at random, norms and biases too, and is given to the released module in its own layout: how is in the
files beside this one, one per package, and in the layers' docstrings. Kernels of fla run in Triton's interpreter. Where a
package has kernels for an accelerator only, its own reference in PyTorch stands in for them; Mamba's range [-1, 1], which no
package has, is 2 exp(dt A) - 1 for exp(dt A) in a loop of ours inside mamba_ssm's module. A package that is not there is one
line, "skipped". The exit status is 1 if a difference, max |a - b| / max |b|, is above `LIMITS`.

LRU, the diagonal layer and the full matrix are not compared: no package has their released code.

TABLE
"""

import argparse
import importlib
import importlib.metadata
import sys
import warnings
from typing import Any

import jax

# Largest relative differences, max |a - b| / max |b|. A single weight's gradient may be what is left of larger terms that
# cancel, as that of mLSTM's input gate's bias, of which float32 keeps 1e-5 in either code.
LIMITS = {"y": 1e-5, "dx": 1e-5, "dw": 1e-4, "packed": 1e-5, "decoded": 1e-5, "state": 1e-5}


def main() -> int:
    """Prints one line per case; returns 1 if one differs by more than `LIMITS`."""
    try:
        importlib.import_module("torch")
        from scripts.compare_with_released import comparing, from_fla, from_mamba_ssm, from_torch, from_transformers, from_xlstm
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        print("skipped: package torch is not installed")
        return 0
    cases = [case for module in (from_fla, from_mamba_ssm, from_xlstm, from_transformers, from_torch) for case in module.CASES]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--layer", choices=sorted({name for name, _, _ in cases}), help="this layer alone")
    chosen = parser.parse_args().layer
    jax.config.update("jax_platforms", "cpu")
    print(f"{'layer and settings':<56}{'reference':<22}" + "".join(f"{column:>8}" for column in LIMITS))
    failed = False
    for name, fields, make in cases:
        if chosen in (None, name):
            failed |= report(name, fields, make, comparing)
    return int(failed)


def report(name: str, fields: dict[str, Any], make: Any, comparing: Any) -> bool:
    """Compares one case and prints its line; returns whether it differs by more than `LIMITS`."""
    from lrnn_jax.registry import load_layer

    start = f"{' '.join([name, *(f'{key}={value}' for key, value in fields.items())]):<56}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer = load_layer(name)(width=comparing.WIDTH, **fields)
            released = make(layer)
            found = comparing.compare(layer, released)
    except ModuleNotFoundError as error:
        print(f"{start}skipped: package {error.name} is not installed", flush=True)
        return False
    reference = f"{released.package} {importlib.metadata.version(released.package)}"
    cells = [f"{found[column]:.1e}" if column in found else "-" for column in LIMITS]
    print(f"{start}{reference:<22}" + "".join(f"{cell:>8}" for cell in cells), flush=True)
    return any(value > LIMITS[column] for column, value in found.items())


if __name__ == "__main__":
    sys.exit(main())
