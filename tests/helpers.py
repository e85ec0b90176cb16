"""What several test files share."""

import contextlib
import functools
import io
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.cli.main import main
from lrnn_jax.registry import load_layer
from lrnn_jax.scans import attention, delta_chunked, dplr, outer, selective, time_invariant

# Fields that make a layer small; a layer that is missing here has its defaults. N must differ from other sizes, so that a
# diagonal transition is never mistaken for a square matrix.
SMALL_LAYERS = {
    "bd_lru": {"blocks": 2, "block_size": 3},
    "deltanet": {"heads": 2},
    "deltaproduct": {"heads": 2},
    "full_matrix": {"size": 3},
    "gated_deltanet": {"heads": 2},
    "gla": {"heads": 2, "key_size": 3, "gate_rank": 2},
    "h_lru": {"channels": 3, "order": 4},
    "lru": {"state_size": 6},
    "mamba": {"state_size": 4},
    "mamba2": {"heads": 2, "state_size": 4},
    "mlstm": {"heads": 2, "expand": 1},
    "rnn": {"state_size": 6},
    "rwkv7": {"heads": 2},
    "s5": {"state_size": 12, "blocks": 2},
    "s4": {"state_size": 6},
    "s4d": {"state_size": 6},
    "slstm": {"heads": 2},
    "transformer": {"heads": 2, "window": 12},
}
# Sizes with which a few positions are many chunks, the last of them not full.
SMALL_CHUNKS = (
    (attention, "BLOCK", 16),
    (delta_chunked, "BLOCK", 4),
    (delta_chunked, "WRITES", (8, 8)),
    (dplr, "CHUNK", 4),
    (outer, "CHUNK", 4),
    (outer, "BLOCK", 8),
    (selective, "CHUNK", 4),
    (time_invariant, "CHUNK", 4),
)


def call(*arguments):
    """Exit code, standard output and standard error of one command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(arguments))
    return code, out.getvalue(), err.getvalue()


def succeed(*arguments):
    """Standard output of a command that ends well."""
    code, out, err = call(*arguments)
    assert code == 0, err
    return out


def refuse(*arguments):
    """The one line of a command that is refused."""
    code, out, err = call(*arguments)
    assert code == 2, (out, err)
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith("lrnn: ")
    assert "Traceback" not in err
    return err


def make_layer(name, **fields):
    """A small layer of the registry."""
    return load_layer(name)(**{"width": 8, **SMALL_LAYERS.get(name, {}), **fields})


def shrink_chunks(patch):
    """Makes the chunks of all scans small, for programs that are traced as long as ``patch``, a MonkeyPatch, holds."""
    for module, name, value in SMALL_CHUNKS:
        patch.setattr(module, name, value)


def trace_in_float64(run, *args):
    """Compiles ``run`` for ``args`` in float64: what our code calls float32 is float64 while it is traced.

    Args:
      run: function of arrays.
      *args: arrays or shapes; those in float32 become float64.

    Returns:
      A function of NumPy arrays of any float dtype, with NumPy results.
    """

    def widen(x):
        return np.float64 if x.dtype == np.float32 else x.dtype

    with jax.enable_x64(True), mock.patch.object(jnp, "float32", jnp.float64):
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), widen(x)), args)
        compiled = jax.jit(run).lower(*shapes).compile()

    def call(*args):
        with jax.enable_x64(True):
            return to_numpy(compiled(*jax.tree.map(lambda x: np.asarray(x, widen(x)), args)))

    return call


@functools.cache
def init_params(layer, seed=0):
    """The layer's initial parameters in NumPy arrays, not to be written into."""
    x = np.zeros((1, 1, layer.width), np.float32)
    return to_numpy(jax.jit(layer.init)(jax.random.key(seed), x))["params"]


def start_state(layer, batch):
    """The layer's state at the start."""
    return to_numpy(jax.jit(lambda: layer.init_state(batch))())


def run_layer(layer, params, x, *, state=None, reset=None, scan="auto"):
    """Outputs and last state of one call."""
    run = nn.apply(lambda m, x, state, reset: m(x, state=state, reset=reset, scan=scan), layer)
    return to_numpy(jax.jit(run)({"params": params}, x, state, reset))


def transition(layer, params, x):
    """What `RecurrentLayer.transition` returns."""
    return to_numpy(jax.jit(functools.partial(layer.apply, method="transition"))({"params": params}, x))


def to_numpy(tree):
    """The same tree with NumPy arrays, whose slices need no compiled program."""
    return jax.tree.map(np.asarray, tree)


def add_noise(tree, seed, scale):
    """NumPy arrays moved off their values, so that none is zero or the same everywhere."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.asarray(x + scale * rng.normal(size=x.shape), x.dtype), to_numpy(tree))


def assert_near(actual, expected, tolerance=1e-5, message=""):
    """Two trees are alike: errors are relative to the largest entry of each expected array."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, y), x in zip(jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(actual), strict=True):
        y = np.asarray(y, np.float64)
        assert x.shape == y.shape
        atol = tolerance * max(np.abs(y).max(initial=0), 1e-6)
        where = f"{message} {jax.tree_util.keystr(path)}"
        np.testing.assert_allclose(np.asarray(x, np.float64), y, rtol=0, atol=atol, err_msg=where)


def sigmoid(x):
    """In NumPy."""
    return 1 / (1 + np.exp(-x))


def silu(x):
    """In NumPy."""
    return x * sigmoid(x)


def draw_rows(task, length, *, size=2048, split="test", seed=0):
    """Examples of one length as NumPy arrays."""
    make = jax.jit(lambda key: task.batch(key, size, (length, length), split))
    return to_numpy(make(jax.random.key(seed)))


def assert_uniform(values, choices):
    """Numbers below ``choices`` are equally frequent, by chi-square: within five deviations of what independent ones have."""
    counts = np.bincount(np.ravel(values), minlength=choices)
    assert counts.size == choices
    assert_frequent(counts, np.full(choices, 1 / choices))


def assert_frequent(counts, shares):
    """Counts are those of independent draws with these probabilities, likewise."""
    expected = counts.sum() * np.asarray(shares, np.float64)
    assert expected.min() >= 5
    freedom = counts.size - 1
    assert np.sum((counts - expected) ** 2 / expected) < freedom + 5 * np.sqrt(2 * freedom) + 10
