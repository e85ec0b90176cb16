"""What the base class of layers does for all of them, shown on small layers written here."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.layers.deltanet import DeltaNet
from lrnn_jax.models.backbone import Backbone
from lrnn_jax.parts.contract import missing_parts
from lrnn_jax.parts.layer import MATRICES, RecurrentLayer
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


def broken(change, **methods):
    """`Sum` whose `recur` returns what ``change`` makes of its answer, or with other methods."""

    class Mine(Sum):
        @nn.compact
        def recur(self, x, state, reset, scan):
            return change(*super().recur(x, state, reset, scan))

    for name, method in methods.items():
        setattr(Mine, name, method)
    return Mine(4)


def same(y, state):
    return y, state


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (broken(lambda y, s: y), "recur returns float32[2,3,4], not (y, state)"),
        (broken(lambda y, s: (y, s, s)), "recur returns (float32[2,3,4], float32[2,4], float32[2,4]), not (y, state)"),
        (broken(lambda y, s: (y[..., :3], s)), "recur returns y float32[2,3,3], not floating of x's shape [2, 3, 4]"),
        (broken(lambda y, s: (y[:, -1], s)), "recur returns y float32[2,4], not floating of x's shape [2, 3, 4]"),
        (broken(lambda y, s: (y.astype(int), s)), "recur returns y int32[2,3,4], not floating of x's shape [2, 3, 4]"),
        (broken(lambda y, s: (None, s)), "recur returns y None, not floating of x's shape [2, 3, 4]"),
        (broken(lambda y, s: (y, s[:, :1])), "recur returns state float32[2,1], init_state has float32[2,4]"),
        (broken(lambda y, s: (y, {"h": s})), "recur returns state {h: float32[2,4]}, init_state has float32[2,4]"),
        (broken(lambda y, s: (y, None)), "recur returns state None, init_state has float32[2,4]"),
        (broken(lambda y, s: (y, s.astype("bfloat16"))), "recur returns state bfloat16[2,4], init_state has float32[2,4]"),
        (
            broken(same, init_state=lambda self, batch: jnp.zeros((batch, 4), jnp.bfloat16)),
            "init_state(batch=2) is bfloat16[2,4], not float32 with batch as first axis",
        ),
        (
            broken(same, init_state=lambda self, batch: jnp.zeros((4, batch))),
            "init_state(batch=2) is float32[4,2], not float32 with batch as first axis",
        ),
        (broken(same, parameter_count=lambda self: 7), "parameter_count() is 7, and there are 4"),
        (broken(same, state_count=lambda self: 8), "state_count() is 8, and there are 4"),
    ],
)
def test_a_layer_that_returns_something_else_is_named_as_it_is_traced(layer, said):
    for x in (X, X[:, :1], X[:, :0]):
        with pytest.raises(UserError) as caught:
            jax.eval_shape(layer.init, jax.random.key(0), x)
        # without positions, `recur` is still asked for one
        shown = said if x.shape[1] == 3 else said.replace("2,3,", "2,1,").replace("[2, 3,", "[2, 1,")
        assert str(caught.value) == f"layer Mine: {shown}"
    # what `init` has not seen, as of a run that is read back: counts are not looked at again
    if "count" not in said:
        with pytest.raises(UserError, match=r"^layer Mine: .*\["):
            jax.eval_shape(lambda x: apply(layer, x), X)


def test_counts_are_those_of_one_layer_wherever_it_is():
    for how in ({}, {"scan_blocks": True}, {"remat": True}, {"scan_blocks": True, "remat": True}):
        for layer in (Sum, type(broken(same, parameter_count=lambda self: 12))):
            model = Backbone(layer, (), vocab_size=5, outputs=3, width=4, depth=3, **how)
            make = functools.partial(jax.eval_shape, model.init, jax.random.key(0), np.ones((1, 2), np.int32))
            if layer is Sum:
                make()
                continue
            with pytest.raises(UserError, match=r"^layer Mine: parameter_count\(\) is 12, and there are 4"):
                make()


def test_a_state_of_another_structure_is_said_in_shapes():
    with pytest.raises(ValueError) as caught:
        apply(Sum(4), X, state=(np.zeros((2, 4), np.float32), {"h": [1.0]}))
    assert str(caught.value) == "state: (float32[2,4], {h: [float]}) is not float32[2,4], as in init_state(batch=2)"


def test_methods_that_take_other_arguments_are_named():
    class Fewer(Sum):
        def recur(self, x, state):
            return x, state

        def init_state(self):
            return ()

        parameter_count = 7

    class Made(Sum):
        def __init__(self, width):
            self.width = width

    class Otherwise(Sum):
        """Other names, a default and a method without self are no fault."""

        def recur(self, inputs, before, restarts=None, method="auto", **more):
            return inputs, before

        @staticmethod
        def init_state(rows):
            return jnp.zeros((rows, 4))

    assert missing_parts(Fewer) == [
        "arguments (self, x, state, reset, scan) of method recur, which has (self, x, state)",
        "arguments (self, batch) of method init_state, which has (self)",
        "method parameter_count",
    ]
    assert missing_parts(Made) == ["fields in place of its own __init__(self, width)"]
    assert missing_parts(Otherwise) == []


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
