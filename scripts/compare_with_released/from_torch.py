"""The LSTM, the GRU and the RNN of PyTorch."""

from collections.abc import Callable
from typing import Any

import torch

from scripts.compare_with_released.comparing import DECODED, WIDTH, Released, Tensors


def make_lstm(layer: Any) -> Released:
    """torch.nn.LSTM, which has two biases per gate."""
    return _make_gated(torch.nn.LSTM, lambda p: torch.zeros(4 * WIDTH), "h", "c")


def make_gru(layer: Any) -> Released:
    """torch.nn.GRU, which has two biases for r and z as well."""
    return _make_gated(torch.nn.GRU, lambda p: torch.cat([torch.zeros(2 * WIDTH), p["recurrent_bias"]]), "")


def _make_gated(kind: Any, second_bias: Callable[[Tensors], torch.Tensor], *states: str) -> Released:
    def weights(p: Tensors) -> Tensors:
        return {
            "weight_ih_l0": p["input/kernel"].T,
            "bias_ih_l0": p["input/bias"],
            "weight_hh_l0": p["recurrent_kernel"].T,
            "bias_hh_l0": second_bias(p),
        }

    return Released("torch", kind(WIDTH, WIDTH, batch_first=True), weights, lambda call, x: call(x)[0], _decode(*states))


class Readout(torch.nn.Module):
    """torch.nn.RNN without biases, read out by C and D."""

    def __init__(self, states: int, activation: str) -> None:
        super().__init__()
        self.rnn = torch.nn.RNN(WIDTH, states, nonlinearity=activation, bias=False, batch_first=True)
        self.C = torch.nn.Parameter(torch.zeros(WIDTH, states))
        self.D = torch.nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: torch.Tensor, state: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        h, state = self.rnn(x, state)
        return h @ self.C.T + self.D * x, state


def make_rnn(layer: Any) -> Released:
    """torch.nn.RNN; PyTorch has none without a nonlinearity."""

    def weights(p: Tensors) -> Tensors:
        return {"rnn.weight_ih_l0": p["B"], "rnn.weight_hh_l0": p["A"], "C": p["C"], "D": p["D"]}

    module = Readout(layer.state_size, layer.activation)
    return Released("torch", module, weights, lambda call, x: call(x)[0], _decode(""))


def _decode(*names: str) -> Any:
    """``names`` are those of our states; one that is an array alone has none."""

    def decode(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, Tensors]:
        _, state = module(x[:, :-DECODED])
        y, state = module(x[:, -DECODED:], state)
        states = state if isinstance(state, tuple) else (state,)
        return y, {name: part[0] for name, part in zip(names, states, strict=True)}

    return decode


CASES: list[tuple[str, dict[str, Any], Any]] = [
    ("lstm", {}, make_lstm),
    ("gru", {}, make_gru),
    ("rnn", {}, make_rnn),
    ("rnn", {"activation": "relu"}, make_rnn),
]
