"""The LSTM of PyTorch, and attention with rotary positions of Hugging Face's transformers."""

from typing import Any

import torch

from scripts.compare_with_released.comparing import DECODED, WIDTH, Released, Tensors, linear


def make_lstm(layer: Any) -> Released:
    """torch.nn.LSTM, which has two biases per gate."""
    module = torch.nn.LSTM(WIDTH, WIDTH, batch_first=True)

    def weights(p: Tensors) -> Tensors:
        return {
            "weight_ih_l0": p["input/kernel"].T,
            "bias_ih_l0": p["input/bias"],
            "weight_hh_l0": p["recurrent_kernel"].T,
            "bias_hh_l0": torch.zeros(4 * WIDTH),
        }

    def decode(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, Tensors]:
        _, state = module(x[:, :-DECODED])
        y, (h, c) = module(x[:, -DECODED:], state)
        return y, {"h": h[0], "c": c[0]}

    return Released("torch", module, weights, lambda call, x: call(x)[0], decode)


def make_transformer(layer: Any) -> Released:
    """LlamaAttention, with as many heads of keys as of queries."""
    from transformers import DynamicCache, LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

    config = LlamaConfig(
        hidden_size=WIDTH, num_attention_heads=layer.heads, num_key_value_heads=layer.heads, attn_implementation="eager"
    )
    module, rotary = LlamaAttention(config, layer_idx=0), LlamaRotaryEmbedding(config)

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


CASES: list[tuple[str, dict[str, Any], Any]] = [
    ("transformer", {"window": 16}, make_transformer),
    ("lstm", {}, make_lstm),
]
