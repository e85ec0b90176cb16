"""Measured spectra: what moves the state of a trained model, at every position of what it really reads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import SMALL_LAYERS
from lrnn_jax.analysis import spectra
from lrnn_jax.analysis.spectra import measure_run, measure_spectra
from lrnn_jax.config.files import load_own_config
from lrnn_jax.errors import UserError
from lrnn_jax.layers.diagonal import Diagonal
from lrnn_jax.models.backbone import Backbone
from lrnn_jax.registry import LAYERS, load_layer
from lrnn_jax.tasks.base import Example
from lrnn_jax.tasks.parity import Parity
from lrnn_jax.training.evaluation import restore_run
from lrnn_jax.training.loop import train

WIDTH, VOCABULARY, LENGTH = 8, 5, 5
# Eigenvalues of one position: K of each head, channels, or channels times states.
COUNTS = {"deltanet": 8, "deltaproduct": 8, "diagonal": 8, "full_matrix": 3, "gated_deltanet": 8, "gla": 6, "lru": 6}
COUNTS |= {"lstm": 8, "mamba": 64, "mamba2": 2, "mlstm": 2, "rnn": 6, "rwkv7": 8, "s5": 6, "slstm": 8, "transformer": 1}
# What A_t moves, of layers whose state is moved by nothing else; None where the state is nothing beside.
STATE = {"deltanet": "S", "deltaproduct": "S", "diagonal": None, "gated_deltanet": "S", "gla": "S", "lru": None}
STATE |= {"rnn": None, "s5": None, "lstm": "c", "mamba": "h", "mamba2": "h", "mlstm": "C", "rwkv7": "S", "slstm": "c"}


@functools.cache
def prepare(name):
    """A model of two blocks, variables off their initial values, and tokens."""
    fields = tuple(SMALL_LAYERS.get(name, {}).items())
    model = Backbone(load_layer(name), fields, VOCABULARY, outputs=2, width=WIDTH, depth=2)
    rng = np.random.default_rng(0)
    tokens = np.array([[1, 4, 4, 0, 2], [3, 1, 0, 0, 1]], np.int32)
    variables = jax.jit(model.init)(jax.random.key(0), tokens)
    return model, jax.tree.map(lambda x: x + jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype), variables), tokens


@functools.cache
def measure(name):
    return measure_spectra(*prepare(name))


@pytest.mark.parametrize("name", LAYERS)
def test_every_block_of_every_layer_is_measured_at_every_position(name):
    measured = measure(name)
    assert len(measured) == 2
    for values in measured:
        assert values.dtype == np.complex64
        assert values.shape[:2] == (2, LENGTH) and values.shape[2] == COUNTS.get(name, values.shape[2]) > 0
        assert np.isfinite(values).all()
        assert load_layer(name).MAY_EXPAND or np.abs(values).max() <= 1 + 1e-6


@pytest.mark.parametrize(
    ("diagonal", "answer", "said"),
    [
        (True, lambda x: 3, "int, not eigenvalues"),
        (True, lambda x: x.astype(int), "int32[2,5,8], not eigenvalues"),
        (False, lambda x: x, "float32[2,5,8], not square matrices on the last two axes"),
        (False, lambda x: x[0, 0, 0], "float32[], not square matrices on the last two axes"),
    ],
)
def test_a_transition_that_is_none_is_named(diagonal, answer, said):
    class Mine(Diagonal):
        DIAGONAL = diagonal

        def transition(self, x):
            return answer(x)

    model, variables, tokens = prepare("diagonal")
    with pytest.raises(UserError) as caught:
        jax.eval_shape(functools.partial(spectra._transitions, model.clone(layer_class=Mine)), variables, tokens)
    assert str(caught.value) == f"layer Mine: transition returns {said}"


@pytest.mark.parametrize("name", STATE)
def test_eigenvalues_are_those_of_the_step_from_state_to_state(name):
    """A_t = dh_t / dh_{t-1} by automatic differentiation of decoding, in each of two blocks."""
    model, variables, tokens = prepare(name)
    pick = (lambda state: state) if STATE[name] is None else (lambda state: state[STATE[name]])

    def put(state, value):
        return value if STATE[name] is None else {**state, STATE[name]: value}

    @jax.jit
    def step(token, states):
        def after(value, block):
            moved = tuple(put(state, value) if i == block else state for i, state in enumerate(states))
            return jax.flatten_util.ravel_pytree(pick(model.apply(variables, token, states=moved)[1][block]))[0]

        jacobians = []
        for block, state in enumerate(states):
            flat, unravel = jax.flatten_util.ravel_pytree(pick(state))
            jacobians.append(jax.jacrev(lambda x, block=block, unravel=unravel: after(unravel(x), block))(flat))
        return model.apply(variables, token, states=states)[1], jacobians

    for row in range(2):
        states = model.init_states(1)
        for t in range(LENGTH):
            before = states
            states, jacobians = step(tokens[row : row + 1, t : t + 1], states)
            if name == "slstm" and t == 0:  # it forgets all of an empty state
                continue
            for block, jacobian in enumerate(jacobians):
                if name in ("mlstm", "slstm"):  # their states are kept divided by exp(m)
                    state, growth = pick(states[block]), np.exp(states[block]["m"] - before[block]["m"])
                    growth = growth.reshape(growth.shape + (1,) * (state.ndim - growth.ndim))
                    jacobian = jacobian * np.broadcast_to(growth, state.shape).reshape(-1, 1)
                found, values = np.linalg.eigvals(np.float64(jacobian)), measure(name)[block][row, t]
                if name in ("lru", "s5"):  # real and imaginary parts are separate states
                    values = np.concatenate([values, values.conj()])
                distance = np.abs(found[:, None] - values[None])
                assert distance.min(0).max() < 1e-4 and distance.min(1).max() < 1e-4
                # each as often as the others: once for every column of the state
                assert found.sum() == pytest.approx(values.sum() * (len(found) // len(values)), abs=1e-3)


# A convolution, a carried state and a shift by one; and a layer that does not look.
@pytest.mark.parametrize("name", ["deltanet", "lstm", "rwkv7", "lru"])
def test_packed_sequences_have_the_spectra_of_each_alone(name):
    model, variables, tokens = prepare(name)
    reset = np.array([[1, 0, 1, 0, 0], [0, 0, 0, 1, 0]], bool)
    packed = measure_spectra(model, variables, tokens, reset)
    for row, cut in enumerate([2, 3]):
        for first, stop in ((0, cut), (cut, LENGTH)):
            alone = measure_spectra(model, variables, tokens[row : row + 1, first:stop])
            for values, expected in zip(packed, alone, strict=True):
                np.testing.assert_allclose(values[row, first:stop], expected[0], atol=1e-6)
    assert (np.abs(packed[1] - measure(name)[1]).max() > 1e-3) == (name != "lru")


# --- a trained run -------------------------------------------------------------------------------------------------

SMALL = {
    "train.duration": "20 steps",
    "train.length": [3, 8],
    "train.steps_per_dispatch": 2,
    "eval.every": "2 steps",
    "eval.best_metric": "loss",
    "eval.lengths": [[40, 48]],
    "eval.examples": 8,
    "eval.batch_size": 8,
    "optim.schedule": "constant",
    "optim.lr": 0.3,
    "model.width": 8,
}
HEADS = 2


@pytest.fixture(scope="module", params=["negative", "positive"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    config = load_own_config(f"configs/parity.py:deltanet/{request.param},smoke").unlock()
    config.update_from_flattened_dict({**SMALL, "model.layer.heads": HEADS, "model.layer.conv_width": 4})
    train(config.lock(), folder)
    return folder, 2.0 if request.param == "negative" else 1.0


def layer_norm(p, x):
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return scaled * p["scale"] + p["bias"]


@pytest.mark.parametrize("which", ["last", "best"])
def test_deltanet_has_ones_and_one_minus_beta_in_every_head(run, which):
    """A generalised Householder matrix, Grazzi et al. 2025: I - beta k k^T with ||k|| = 1."""
    folder, highest = run
    arrays, step = measure_run(folder, which=which, examples=3, length=None)
    kept, info = restore_run(folder, None, which=which)
    assert step == (20 if which == "last" else info["members"][0]["best"]["step"])
    p = jax.tree.map(np.float64, kept["best" if which == "best" else "state"]["params"])
    x = layer_norm(p["block_0"]["norm"], p["embed"]["embedding"][arrays["tokens"]])
    beta = highest / (1 + np.exp(-x @ p["block_0"]["layer"]["beta"]["kernel"]))
    values = np.sort(arrays["block_0"].real.reshape(3, 8, HEADS, -1), axis=-1)
    assert np.abs(arrays["block_0"].imag).max() < 1e-6
    np.testing.assert_allclose(values[..., 0], 1 - beta, atol=1e-4)
    np.testing.assert_allclose(values[..., 1:], 1, atol=1e-5)
    if highest == 1.0:  # Theorem 1: without a negative eigenvalue there is no parity
        assert values.min() >= -1e-6


def test_the_best_parameters_are_others_than_the_last(run):
    last, best = (measure_run(run[0], which=which, examples=3, length=None)[0]["block_0"] for which in ("last", "best"))
    assert np.abs(last - best).max() > 1e-3


def test_arrays_say_what_was_read(run):
    arrays, _ = measure_run(run[0], which="last", examples=64, length=12)
    assert set(arrays) == {"tokens", "lengths", "names", "block_0"}
    assert arrays["names"].tolist() == ["pad", "0", "1"]
    assert arrays["tokens"].shape == (64, 12) and arrays["block_0"].shape == (64, 12, 8)
    # eleven bits and the answer's place; as many ones as zeros
    assert arrays["lengths"].tolist() == [11] * 64
    assert set(arrays["tokens"][:, :11].ravel()) == {1, 2} and not arrays["tokens"][:, 11].any()
    assert np.mean(arrays["tokens"][:, :11] == 2) == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(64 * 11))
    again, _ = measure_run(run[0], which="last", examples=64, length=12)
    jax.tree.map(np.testing.assert_array_equal, again, arrays)


def test_what_would_fill_the_memory_is_refused(run, monkeypatch):
    # two heads' matrices of 4 x 4
    monkeypatch.setattr(spectra, "MOST_ENTRIES", 32 * 24)
    assert measure_run(run[0], which="last", examples=3, length=8)[0]["tokens"].shape == (3, 8)
    with pytest.raises(UserError, match=r"^27 positions are too many .* 32 numbers .*--examples and --length .* at most 24$"):
        measure_run(run[0], which="last", examples=3, length=9)


def test_a_task_without_tokens_is_refused(run, monkeypatch):
    features = Example(jax.ShapeDtypeStruct((1, 1), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32))
    monkeypatch.setattr(Parity, "vocab_size", 0)
    monkeypatch.setattr(Parity, "example_spec", lambda task, length: features)
    with pytest.raises(UserError, match="'parity' has none"):
        measure_run(run[0], which="last", examples=1, length=None)
