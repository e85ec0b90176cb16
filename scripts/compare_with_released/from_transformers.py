"""Layers of Hugging Face's transformers: attention with rotary positions, and second readings of layers compared elsewhere."""

import importlib
import inspect
import types
from typing import Any

import torch

from scripts.compare_with_released.comparing import DECODED, WIDTH, Released, Tensors, linear, taps
from scripts.compare_with_released.from_mamba_ssm import name_mamba, name_mamba2


def import_model(name: str) -> types.ModuleType:
    """Imports the model's code on its paths in plain PyTorch, whichever packages with kernels are installed beside it."""
    code = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    for key, value in vars(code).items():
        if inspect.isfunction(value):
            setattr(code, key, inspect.unwrap(value))
    return code


def make_transformer(layer: Any) -> Released:
    """LlamaAttention, with as many heads of keys as of queries."""
    from transformers import DynamicCache, LlamaConfig

    config = LlamaConfig(
        hidden_size=WIDTH, num_attention_heads=layer.heads, num_key_value_heads=layer.heads, attn_implementation="eager"
    )
    code = import_model("llama")
    module, rotary = code.LlamaAttention(config, layer_idx=0), code.LlamaRotaryEmbedding(config)

    def attend(call: Any, x: torch.Tensor, start: int = 0, **how: Any) -> torch.Tensor:
        positions = torch.arange(start, start + x.shape[1])
        distance = positions[:, None] - torch.arange(start + x.shape[1])[None]
        visible = (distance >= 0) & (distance < layer.window)
        mask = torch.zeros(distance.shape).masked_fill(~visible, float("-inf"))[None, None]
        return call(x, position_embeddings=rotary(x, positions[None]), attention_mask=mask, **how)[0]

    def weights(p: Tensors) -> Tensors:
        return linear(p, q_proj="q", k_proj="k", v_proj="v", o_proj="out")

    def decode(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, Tensors]:
        cache, cut = DynamicCache(), x.shape[1] - DECODED
        parts = [(0, x[:, :cut]), *((t, x[:, t : t + 1]) for t in range(cut, x.shape[1]))]
        outputs = [attend(module, part, start, cache=cache) for start, part in parts]
        values = cache.layers[0].values.transpose(1, 2)[:, 1 - layer.window :]
        return torch.cat(outputs[1:], dim=1), {"v": values}

    return Released("transformers", module.eval(), weights, attend, decode)


def make_mamba(layer: Any) -> Released:
    """MambaMixer."""
    from transformers import MambaConfig

    config = MambaConfig(
        hidden_size=WIDTH,
        state_size=layer.state_size,
        expand=layer.expand,
        conv_kernel=layer.conv_width,
        time_step_rank=layer.dt_rank or "auto",
    )
    return Released("transformers", import_model("mamba").MambaMixer(config, layer_idx=0).eval(), name_mamba)


def make_mamba2(layer: Any) -> Released:
    """Mamba2Mixer."""
    from transformers import Mamba2Config

    config = Mamba2Config(
        hidden_size=WIDTH,
        num_heads=layer.heads,
        head_dim=layer.expand * WIDTH // layer.heads,
        state_size=layer.state_size,
        expand=layer.expand,
        conv_kernel=layer.conv_width,
        n_groups=layer.groups,
    )
    return Released("transformers", import_model("mamba2").Mamba2Mixer(config, layer_idx=0).eval(), name_mamba2)


def make_gated_deltanet(layer: Any) -> Released:
    """Qwen3-Next's GatedDeltaNet, whose fused projections are ordered by head."""
    from transformers import Qwen3NextConfig

    heads, size = layer.heads, layer.head_dim or WIDTH // layer.heads
    config = Qwen3NextConfig(
        hidden_size=WIDTH,
        linear_num_key_heads=heads,
        linear_num_value_heads=heads,
        linear_key_head_dim=size,
        linear_value_head_dim=layer.expand_v * size,
        linear_conv_kernel_dim=layer.conv_width,
        rms_norm_eps=1e-5,
    )

    def weights(p: Tensors) -> Tensors:
        def by_head(*names: str) -> torch.Tensor:
            parts = [p[f"{name}/kernel"].T.reshape(heads, -1, WIDTH) for name in names]
            return torch.cat(parts, dim=1).reshape(-1, WIDTH)

        return {
            "in_proj_qkvz.weight": by_head("q", "k", "v", "gate"),
            "in_proj_ba.weight": by_head("beta", "decay"),
            "conv1d.weight": taps(p["conv/kernel"]),
            "A_log": p["decay/A_log"],
            "dt_bias": p["decay/dt_bias"],
            "norm.weight": p["norm/scale"],
            "out_proj.weight": p["out/kernel"].T,
        }

    return Released("transformers", import_model("qwen3_next").Qwen3NextGatedDeltaNet(config, layer_idx=0).eval(), weights)


CASES: list[tuple[str, dict[str, Any], Any]] = [
    ("mamba", {"negative_eigenvalues": False}, make_mamba),
    ("mamba2", {"groups": 2}, make_mamba2),
    ("gated_deltanet", {"negative_eigenvalues": False}, make_gated_deltanet),
    ("transformer", {"window": 16}, make_transformer),
]
