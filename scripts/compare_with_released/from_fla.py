"""Layers of flash-linear-attention. Its kernels run in Triton's interpreter, so that no accelerator is needed."""

import functools
import os
import unittest.mock
from typing import Any

import torch

from scripts.compare_with_released.comparing import DECODED, WIDTH, Released, Tensors, linear, taps


@functools.cache
def import_fla() -> Any:
    """Imports fla for a machine without an accelerator."""
    os.environ["TRITON_INTERPRET"] = "1"
    import triton.runtime.autotuner

    # there is nothing to measure with: any of the configurations, which differ in speed only
    triton.runtime.autotuner.Autotuner._bench = lambda *_, **__: [0.0, 0.0, 0.0]
    import fla.layers

    return fla.layers


def make_deltanet(layer: Any) -> Released:
    """DeltaNet."""
    module = import_fla().DeltaNet(
        **_name_fields(layer),
        allow_neg_eigval=layer.negative_eigenvalues,
        qk_activation={"silu": "silu", "linear": "identity"}[layer.key_activation],
    )

    def weights(p: Tensors) -> Tensors:
        named = linear(p, q_proj="q", k_proj="k", v_proj="v", b_proj="beta", o_proj="out")
        return {**named, **_split_convolution(p, WIDTH, WIDTH, WIDTH), "o_norm.weight": p["norm/scale"]}

    return _make(module, weights)


