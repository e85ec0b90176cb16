"""Which scans hold no array with a state for every position: read from the program itself, forward and backward."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrnn_jax.scans import (
    outer,
    scan_diagonal,
    scan_gated_outer,
    scan_selective,
    scan_time_invariant,
    selective,
    time_invariant,
)

STEPS = 8192


def count_floats(jaxpr):
    """Sizes of all arrays that a program makes, those of its loops' bodies included."""
    for equation in jaxpr.eqns:
        yield from (np.prod(variable.aval.shape, dtype=int) for variable in equation.outvars)
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from count_floats(inner)


def largest_array(scan, *shapes):
    """Floats of the largest array in the program that computes the outputs and all gradients."""
    xs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    run = jax.value_and_grad(lambda *xs: jnp.sum(scan(*xs)[0]), argnums=tuple(range(len(xs))))
    return max(count_floats(jax.make_jaxpr(run)(*xs).jaxpr))


def test_an_array_with_every_state_is_seen():
    states = (1, STEPS, 32, 16)
    assert largest_array(scan_diagonal, states, states) >= np.prod(states)
    assert largest_array(functools.partial(scan_diagonal, method="associative"), states, states) >= np.prod(states)


@pytest.mark.parametrize("method", selective.METHODS)
@pytest.mark.parametrize("negative", [False, True], ids=["positive", "negative"])
def test_selective_holds_no_state_for_every_position(method, negative):
    channels, states = 32, 16
    scan = functools.partial(scan_selective, method=method, negative_eigenvalues=negative)
    wide, narrow = (1, STEPS, channels), (1, STEPS, states)
    assert largest_array(scan, wide, wide, (channels, states), narrow, narrow) <= STEPS * channels * states / 8


@pytest.mark.parametrize("gates", [(1, STEPS, 2, 32), (1, STEPS, 2)], ids=["rows", "heads"])
@pytest.mark.parametrize("method", outer.METHODS)
def test_gated_outer_holds_no_state_for_every_position(method, gates):
    vectors = [(1, STEPS, 2, 32)] * 3
    assert largest_array(functools.partial(scan_gated_outer, method=method), *vectors, gates) <= STEPS * 2 * 32 * 32 / 16


@pytest.mark.parametrize("method", time_invariant.METHODS)
def test_time_invariant_holds_no_state_for_every_position(method):
    channels, states = 32, 16

    def scan(re, im, x):
        return scan_time_invariant((re, im), (re, im), (re, im), x, method=method)

    coefficients = channels, states
    assert largest_array(scan, coefficients, coefficients, (1, STEPS, channels)) <= STEPS * channels * states / 4
