"""What the tests of BD-LRU and H-LRU share."""

import itertools

import jax
import numpy as np

from helpers import add_noise, init_params, sigmoid, silu
from lrnn_jax.parts.gates import GATES

BOUNDED = [gates for gates in GATES if gates != "none"]


def share(z, gates):
    """The gates of BD-LRU and H-LRU over the last axis: f(z) over the sum of its magnitudes, in NumPy."""
    if gates == "none":
        return z
    functions = {"softmax": lambda z: np.exp(z - z.max(-1, keepdims=True)), "sigmoid": sigmoid, "tanh": np.tanh, "silu": silu}
    functions |= {"relu": lambda z: np.maximum(z, 0), "linear": lambda z: z}
    values = functions[gates](z)
    return values / np.sum(np.abs(values) + (0.001 if gates == "relu" else 0), axis=-1, keepdims=True)


def float64(params):
    return {name: np.float64(part) for name, part in flatten(params)}


def flatten(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value


def check_bound(layer, seeds=6):
    """Proposition 1 for weights and inputs of many magnitudes: returns the largest |h| over what bounds it.

    W_o is the identity, so that outputs are the states.
    """
    found, run = [], jax.jit(lambda params, x, state: layer.apply({"params": params}, x, state=state)[0])
    for seed, scale in itertools.product(range(seeds), (0.1, 1.0, 10.0, 1000.0)):
        rng = np.random.default_rng(seed)
        params = {**add_noise(init_params(layer), seed, scale), "out": {"kernel": np.eye(layer.width, dtype=np.float32)}}
        x = np.float32(rng.normal(size=(4, 40, layer.width)) * rng.choice([0.1, 1.0, 30.0], (4, 1, 1)))
        state = np.float32(rng.normal(size=(4, *layer.init_state(1).shape[1:])) * rng.choice([0.0, 1.0, 100.0], (4, 1, 1)))
        y = np.asarray(run(params, x, state))
        v = np.float64(x) @ params["v"]["kernel"]
        bound = np.maximum(np.abs(v).max((1, 2)), np.abs(state).max((1, 2)))
        found.append(np.abs(y).max((1, 2)) / bound)
    return np.max(found)
