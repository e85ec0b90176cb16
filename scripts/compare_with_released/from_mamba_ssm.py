"""Mamba and Mamba-2 as in mamba_ssm, on the paths that need no kernel or with the package's own reference of it."""

import functools
import os
import sys
import types
from typing import Any

import torch
from torch.nn.functional import silu, softplus

from scripts.compare_with_released.comparing import STEPS, WIDTH, Released, Tensors, linear, step_through, taps


@functools.cache
def import_mamba_ssm() -> Any:
    """Imports mamba_ssm where none of its kernels was built."""
    os.environ["TRITON_INTERPRET"] = "1"
    sys.modules.setdefault("selective_scan_cuda", types.ModuleType("selective_scan_cuda"))
    import mamba_ssm.modules.mamba2
    import mamba_ssm.modules.mamba_simple

    return mamba_ssm.modules


def make_mamba(layer: Any) -> Released:
    """Mamba; the range [-1, 1] as in the kernel that Grazzi et al. 2025 released, 2 exp(dt A) - 1 for exp(dt A)."""
    code = import_mamba_ssm().mamba_simple
    from mamba_ssm.ops.selective_scan_interface import selective_scan_ref

    code.selective_scan_fn = _scan_both_signs if layer.negative_eigenvalues else selective_scan_ref
    code.selective_state_update = None
    module = code.Mamba(
        WIDTH,
        d_state=layer.state_size,
        d_conv=layer.conv_width,
        expand=layer.expand,
        dt_rank=layer.dt_rank or "auto",
        use_fast_path=False,
        layer_idx=0,
    )
    # its step knows the range [0, 1] alone
    return Released("mamba-ssm", module, name_mamba, decode=None if layer.negative_eigenvalues else _decode)


def make_mamba2(layer: Any) -> Released:
    """Mamba-2."""
    code = import_mamba_ssm().mamba2
    code.mamba_chunk_scan_combined = _scan_in_chunks
    code.RMSNormGated.forward = _normalise
    code.selective_state_update = None
    module = code.Mamba2(
        WIDTH,
        d_state=layer.state_size,
        d_conv=layer.conv_width,
        expand=layer.expand,
        headdim=layer.expand * WIDTH // layer.heads,
        ngroups=layer.groups,
        use_mem_eff_path=False,
        layer_idx=0,
    )
    # its step without a kernel is for one group
    return Released("mamba-ssm", module, name_mamba2, decode=None if layer.groups > 1 else _decode)


def name_mamba(p: Tensors) -> Tensors:
    """Returns the state dict of mamba_ssm, and of transformers, from the parameters of Mamba."""
    named = linear(p, in_proj="in_proj", x_proj="x_proj", dt_proj="dt_proj", out_proj="out_proj")
    conv = {"conv1d.weight": taps(p["conv/kernel"]), "conv1d.bias": p["conv/bias"]}
    return {**named, **conv, "dt_proj.bias": p["dt_proj/bias"], "A_log": p["A_log"], "D": p["D"]}


def name_mamba2(p: Tensors) -> Tensors:
    """Returns the state dict of mamba_ssm, and of transformers, from the parameters of Mamba2."""
    named = linear(p, in_proj="in_proj", out_proj="out_proj")
    conv = {"conv1d.weight": taps(p["conv/kernel"]), "conv1d.bias": p["conv/bias"]}
    own = {name: p[name] for name in ("dt_bias", "A_log", "D")}
    return {**named, **conv, **own, "norm.weight": p["norm_scale"]}


def _decode(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, Tensors]:
    def step(x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        y, *state = module.step(x, *state)
        return y, state

    y, (_, h) = step_through(step, x, module.allocate_inference_cache(x.shape[0], STEPS))
    return y, {"h": h if h.ndim == 3 else h.mT}


def _scan_both_signs(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor,
    *,
    z: torch.Tensor,
    delta_bias: torch.Tensor,
    delta_softplus: bool,
    return_last_state: bool,
) -> torch.Tensor:
    """The package's selective_scan_ref, whose arguments these are, with 2 exp(dt A) - 1."""
    assert delta_softplus and not return_last_state
    dt = softplus(delta + delta_bias[:, None])
    h, outputs = torch.zeros(u.shape[0], *A.shape), []
    for t in range(u.shape[-1]):
        abar = 2.0 * torch.exp(dt[:, :, t, None] * A) - 1.0
        h = abar * h + (dt * u)[:, :, t, None] * B[:, None, :, t]
        outputs.append((h * C[:, None, :, t]).sum(-1))
    return (torch.stack(outputs, dim=-1) + D[:, None] * u) * silu(z)


def _scan_in_chunks(
    x: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, **how: Any
) -> torch.Tensor:
    """What the fused kernel does, by the package's minimal form of the same paper (Listing 1)."""
    from mamba_ssm.modules.ssd_minimal import ssd_minimal_discrete

    dt = softplus(dt + how["dt_bias"])
    B, C = (z.repeat_interleave(x.shape[2] // z.shape[2], dim=2) for z in (B, C))
    y, _ = ssd_minimal_discrete(x * dt[..., None], A * dt, B, C, block_len=8)
    return y + how["D"][:, None] * x


def _normalise(norm: Any, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """The package's reference of its kernel."""
    from mamba_ssm.ops.triton.layernorm_gated import rms_norm_ref

    how = {"eps": norm.eps, "group_size": norm.group_size, "norm_before_gate": norm.norm_before_gate}
    return rms_norm_ref(x, norm.weight, norm.bias, z=z, **how)


CASES: list[tuple[str, dict[str, Any], Any]] = [
    ("mamba", {}, make_mamba),
    ("mamba", {"negative_eigenvalues": False}, make_mamba),
    ("mamba2", {}, make_mamba2),
    ("mamba2", {"groups": 2, "state_size": 16}, make_mamba2),
]
