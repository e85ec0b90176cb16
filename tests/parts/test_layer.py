"""What the base class of layers does for all of them, shown on small layers written here."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrnn_jax.layers.deltanet import DeltaNet
from lrnn_jax.parts.layer import MATRICES, RecurrentLayer, missing_parts
from lrnn_jax.scans.method import Serves

X = np.ones((2, 3, 4), np.float32)


class Sum(RecurrentLayer):
    """``y_t = y_{t-1} + x_t``, and remembers what it was called with."""

    SOURCE = "none"
    METHODS = {"sequential": Serves(), "convolution": Serves(state=False, reset=False)}
    PARAM_GROUPS = {"kernel$": MATRICES}

    @nn.compact
    def recur(self, x, state, reset, scan):
        kernel = self.param("kernel", nn.initializers.ones, (self.width,))
        self.sow("intermediates", "scan", scan)
        start = jnp.zeros(x[:, 0].shape) if state is None else state
        y = start[:, None] + jnp.cumsum(x.astype(jnp.float32) * kernel[None, None], axis=1)
        return y, y[:, -1]

    def init_state(self, batch):
        return jnp.zeros((batch, self.width), jnp.float32)

    def transition(self, x):
        return jnp.ones((self.width,))

    def parameter_count(self):
        return self.width

    def state_count(self):
        return self.width


class Starless(Sum):
    """Is given no state where none is given."""

    START_STATE = False

    @nn.compact
    def recur(self, x, state, reset, scan):
        assert state is None
        return super().recur(x, state, reset, scan)


class Bidirectional(Sum):
    """Not causal."""

    CAUSAL = False


class Either(Sum):
    """Causal or not."""

    bidirectional: bool = False

    def init_state(self, batch):
        return () if self.bidirectional else super().init_state(batch)


def apply(layer, *args, **how):
    return layer.apply({"params": {"kernel": np.ones(4, np.float32)}}, *args, **how)


def test_recur_may_be_compact_and_outputs_have_the_layers_dtype():
    layer = Sum(4, dtype=jnp.bfloat16)
    y, state = apply(layer, X)
    assert (y.dtype, state.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_array_equal(np.float32(y[..., 0]), [[1, 2, 3]] * 2)


@pytest.mark.parametrize("layer", [Sum(4), Starless(4), Bidirectional(4)])
def test_without_positions_the_state_is_the_state_at_the_start(layer):
    variables = layer.init(jax.random.key(0), X[:, :0])  # with parameters all the same
    assert variables["params"]["kernel"].shape == (4,)
    y, state = layer.apply(variables, X[:, :0])
    assert y.shape == (2, 0, 4)
    np.testing.assert_array_equal(state, np.zeros((2, 4)))


def test_without_positions_a_state_stays_as_it_was():
    start = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(apply(Sum(4), X[:, :0], state=start)[1], start)


def test_a_scan_is_handed_on_and_refused_where_it_cannot_serve_the_call():
    _, found = apply(Sum(4), X, scan="convolution", mutable=["intermediates"])
    assert found["intermediates"]["scan"] == ("convolution",)
    for given in ({"state": np.zeros((2, 4), np.float32)}, {"reset": np.zeros((2, 3), bool)}):
        with pytest.raises(ValueError, match=f"'convolution' takes no {next(iter(given))}; use one of auto, sequential"):
            apply(Sum(4), X, scan="convolution", **given)
        apply(Sum(4), X, scan="auto", **given)


def test_a_layer_that_is_not_causal_takes_no_state():
    _, state = apply(Bidirectional(4), X)
    with pytest.raises(ValueError, match="state: Bidirectional is not causal, so there is no state to go on from"):
        apply(Bidirectional(4), X, state=state)


def test_a_field_may_make_a_layer_bidirectional():
    assert Either(4).causal and not Either(4, bidirectional=True).causal
    _, state = apply(Either(4), X)
    apply(Either(4), X, state=state)
    with pytest.raises(ValueError, match="state: Either with bidirectional=True is not causal, so there is no state to go on"):
        apply(Either(4, bidirectional=True), X, state=state)


def test_missing_parts_are_named():
    class Nothing(RecurrentLayer):
        pass

    class Half(Sum):
        METHODS = {"sequential": True}
        VARIANTS = {"fast": {"speed": 2}}

    assert missing_parts(Sum) == []
    assert missing_parts(int) == ["the base class lrnn_jax.parts.layer.RecurrentLayer"]
    assert missing_parts(Nothing) == [
        *(f"method {name}" for name in ("recur", "init_state", "transition", "parameter_count", "state_count")),
        *(f"class attribute {name}" for name in ("SOURCE", "METHODS", "PARAM_GROUPS")),
    ]
    assert missing_parts(Half) == ["Serves(...) for METHODS['sequential']", "field 'speed' of variant 'fast'"]

    class Listed(Sum):
        METHODS = ("sequential",)

    assert missing_parts(Listed) == ["a mapping from name to Serves as METHODS"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"width": 8, "heads": 3}, "heads=3 must be at least 1 and divide width=8"),
        ({"width": 8, "heads": 2.0}, "heads=2.0 must be int, not float"),
        ({"width": 8, "heads": True}, "heads=True must be int, not bool"),
        ({"width": "8"}, "width='8' must be int, not str"),
        ({"width": 0}, "width=0 must be at least 1"),
        ({"width": 8, "key_activation": None}, "key_activation=None must be str, not NoneType"),
        ({"width": 8, "negative_eigenvalues": 1}, "negative_eigenvalues=1 must be bool, not int"),
    ],
)
def test_a_layer_made_in_python_refuses_what_does_not_fit_and_speaks_of_arguments(fields, said):
    with pytest.raises(ValueError) as caught:
        DeltaNet(**fields)
    assert str(caught.value) == said
