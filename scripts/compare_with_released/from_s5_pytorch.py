"""S5 in s5-pytorch, which follows the JAX code of its authors."""

from typing import Any

import torch

from scripts.compare_with_released.comparing import WIDTH, Released, Tensors, join, step_through


def make_s5(layer: Any) -> Released:
    """S5; where one state of each conjugate pair is kept, its C is twice ours."""
    from s5.s5_model import S5SSM

    kept = layer.state_size // 2 if layer.conj_sym else layer.state_size
    module = S5SSM(
        torch.zeros(kept, dtype=torch.complex64),
        *(torch.zeros(kept, kept, dtype=torch.complex64),) * 2,  # eigenvectors, for initial values
        h=WIDTH,
        p=kept,
        dt_min=layer.dt_min,
        dt_max=layer.dt_max,
        discretization=layer.discretisation,
        bcInit="dense",
        bidir=layer.bidirectional,
    )

    def weights(p: Tensors) -> Tensors:
        c = (2.0 if layer.conj_sym else 1.0) * join(p, "C")
        return {
            "Lambda": join(p, "Lambda"),
            "B": torch.stack([p["B_re"], p["B_im"]], dim=-1),
            "C": torch.cat(list(c), dim=-1) if layer.bidirectional else c,
            "D": p["D"],
            "log_step": p["log_step"],
        }

    def decode(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, Tensors]:
        def step(x: torch.Tensor, states: Any) -> tuple[torch.Tensor, Any]:
            made = [module.forward_rnn(row, state) for row, state in zip(x[:, 0], states, strict=True)]
            return torch.stack([y for y, _ in made])[:, None], [state for _, state in made]

        y, states = step_through(step, x, torch.zeros(len(x), kept))
        return y, {"0": torch.stack(states).real, "1": torch.stack(states).imag}

    def outputs(call: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([call(row) for row in x])

    return Released("s5-pytorch", module, weights, outputs, None if layer.bidirectional else decode)


CASES: list[tuple[str, dict[str, Any], Any]] = [
    ("s5", {}, make_s5),
    ("s5", {"discretisation": "bilinear", "conj_sym": False}, make_s5),
    ("s5", {"bidirectional": True}, make_s5),
]