def make_gated_deltanet(layer: Any) -> Released:
    """Gated DeltaNet."""
    keys = layer.heads * (layer.head_dim or WIDTH // layer.heads)
    module = import_fla().GatedDeltaNet(
        **_name_fields(layer),
        expand_v=layer.expand_v,
        head_dim=keys // layer.heads,
        allow_neg_eigval=layer.negative_eigenvalues,
    )

    def weights(p: Tensors) -> Tensors:
        named = linear(p, q_proj="q", k_proj="k", v_proj="v", a_proj="decay", b_proj="beta", g_proj="gate", o_proj="out")
        gates = {"A_log": p["decay/A_log"], "dt_bias": p["decay/dt_bias"], "o_norm.weight": p["norm/scale"]}
        return {**named, **gates, **_split_convolution(p, keys, keys, layer.expand_v * keys)}

    def chunk(q: Any, k: Any, v: Any, g: Any, beta: Any, **how: Any) -> tuple:
        from fla.modules.l2norm import l2norm
        from fla.ops.gated_delta_rule.naive import naive_recurrent_gated_delta_rule

        g = -how["A_log"].exp() * torch.nn.functional.softplus(g + how["dt_bias"])
        beta = beta.sigmoid() * (2.0 if how["allow_neg_eigval"] else 1.0)
        return naive_recurrent_gated_delta_rule(l2norm(q), l2norm(k), v, beta, g)

    return _make(module, weights, values_first=True, chunk={"chunk_gated_delta_rule": chunk})


def make_deltaproduct(layer: Any) -> Released:
    """DeltaProduct and Gated DeltaProduct."""
    keys = layer.heads * (layer.head_dim or WIDTH // layer.heads)
    module = import_fla().GatedDeltaProduct(
        **_name_fields(layer),
        expand_v=layer.expand_v,
        head_dim=keys // layer.heads,
        use_output_gate=layer.output_gate,
        use_forget_gate=layer.gated,
        allow_neg_eigval=layer.negative_eigenvalues,
        num_householder=layer.householders,
    )
    writes = layer.householders * keys

    def weights(p: Tensors) -> Tensors:
        named = linear(p, q_proj="q", k_proj="k", v_proj="v", b_proj="beta", o_proj="out")
        if layer.gated:
            named |= linear(p, a_proj="decay") | {"A_log": p["decay/A_log"], "dt_bias": p["decay/dt_bias"]}
        if layer.output_gate:
            named |= linear(p, g_proj="gate")
        return {**named, **_split_convolution(p, keys, writes, layer.expand_v * writes), "o_norm.weight": p["norm/scale"]}

    def chunk(q: Any, k: Any, v: Any, g: Any, beta: Any, num_householder: int, **_: Any) -> tuple:
        from fla.modules.l2norm import l2norm
        from fla.ops.gated_delta_product.naive import naive_recurrent_gated_delta_product as naive

        return naive(l2norm(q), l2norm(k), v, g, beta, q.shape[-1] ** -0.5, num_householder=num_householder)

    return _make(module, weights, chunk={"chunk_gated_delta_product": chunk})


def make_gla(layer: Any) -> Released:
    """Gated linear attention."""
    keys = layer.heads * (layer.key_size or WIDTH // (2 * layer.heads))
    values = layer.heads * (layer.value_size or WIDTH // layer.heads)
    module = import_fla().GatedLinearAttention(
        **_name_fields(layer),
        expand_k=keys / WIDTH,
        expand_v=values / WIDTH,
        gate_logit_normalizer=layer.gate_normaliser,
        gate_low_rank_dim=layer.gate_rank,
    )

    def weights(p: Tensors) -> Tensors:
        named = linear(p, q_proj="q", k_proj="k", v_proj="v", g_proj="output_gate", o_proj="out")
        gate = linear(p, gk_proj__0="gate_down", gk_proj__1="gate_up") | {"gk_proj.1.bias": p["gate_up/bias"]}
        return {**named, **gate, **_split_convolution(p, keys, keys, values), "g_norm_swish_gate.weight": p["norm/scale"]}

    return _make(module, weights, values_first=True)


def make_rwkv7(layer: Any) -> Released:
    """RWKV-7's time mixing, as in the first block."""
    ranks = layer._ranks
    module = import_fla().RWKV7Attention(
        hidden_size=WIDTH,
        head_dim=WIDTH // layer.heads,
        decay_low_rank_dim=ranks["w"],
        gate_low_rank_dim=ranks["g"],
        a_low_rank_dim=ranks["a"],
        layer_idx=0,
        num_hidden_layers=2,
    )

    def weights(p: Tensors) -> Tensors:
        named = linear(p, **{name: name for name in ("r_proj", "k_proj", "v_proj", "o_proj")})
        named |= {f"x_{name}": p[f"x_{name}"][None, None] for name in "rwkvag"}
        named |= {name: p[name] for name in ("k_k", "k_a", "r_k")}
        for name in "wag":
            named[f"{name}_lora.lora.0.weight"] = p[f"{name}_lora/down"].T
            named[f"{name}_lora.lora.2.weight"] = p[f"{name}_lora/up"].T
        named |= {f"{name}_lora.lora.2.bias": p[f"{name}_lora/bias"] for name in "wa"}
        return named | {"g_norm.weight": p["norm/scale"].flatten(), "g_norm.bias": p["norm/bias"].flatten()}

    def chunk(r: Any, w: Any, k: Any, v: Any, a: Any, b: Any, **_: Any) -> tuple:
        from fla.ops.generalized_delta_rule.dplr.naive import dplr_recurrence

        q, k, v, a, b, w = (z.transpose(1, 2) for z in (r * r.shape[-1] ** 0.5, k, v, a, b, w))
        o, s = dplr_recurrence(q, k, v, a, b, w)
        return o.transpose(1, 2), s

    return _make(module, weights, chunk={"chunk_rwkv7": chunk})


def _name_fields(layer: Any) -> dict[str, Any]:
    """Returns the fields that every layer with heads and a convolution has, by their names in fla."""
    convolution = {"use_short_conv": layer.conv_width > 0, "conv_size": layer.conv_width}
    return {"hidden_size": WIDTH, "num_heads": layer.heads, "layer_idx": 0, **convolution}


def _make(module: Any, weights: Any, *, values_first: bool = False, chunk: dict[str, Any] | None = None) -> Released:
    """Wraps a layer of fla, which returns a tuple and keeps its states in a cache, [K V] or [V K].

    With ``chunk``, outputs are those of the released kernel that goes step by step; gradients, for which the layer takes a
    chunked kernel that the interpreter cannot run, go through fla's naive form in its place.
    """
    from fla.models.utils import Cache

    def outputs(call: Any, x: torch.Tensor) -> torch.Tensor:
        if chunk is None:
            return call(x)[0]
        with torch.no_grad():
            fused = call(x)[0]
        with unittest.mock.patch.dict(type(module).forward.__globals__, chunk):
            naive = call(x)[0]
        return naive + (fused - naive).detach()

    def decode(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, Tensors]:
        cache, cut = Cache(), x.shape[1] - DECODED
        parts = [x[:, :cut], *(x[:, t : t + 1] for t in range(cut, x.shape[1]))]
        outputs = [module(part, past_key_values=cache, use_cache=True)[0] for part in parts]
        state = cache[0]["recurrent_state"]
        return torch.cat(outputs[1:], dim=1), {"S": state.mT if values_first else state}

    return Released("fla-core", module.eval(), weights, outputs, decode)


def _split_convolution(p: Tensors, *widths: int) -> Tensors:
    if "conv/kernel" not in p:
        return {}
    parts = taps(p["conv/kernel"]).split(list(widths))
    return {f"{name}_conv1d.weight": part for name, part in zip("qkv", parts, strict=True)}


CASES: list[tuple[str, dict[str, Any], Any]] = [
    ("deltanet", {}, make_deltanet),
    ("deltanet", {"negative_eigenvalues": False}, make_deltanet),
    ("deltanet", {"key_activation": "linear"}, make_deltanet),
    ("deltanet", {"conv_width": 0}, make_deltanet),
    ("gated_deltanet", {}, make_gated_deltanet),
    ("gated_deltanet", {"negative_eigenvalues": False, "head_dim": 16}, make_gated_deltanet),
    ("deltaproduct", {}, make_deltaproduct),
    ("deltaproduct", {"householders": 3, "conv_width": 0, "head_dim": 16}, make_deltaproduct),
    ("deltaproduct", {"gated": True, "output_gate": True, "expand_v": 2}, make_deltaproduct),
    ("gla", {}, make_gla),
    ("gla", {"conv_width": 4, "gate_normaliser": 4.0}, make_gla),
    ("rwkv7", {}, make_rwkv7),
]
