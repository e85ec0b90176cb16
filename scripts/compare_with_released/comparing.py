"""The same weights in a layer and in its released module, and how far their results are apart."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

BATCH, STEPS, WIDTH = 2, 40, 32
# Positions that are decoded one by one, and the length of the sequences in a packed row.
DECODED, CUT = 4, 16

Tensors = dict[str, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Released:
    """A released module, how it takes our weights, and how it is run.

    Attributes:
      package: distribution that provides the module.
      module: the module.
      weights: our parameters, by path, -> its state dict.
      outputs: (call, x) -> y, where call runs the module.
      decode: (module, x) -> (outputs of the last `DECODED` positions, made one by one; its last states under our names); None
        leaves both out.
    """

    package: str
    module: torch.nn.Module
    weights: Callable[[Tensors], Tensors]
    outputs: Callable[[Callable[..., Any], torch.Tensor], torch.Tensor] = lambda call, x: call(x)
    decode: Callable[[Any, torch.Tensor], tuple[torch.Tensor, Tensors]] | None = None


def compare(layer: Any, released: Released) -> dict[str, float]:
    """Returns the relative differences of everything that both sides have.

    ``y``: outputs, the largest difference of the layer's methods. ``dx``: gradient of a weighted sum of outputs with respect
    to x. ``dw``: with respect to our parameters, the largest difference of one. ``packed``: outputs where new sequences
    start inside the row, against the released module run on each alone. ``decoded``: outputs of the last positions, made one
    by one. ``state``: the states after the last.
    """
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, BATCH, STEPS, WIDTH)).astype(np.float32)
    params = perturb(layer.init(jax.random.key(0), jnp.asarray(x))["params"], rng)

    def run(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        y, state = layer.apply({"params": params}, x)
        return jnp.sum(y * weight), (y, state)

    (dparams, dx), (y, state) = jax.jit(jax.grad(run, argnums=(0, 1), has_aux=True))(params, jnp.asarray(x))
    leaves = {name: torch.tensor(value).requires_grad_() for name, value in flatten(params).items()}
    their_x = torch.tensor(x).requires_grad_()
    weights = released.weights(leaves)
    call = functools.partial(_call, released.module, weights)
    their_y = released.outputs(call, their_x)
    (their_y * torch.tensor(weight)).sum().backward()
    found = {"y": difference(y, their_y), "dx": difference(dx, their_x.grad)}
    methods = [difference(_apply(layer, params, x, scan=method)[0], their_y) for method in layer.METHODS]
    found["y"] = largest([found["y"], *methods])
    found["dw"] = largest([difference(value, leaves[name].grad) for name, value in flatten(dparams).items()])
    with torch.no_grad():  # x anew, for fla's RWKV-7 writes over it on the way back
        apart = [released.outputs(call, part.contiguous()) for part in torch.tensor(x).split(CUT, dim=1)]
    reset = np.zeros((BATCH, STEPS), bool)
    reset[:, CUT::CUT] = True
    found["packed"] = difference(_apply(layer, params, x, reset=jnp.asarray(reset))[0], torch.cat(apart, dim=1))
    if released.decode is not None:
        with torch.no_grad():
            released.module.load_state_dict({name: value.detach() for name, value in weights.items()}, strict=True)
            decoded, their_state = released.decode(released.module, torch.tensor(x))
        found["decoded"] = difference(_decode(layer, params, x), decoded)
        ours = flatten(state)
        found["state"] = largest([difference(ours[name], value) for name, value in their_state.items()])
    return found


def perturb(params: Any, rng: np.random.Generator) -> Any:
    """Draws matrices anew and moves everything else from where it starts, so that nothing is 0 or 1 on both sides."""

    def draw(path: Any, value: jax.Array) -> np.ndarray:
        noise = rng.standard_normal(value.shape)
        if path[-1].key.endswith(("kernel", "down", "up")) or path[-1].key == "A":  # that of the RNN
            return np.asarray(noise / np.sqrt(value.shape[-2]), np.float32)
        return np.asarray(value + 0.3 * noise, np.float32)

    return jax.tree_util.tree_map_with_path(draw, params)


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Returns the leaves by path, as ``q/kernel``, ``0`` for the first of a tuple, and nothing for an array alone."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(value) for path, value in leaves}


def difference(ours: Any, theirs: torch.Tensor | None) -> float:
    """Returns max |a - b| / max |b|."""
    assert theirs is not None
    b = theirs.detach().numpy().astype(np.float64)
    a = np.asarray(ours, np.float64).reshape(b.shape)
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))


def largest(differences: list[float]) -> float:
    """Returns the largest, or NaN if one is: Python's max may lose it."""
    return float(np.max(differences))


def linear(p: Tensors, **names: str) -> Tensors:
    """Their ``name.weight``, [out in], from our ``kernel``, [in out]; a double underscore stands for a dot."""
    return {f"{theirs.replace('__', '.')}.weight": p[f"{ours}/kernel"].T for theirs, ours in names.items()}


def join(p: Tensors, name: str) -> torch.Tensor:
    """One complex array from our two real ones."""
    return torch.complex(p[f"{name}_re"], p[f"{name}_im"])


def taps(kernel: torch.Tensor) -> torch.Tensor:
    """Their [F 1 W], oldest input first, from our [W F], newest first."""
    return kernel.flip(0).T[:, None]


def step_through(step: Callable[..., tuple[torch.Tensor, Any]], x: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
    """Runs ``step(x_t, state)`` from the first position on; returns the last `DECODED` outputs and the last state."""
    outputs = []
    for t in range(x.shape[1]):
        y, state = step(x[:, t : t + 1], state)
        outputs.append(y)
    return torch.cat(outputs[-DECODED:], dim=1), state


def _apply(layer: Any, params: Any, x: np.ndarray, **how: Any) -> tuple[jax.Array, Any]:
    return layer.bind({"params": params})(jnp.asarray(x), **how)


def _decode(layer: Any, params: Any, x: np.ndarray) -> jax.Array:
    _, state = _apply(layer, params, x[:, :-DECODED])
    outputs = []
    for t in range(STEPS - DECODED, STEPS):
        y, state = _apply(layer, params, x[:, t : t + 1], state=state)
        outputs.append(y)
    return jnp.concatenate(outputs, axis=1)


def _call(module: torch.nn.Module, weights: Tensors, *args: Any, **kwargs: Any) -> Any:
    """Runs the module with these weights, of which none may be missing or left over."""
    return torch.func.functional_call(module, {**dict(module.named_buffers()), **weights}, args, kwargs, strict=True)
