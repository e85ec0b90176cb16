"""From a config's section `model` to a model: what does not fit is refused in one line."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from lrnn_jax.config.fields import base_config, layer_config
from lrnn_jax.errors import UserError
from lrnn_jax.models import names
from lrnn_jax.registry import build_model, check_model
from lrnn_jax.tasks.base import Example
from lrnn_jax.tasks.in_context_recall import InContextRecall
from lrnn_jax.tasks.parity import Parity
from lrnn_jax.tasks.word_problem import WordProblem


class Pairs(Parity):
    """Two rows of one token more than their length says."""

    HEADS = ("pair", "mean")

    def example_spec(self, length):
        return Example(jax.ShapeDtypeStruct((2, length + 1), jnp.int32), jax.ShapeDtypeStruct((), jnp.int32))


def make_config(layer=None, **fields):
    config = base_config()
    config.model.layer = layer or layer_config("diagonal", gain=3.0)
    config.model.update(fields)
    return config.model


def test_every_field_of_the_section_reaches_the_model():
    changed = {
        "width": 6, "depth": 3, "norm": "batchnorm", "norm_eps": 0.1, "norm_momentum": 0.5, "norm_bias": False,
        "norm_padding": False, "norm_position": "post", "final_norm": False, "mixer": "geglu", "mixer_hidden": 5,
        "residual": False, "dropout": 0.25, "positions": "learned", "max_length": 77, "head": "mean", "head_bias": False,
        "initial_values": "released", "remat": True, "scan_blocks": True, "dtype": "bfloat16", "scan": "associative",
    }  # fmt: skip
    defaults = make_config()
    assert {"layer", *changed} == set(defaults), "a field of the section that this test does not know"
    assert all(defaults[name] != value for name, value in changed.items())
    model = build_model(make_config(**changed), Parity())
    assert {name: getattr(model, name) for name in changed} == changed
    assert model.make_layer().gain == 3.0
    assert (model.vocab_size, model.outputs) == (Parity().vocab_size, 2)


@pytest.mark.parametrize(("task", "fields", "message"), [
    (Parity(), {"head": "token"}, "model.head='token' is not one of last, mean; task Parity has no use for it"),
    (WordProblem(), {"head": "last"}, "model.head='last' is not one of token; task WordProblem has no use for it"),
    (InContextRecall(), {"head": "token", "layer": layer_config("outside_layers:BothWays")},
     "BothWays reads to both sides, and InContextRecall has the answer among the inputs to come"),
    (Parity(), {"head": "lats"}, "model.head='lats' is not one of last, mean; did you mean 'last'?"),
    (Parity(), {"max_length": 39}, "model.max_length=39 is less than the 40 positions of the longest sequence"),
    (Pairs(), {"head": "pair", "max_length": 40}, "model.max_length=40 is less than the 41 positions of the longest sequence"),
    (Parity(), {"positions": "learned"}, "model.positions='learned' needs max_length of at least 1"),
    (Parity(), {"mixer": "mlp"}, "model.mixer='mlp' needs mixer_hidden of at least 1"),
    (Parity(), {"norm": "layer"}, "model.norm='layer' is not one of layernorm, rmsnorm, batchnorm, none; did you mean"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(task, fields, message):
    with pytest.raises(UserError, match="^" + re.escape(message)) as error:
        check_model(make_config(**fields), task, longest=40)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("task", "fields"), [
    (Parity(), {"max_length": 40, "positions": "sinusoidal"}),
    (Pairs(), {"head": "pair", "max_length": 41}),
    (Pairs(), {"head": "pair"}),
])  # fmt: skip
def test_what_fits_is_taken(task, fields):
    check_model(make_config(**fields), task, longest=40)


def test_names_are_read_without_jax():
    program = "import sys, lrnn_jax.models.names; print([name for name in ('jax', 'flax') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_every_name_has_a_class_of_its_own():
    for table, load in ((names.HEADS, names.load_head), (names.MIXERS, names.load_mixer)):
        assert len({load(name) for name in table}) == len(table)
        assert all(load(name).__name__ == place.split(":")[1] for name, place in table.items())
