"""S4 and S4D as their authors wrote them, of which ESPnet keeps a copy."""

from typing import Any

import torch

from scripts.compare_with_released.comparing import STEPS, WIDTH, Released, Tensors, join, step_through

# Length of the kernel. Of an even number of its roots of unity one is -1, at which the authors divide by zero but for rounding.
KERNEL = STEPS + 1


def make_s4(layer: Any) -> Released:
    """S4 with the low-rank part; its parameter is ``C (I - Abar^L)``, for L = `KERNEL`.

    All but decoding is in float64: in float32 its own gradient of log_dt is 2.6e-4 off, and ours 5e-5.
    """

    def weights(p: Tensors) -> Tensors:
        p = {name: value.double() for name, value in p.items()}
        lam = torch.complex(-torch.exp(p["A_re_log"]), p["A_im"])
        low_rank, b, c = (join(p, name) for name in "PBC")
        named = {"inv_w_real": p["A_re_log"], "w_imag": p["A_im"], "L": torch.tensor(KERNEL)}
        named |= {"P": _split(low_rank), "B": _split(b), "C": _split(_truncate(lam, low_rank, torch.exp(p["log_dt"]), c))}
        return _surround(p, named)

    return _make(layer, weights, mode="nplr", measure="legs")


def make_s4d(layer: Any) -> Released:
    """S4D; what it has as ``A`` beside the two parts of A is not used."""

    def weights(p: Tensors) -> Tensors:
        c = join(p, "C")
        named = {"inv_A_real": p["A_re_log"], "A_imag": p["A_im"], "C": _split(c)}
        return _surround(p, named | {"B": _split(torch.ones_like(c))[0], "A": _split(torch.zeros_like(c))[0]})

    return _make(layer, weights, mode="diag", measure="diag-legs", disc=layer.discretisation)


def _make(layer: Any, weights: Any, **how: Any) -> Released:
    from espnet2.asr.state_spaces import s4

    # this copy's, used where neither the CUDA extension nor pykeops is there, leaves out the conjugate states
    s4.cauchy_naive = _sum_cauchy
    module = s4.S4(WIDTH, layer.state_size, transposed=False, activation=None, postact=None, **how).eval()

    def decode(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, Tensors]:
        module.setup_step()

        def step(x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
            y, state = module.step(x[:, 0], state)
            return y[:, None], state

        y, state = step_through(step, x, module.default_state(len(x)))
        kept = state[..., : layer.state_size // 2]
        return y, {"0": kept.real, "1": kept.imag}

    return Released("espnet", module, weights, lambda call, x: call(x)[0], decode)


def _sum_cauchy(v: torch.Tensor, z: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """The Cauchy kernel, sum of ``v / (z - w)`` over states and their conjugates."""
    v, w = (torch.cat([part, part.conj()], dim=-1) for part in (v, w))
    return torch.sum(v[..., None] / (z[..., None, :] - w[..., None]), dim=-2)


def _surround(p: Tensors, kernel: Tensors) -> Tensors:
    """The kernel's weights and those of the module around it, whose output matrix is the identity here."""
    named = {f"kernel.kernel.{name}": value for name, value in {**kernel, "log_dt": p["log_dt"]}.items()}
    like = p["D"]
    return named | {
        "D": like[None],
        "output_linear.weight": torch.eye(WIDTH).to(like),
        "output_linear.bias": like.new_zeros(WIDTH),
    }


def _split(z: torch.Tensor) -> torch.Tensor:
    """Their [1 D N/2 2] from [D N/2] complex."""
    return torch.view_as_real(z)[None]


def _truncate(lam: torch.Tensor, p: torch.Tensor, dt: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """``C (I - Abar^L)`` of the states that are kept, [D N/2], by matrices over these and their conjugates."""
    lam, p, c = (torch.cat([z, z.conj()], dim=-1) for z in (lam, p, c))
    step = dt[:, None, None] / 2.0 * (torch.diag_embed(lam) - p[..., :, None] * p.conj()[..., None, :])
    one = torch.eye(step.shape[-1]).to(step)
    power = torch.linalg.matrix_power(torch.linalg.solve(one - step, one + step), KERNEL)
    return (c - (c[:, None] @ power)[:, 0])[:, : c.shape[-1] // 2]


CASES: list[tuple[str, dict[str, Any], Any]] = [
    ("s4", {}, make_s4),
    ("s4", {"state_size": 16}, make_s4),
    ("s4d", {}, make_s4d),
    ("s4d", {"discretisation": "bilinear", "eigenvalues": "lin"}, make_s4d),
]
