"""Compares layers with the PyTorch code released with their papers: the same weights in both, float32, one CPU.

From the root of a checkout, in an environment of its own that has this package and the released ones:

    pip install -e . torch triton einops opt_einsum transformers xlstm flash-linear-attention setuptools wheel packaging
    MAMBA_FORCE_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=TRUE pip install --no-deps --no-build-isolation mamba-ssm
    pip install --no-deps espnet s5-pytorch lru-pytorch
    python -m scripts.compare_with_released [--layer NAME]

Every weight is drawn at random, norms and biases too, and is given to the released module in its own layout: how is in the
files beside this one, one per package, and in the layers' docstrings. Kernels of fla run in Triton's interpreter. Where a
package has kernels for an accelerator only, its own reference in PyTorch stands in for them; Mamba's range [-1, 1], which no
package has, is 2 exp(dt A) - 1 for exp(dt A) in a loop of ours inside mamba_ssm's module. Of S4 and S4D ESPnet has the
authors' code, S4's here in float64 and with a Cauchy sum of ours; s5-pytorch and lru-pytorch are by others. A package that is
not there is one line, "skipped". The exit status is 1 if a difference, max |a - b| / max |b|, is above `LIMITS`.

The diagonal layer, the full matrix, BD-LRU and H-LRU are not compared: no package has their released code.

Printed on 2 cores that other work was using too, in 12 minutes, and from `gru` on later (``y`` and the other columns:
`comparing.compare`):

layer and settings                                      reference                    y      dx      dw  packed decoded   state
deltanet                                                fla-core 0.6.0         8.0e-07 2.0e-06 2.2e-06 6.2e-07 6.6e-07 5.6e-07
deltanet negative_eigenvalues=False                     fla-core 0.6.0         6.6e-07 1.9e-06 1.4e-06 5.6e-07 6.3e-07 3.1e-07
deltanet key_activation=linear                          fla-core 0.6.0         7.4e-07 1.6e-06 1.7e-06 7.8e-07 5.4e-07 3.9e-07
deltanet conv_width=0                                   fla-core 0.6.0         5.3e-07 5.1e-07 1.4e-06 5.6e-07 4.2e-07 3.6e-07
gated_deltanet                                          fla-core 0.6.0         1.3e-06 3.2e-06 2.9e-06 1.3e-06 8.8e-07 5.4e-07
gated_deltanet negative_eigenvalues=False head_dim=16   fla-core 0.6.0         6.0e-07 3.2e-07 4.8e-07 6.8e-07 8.4e-07 4.0e-07
deltaproduct                                            fla-core 0.6.0         7.6e-07 5.4e-07 8.6e-07 5.5e-07 6.0e-07 4.5e-07
deltaproduct householders=3 conv_width=0 head_dim=16    fla-core 0.6.0         5.1e-07 7.5e-07 8.3e-07 3.8e-07 6.5e-07 3.6e-07
deltaproduct gated=True output_gate=True expand_v=2     fla-core 0.6.0         4.9e-07 3.9e-07 8.6e-06 5.4e-07 6.0e-07 6.8e-07
gla                                                     fla-core 0.6.0         3.6e-07 7.2e-07 7.8e-07 3.6e-07 4.2e-07 2.1e-07
gla conv_width=4 gate_normaliser=4.0                    fla-core 0.6.0         5.0e-07 1.3e-06 3.4e-06 4.7e-07 4.3e-07 2.2e-07
rwkv7                                                   fla-core 0.6.0         5.0e-07 5.1e-06 4.3e-06 5.1e-07 5.9e-07 7.8e-07
mamba                                                   mamba-ssm 2.3.2.post1  2.5e-07 3.8e-07 5.8e-07 2.5e-07       -       -
mamba negative_eigenvalues=False                        mamba-ssm 2.3.2.post1  2.3e-07 4.1e-07 6.5e-07 2.0e-07 3.7e-07 3.3e-07
mamba2                                                  mamba-ssm 2.3.2.post1  5.6e-07 7.1e-07 1.1e-06 4.6e-07 4.5e-07 2.3e-07
mamba2 groups=2 state_size=16                           mamba-ssm 2.3.2.post1  3.5e-07 3.2e-07 2.6e-06 4.1e-07       -       -
mlstm                                                   xlstm 2.0.6            4.9e-07 6.7e-07 3.8e-05 3.0e-07 4.3e-07 3.2e-07
mlstm heads=2 block_size=8                              xlstm 2.0.6            2.7e-07 5.6e-07 5.8e-05 3.1e-07 8.0e-07 3.6e-07
slstm                                                   xlstm 2.0.6            2.8e-07 2.4e-07 6.6e-07 3.9e-07 2.4e-07 4.5e-07
slstm conv_width=0 heads=2                              xlstm 2.0.6            3.0e-07 4.9e-07 5.9e-07 2.7e-07 2.6e-07 2.6e-07
mamba negative_eigenvalues=False                        transformers 5.24.0    2.3e-07 4.1e-07 6.5e-07 2.0e-07       -       -
mamba2 groups=2                                         transformers 5.24.0    4.0e-07 7.0e-07 1.8e-06 4.0e-07       -       -
gated_deltanet negative_eigenvalues=False               transformers 5.24.0    7.6e-07 1.8e-06 1.4e-06 4.9e-07       -       -
transformer window=16                                   transformers 5.24.0    2.4e-07 2.9e-07 4.2e-07 2.4e-07 3.0e-07 2.3e-07
lstm                                                    torch 2.13.0+cpu       2.3e-07 4.5e-07 3.7e-07 2.9e-07 2.7e-07 2.4e-07
gru                                                     torch 2.13.0+cpu       3.7e-07 2.8e-07 3.9e-07 3.4e-07 1.8e-07 1.9e-07
rnn                                                     torch 2.13.0+cpu       2.5e-07 4.1e-07 4.6e-07 2.2e-07 1.5e-07 4.2e-07
rnn activation=relu                                     torch 2.13.0+cpu       2.8e-07 2.1e-07 3.5e-07 2.5e-07 2.4e-07 1.7e-07
lru                                                     lru-pytorch 0.1.3      1.4e-06 1.6e-06 2.1e-05 8.9e-07       -       -
lru state_size=16 r_min=0.9                             lru-pytorch 0.1.3      8.2e-07 5.2e-07 2.0e-06 5.1e-07       -       -
s4                                                      espnet 202511          1.4e-06 7.4e-07 5.2e-05 2.5e-07 2.6e-06 3.7e-06
s4 state_size=16                                        espnet 202511          4.6e-07 8.9e-07 1.2e-05 2.2e-07 9.0e-07 1.5e-06
s4d                                                     espnet 202511          1.1e-06 1.9e-06 9.5e-06 5.2e-07 1.2e-06 3.9e-06
s4d discretisation=bilinear eigenvalues=lin             espnet 202511          1.2e-06 1.2e-06 3.0e-06 3.9e-07 1.0e-06 2.8e-06
s5                                                      s5-pytorch 0.2.1       4.8e-07 9.4e-07 1.2e-06 5.7e-07 4.2e-07 1.5e-06
s5 discretisation=bilinear conj_sym=False               s5-pytorch 0.2.1       4.5e-07 5.1e-07 1.5e-06 2.8e-07 5.2e-07 2.0e-06
s5 bidirectional=True                                   s5-pytorch 0.2.1       7.5e-07 5.2e-07 3.0e-06 4.3e-07       -       -
"""

