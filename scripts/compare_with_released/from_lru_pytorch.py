"""The LRU in LRU-pytorch, which follows the listing of Orvieto et al. 2023."""

from typing import Any

import torch

from scripts.compare_with_released.comparing import WIDTH, Released, Tensors, join


def make_lru(layer: Any) -> Released:
    """LRU, in a loop; its D is a matrix."""
    from LRU_pytorch import LRU

    def weights(p: Tensors) -> Tensors:
        named = {name: p[name] for name in ("nu_log", "theta_log", "gamma_log")}
        return named | {"B": join(p, "B"), "C": join(p, "C"), "D": torch.diag(p["D"])}

    return Released("lru-pytorch", LRU(WIDTH, WIDTH, layer.state_size), weights)


CASES: list[tuple[str, dict[str, Any], Any]] = [
    ("lru", {}, make_lru),
    ("lru", {"state_size": 16, "r_min": 0.9}, make_lru),
]
