"""What every layer of the registry says of itself: counts, groups, documentation. No program is compiled for it."""

import functools
import inspect
import re

import jax
import numpy as np
import pytest
from flax import traverse_util

from helpers import SMALL_LAYERS
from lrnn_jax.config.fields import own_fields
from lrnn_jax.parts.contract import missing_parts
from lrnn_jax.registry import LAYERS, load_layer

WIDTH = 8


def variants(name):
    """Fields and width of layers whose counts and groups are looked at: each flag off and on, each size another."""
    cls = load_layer(name)
    flags = [field for field, default in own_fields(cls).items() if isinstance(default, bool)]
    yield {}, 24
    yield dict.fromkeys(flags, True) | SMALL_LAYERS.get(name, {}), 16
    for flag in flags:
        yield SMALL_LAYERS.get(name, {}) | dict.fromkeys(flags, False) | {flag: True}, WIDTH
    for field in ("conv_width", "index"):
        if field in {*own_fields(cls), "index"}:
            yield SMALL_LAYERS.get(name, {}) | dict.fromkeys(flags, False) | {field: 1, "depth": 2}, WIDTH


@functools.cache
def shapes_of_variants(name):
    """[(layer, {path: shape of a parameter})], each found by tracing `init` once."""
    found = []
    for fields, width in variants(name):
        layer = load_layer(name)(**{"width": width, **fields})
        params = jax.eval_shape(layer.init, jax.random.key(0), np.zeros((1, 1, width), np.float32))["params"]
        found.append((layer, traverse_util.flatten_dict(params, sep="/")))
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_parameter_and_state_counts_are_the_closed_formulas(name):
    for layer, params in shapes_of_variants(name):
        assert layer.parameter_count() == sum(leaf.size for leaf in params.values()), layer
        state = jax.eval_shape(functools.partial(layer.init_state, 3))
        assert 3 * layer.state_count() == sum(leaf.size for leaf in jax.tree.leaves(state)), layer


@pytest.mark.parametrize("name", LAYERS)
def test_every_parameter_is_in_exactly_one_group_and_every_group_is_used(name):
    groups = load_layer(name).PARAM_GROUPS
    for layer, params in shapes_of_variants(name):
        matches = {path: [pattern for pattern in groups if re.search(pattern, path)] for path in params}
        assert all(len(found) == 1 for found in matches.values()), (layer, matches)
        assert {pattern for found in matches.values() for pattern in found} == set(groups), layer
    for multipliers in groups.values():
        assert {"lr", "wd"} <= set(multipliers) <= {"lr", "wd", "recurrent"}
        assert all(isinstance(multipliers[name], float) and multipliers[name] >= 0 for name in ("lr", "wd"))


@pytest.mark.parametrize("name", [name for name in LAYERS if ":" not in name])
def test_layer_is_complete_labelled_and_documented(name):
    cls = load_layer(name)
    assert missing_parts(cls) == []
    assert "sequential" in cls.METHODS
    assert set(cls.METHODS) <= {"sequential", "associative", "chunked", "convolution", "pallas"}
    text = inspect.cleandoc(cls.__dict__["__doc__"])
    assert "Source: " in text
    for field in own_fields(cls):
        assert re.search(rf"^  {field}: ", text, re.MULTILINE), field
    for path in set().union(*(params for _, params in shapes_of_variants(name))):
        assert re.search(rf"^  ``{path}``: ", text, re.MULTILINE), path


@pytest.mark.parametrize("name", LAYERS)
def test_the_default_fields_are_accepted(name):
    cls = load_layer(name)
    cls.check({"width": WIDTH, **own_fields(cls), **SMALL_LAYERS.get(name, {})})
