"""A small model to test with, and NumPy's version of what surrounds its layers, in float64."""

import functools
import math

import jax
import numpy as np
from flax import traverse_util

from lrnn_jax.layers.diagonal import Diagonal
from lrnn_jax.models.backbone import Backbone

WIDTH, VOCAB, OUTPUTS, LENGTH = 4, 5, 3, 6
# a NumPy array, because every slice of a jax array compiles a program
TOKENS = np.int32(np.random.default_rng(0).integers(0, VOCAB, (2, LENGTH)))


def make_model(**fields):
    defaults = {
        "layer_class": Diagonal,
        "layer_fields": (("gain", 2.0),),
        "vocab_size": VOCAB,
        "outputs": OUTPUTS,
        "width": WIDTH,
        "depth": 1,
        "mixer_hidden": 7,
    }
    return Backbone(**{**defaults, **fields})


def initialise(model, inputs=TOKENS):
    """Random variables without a compiled `init`: matrices of unit gain, gains and variances near one, offsets near zero."""
    rng = np.random.default_rng(1)

    def draw(path, p):
        kind = path[-1].key
        deviation = max(1, np.prod(p.shape[:-1])) ** -0.5 if kind.endswith("kernel") else 0.5
        around = 1.0 if kind in ("scale", "var") else 0.0
        return np.asarray(around + deviation * rng.uniform(-1.7, 1.7, p.shape), p.dtype)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0), inputs))


@functools.cache
def program(model, **flags):
    return jax.jit(functools.partial(model.apply, **flags))


def apply(model, variables, inputs=TOKENS, **kw):
    """Runs the compiled model; arrays may change from call to call, flags are part of the program."""
    arrays = {name: kw.pop(name) for name in ("lengths", "states", "reset", "rngs", "layer_values") if name in kw}
    return jax.tree.map(np.asarray, program(model, **kw)(variables, inputs, **arrays))


def dense(p, x):
    return x @ p["kernel"] + p.get("bias", 0.0)


def layer_norm(p, x, eps=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * p["scale"] + p.get("bias", 0.0)


def rms_norm(p, x, eps=1e-5):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * p["scale"]


def batch_norm(p, x, eps=1e-5):
    return (x - p["mean"]) / np.sqrt(p["var"] + eps) * p["scale"] + p.get("bias", 0.0)


NUMPY_NORMS = {"layernorm": layer_norm, "rmsnorm": rms_norm, "batchnorm": batch_norm, "none": lambda p, x, eps=1e-5: x}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    """The tanh approximation, flax's default."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def mix(kind, p, x):
    if kind == "glu":
        u = gelu(x)
        return dense(p["value"], u) * sigmoid(dense(p["gate"], u))
    if kind.startswith("half_glu"):
        u = gelu(x)
        return (u if kind == "half_glu1" else x) * sigmoid(dense(p["gate"], u))
    up = dense(p["up"], x)
    if kind == "mlp":
        return dense(p["down"], gelu(up))
    if kind == "geglu":
        return dense(p["down"], up * (1 + np.vectorize(math.erf)(up / np.sqrt(2))) / 2 * dense(p["gate"], x))
    return dense(p["down"], up * sigmoid(up) * dense(p["gate"], x))


def sinusoid(t, i, width):
    """One number of the sinusoidal positions."""
    angle = t / 10_000 ** ((i - i % 2) / width)
    return math.cos(angle) if i % 2 else math.sin(angle)


def merge(variables):
    """Joins BatchNorm's running statistics to its parameters, in float64."""
    flat = {}
    for collection in variables.values():
        flat.update(traverse_util.flatten_dict(jax.tree.map(np.float64, collection)))
    return traverse_util.unflatten_dict(flat)
