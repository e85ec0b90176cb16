"""The mLSTM and the sLSTM as in NX-AI's xlstm, in plain PyTorch."""

from typing import Any

import torch

from scripts.compare_with_released.comparing import STEPS, WIDTH, Released, Tensors, linear, step_through, taps


def make_mlstm(layer: Any) -> Released:
    """mLSTM: all at once by its parallel form, step by step by its recurrent one."""
    from xlstm.blocks.mlstm.layer import mLSTMLayer, mLSTMLayerConfig

    module = mLSTMLayer(
        mLSTMLayerConfig(
            conv1d_kernel_size=layer.conv_width,
            qkv_proj_blocksize=layer.block_size,
            num_heads=layer.heads,
            proj_factor=float(layer.expand),
            embedding_dim=WIDTH,
            context_length=STEPS,
        )
    )

    def weights(p: Tensors) -> Tensors:
        named = linear(p, proj_up="up", mlstm_cell__igate="input_gate", mlstm_cell__fgate="forget_gate", proj_down="down")
        named |= {f"{name}_proj.weight": p[f"{name}_kernel"].mT for name in "qkv"}
        named |= {"conv1d.conv.weight": taps(p["conv/kernel"]), "conv1d.conv.bias": p["conv/bias"]}
        named |= {"mlstm_cell.igate.bias": p["input_gate/bias"], "mlstm_cell.fgate.bias": p["forget_gate/bias"]}
        return named | {"mlstm_cell.outnorm.weight": p["norm_scale"] - 1.0, "learnable_skip": p["skip"]}

    def decode(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, Tensors]:
        y, state = step_through(lambda x, state: module.step(x, **(state or {})), x)
        return y, dict(zip("Cnm", state["mlstm_state"], strict=True))

    return Released("xlstm", module, weights, decode=decode)


def make_slstm(layer: Any) -> Released:
    """sLSTM, by its "vanilla" backend."""
    from xlstm.blocks.slstm.layer import sLSTMLayer, sLSTMLayerConfig

    module = sLSTMLayer(
        sLSTMLayerConfig(
            embedding_dim=WIDTH,
            num_heads=layer.heads,
            conv1d_kernel_size=layer.conv_width,
            backend="vanilla",
            dtype="float32",
        )
    )

    def weights(p: Tensors) -> Tensors:
        # the released layer gives fgate's output to the input gate and igate's to the forget gate
        theirs = {"fgate": "i", "igate": "f", "zgate": "z", "ogate": "o"}
        named = {f"{name}.weight": p[f"{gate}_kernel"].mT for name, gate in theirs.items()}
        if layer.conv_width:
            named |= {"conv1d.conv.weight": taps(p["conv/kernel"]), "conv1d.conv.bias": p["conv/bias"]}
        size = WIDTH // layer.heads
        recurrent = p["recurrent_kernel"].permute(0, 2, 3, 1).reshape(layer.heads, 4 * size, size)
        named |= {"slstm_cell._recurrent_kernel_": recurrent, "slstm_cell._bias_": p["bias"].transpose(0, 1).flatten()}
        return named | {"group_norm.weight": p["norm/scale"].flatten() - 1.0}

    def decode(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, Tensors]:
        y, state = step_through(lambda x, state: module.step(x, **(state or {})), x)
        return y, dict(zip("hcnm", state["slstm_state"], strict=True))

    return Released("xlstm", module, weights, decode=decode)


CASES: list[tuple[str, dict[str, Any], Any]] = [
    ("mlstm", {}, make_mlstm),
    ("mlstm", {"heads": 2, "block_size": 8}, make_mlstm),
    ("slstm", {}, make_slstm),
    ("slstm", {"conv_width": 0, "heads": 2}, make_slstm),
]
