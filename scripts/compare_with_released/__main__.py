"""Compares layers with the PyTorch code released with their papers: the same weights in both, float32, one CPU.

TODO
"""

import argparse
import importlib.metadata
import sys
import warnings
from typing import Any

import jax

LIMIT = 1e-5
COLUMNS = ("y", "dx", "dweights", "packed", "decoded", "state")


def main() -> int:
    """Prints one line per case; returns 1 if one differs by more than `LIMIT`."""
    try:
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
    print(f"{'layer and settings':<72}{'reference':<22}" + "".join(f"{column:>9}" for column in COLUMNS))
    failed = False
    for name, fields, make in cases:
        if chosen in (None, name):
            failed |= report(name, fields, make, comparing)
    return int(failed)


def report(name: str, fields: dict[str, Any], make: Any, comparing: Any) -> bool:
    """Compares one case and prints its line; returns whether it differs by more than `LIMIT`."""
    from lrnn_jax.registry import load_layer

    start = f"{' '.join([name, *(f'{key}={value}' for key, value in fields.items())]):<72}"
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
    cells = [f"{found[column]:.1e}" if column in found else "-" for column in COLUMNS]
    print(f"{start}{reference:<22}" + "".join(f"{cell:>9}" for cell in cells), flush=True)
    return max(found.values()) > LIMIT


if __name__ == "__main__":
    sys.exit(main())
