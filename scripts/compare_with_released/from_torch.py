"""The LSTM of PyTorch."""

from typing import Any

import torch

from scripts.compare_with_released.comparing import DECODED, WIDTH, Released, Tensors


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


CASES: list[tuple[str, dict[str, Any], Any]] = [
    ("lstm", {}, make_lstm),
]