import argparse
import importlib
import importlib.metadata
import sys
import warnings
from typing import Any

import jax

# Largest relative differences, max |a - b| / max |b|. A single weight's gradient may be what is left of larger terms that
# cancel, as that of mLSTM's input gate's bias, of which float32 keeps 1e-5 in either code, or of S4's step size.
LIMITS = {"y": 1e-5, "dx": 1e-5, "dw": 1e-4, "packed": 1e-5, "decoded": 1e-5, "state": 1e-5}


def main() -> int:
    """Prints one line per case; returns 1 if one differs by more than `LIMITS`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--layer", help="this layer alone")
    chosen = parser.parse_args().layer
    try:
        importlib.import_module("torch")
        from scripts.compare_with_released import (
            comparing,
            from_espnet,
            from_fla,
            from_lru_pytorch,
            from_mamba_ssm,
            from_s5_pytorch,
            from_torch,
            from_transformers,
            from_xlstm,
        )
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        print("skipped: package torch is not installed")
        return 0
    packages = [from_fla, from_mamba_ssm, from_xlstm, from_transformers, from_torch]
    packages += [from_lru_pytorch, from_espnet, from_s5_pytorch]
    cases = [case for package in packages for case in package.CASES]
    names = sorted({name for name, _, _ in cases})
    if chosen not in (None, *names):
        parser.error(f"--layer={chosen} is not one of {', '.join(names)}")
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
    return not all(value <= LIMITS[column] for column, value in found.items())  # nor is NaN within


if __name__ == "__main__":
    sys.exit(main())
