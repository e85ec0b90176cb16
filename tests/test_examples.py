"""The examples in docstrings: every public scan, layer and task has one, and it is right."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrnn_jax
from lrnn_jax import registry, scans
from lrnn_jax.parts.layer import RecurrentLayer

LAYER_NAMES = {"np": np, "jax": jax, "jnp": jnp, "DeltaNet": lrnn_jax.DeltaNet}


def examples_of(thing, names):
    (found,) = doctest.DocTestFinder(recurse=False).find(thing, thing.__name__, module=False, globs=dict(names))
    return found


def assert_right(test):
    said = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize("name", scans.__all__)
def test_a_scans_example_is_right(name):
    test = examples_of(getattr(scans, name), {"np": np, **{each: getattr(scans, each) for each in scans.__all__}})
    assert len(test.examples) >= 2 and any(name in example.source for example in test.examples)
    assert_right(test)


def test_the_contracts_example_is_right():
    assert_right(examples_of(RecurrentLayer, LAYER_NAMES))


def test_the_models_example_is_right():
    test = examples_of(lrnn_jax.Backbone, LAYER_NAMES | {"Backbone": lrnn_jax.Backbone})
    jax.eval_shape(lambda: assert_right(test))


@pytest.mark.parametrize("name", registry.LAYERS)
def test_a_layers_example_is_right(name):
    cls = registry.load_layer(name)
    test = examples_of(cls, {"jax": jax, "jnp": jnp, cls.__name__: cls})
    assert f"{cls.__name__}(" in test.examples[0].source
    # traced and not compiled: what an example shows are shapes
    jax.eval_shape(lambda: assert_right(test))
