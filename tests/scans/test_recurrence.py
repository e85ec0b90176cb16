"""The shared sequential loop: its gradients at every chunk boundary, and how little memory they take."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lrnn_jax.scans import scan_delta_rule
from lrnn_jax.scans.recurrence import keep_mask, run_recurrence

BATCH, SIZE = 2, 3


def squash(constants, h, x):
    """Nonlinear, reads constants of two ranks, has a state of two parts and an output that is not the state."""
    fast = jnp.tanh(h["fast"] @ constants["matrix"] + x["u"])
    slow = constants["decay"][None] * h["slow"] + fast * x["gate"]
    return {"fast": fast, "slow": slow}, {"y": fast * slow, "z": slow[:, :1] + x["u"][:, :1]}


def squash_and_emit(constants, h, x):
    h, _ = squash(constants, h, x)
    return h, h


def count(constant, h, x):
    h = h + constant[None] + x
    return h, h


def count_twice(constant, h, x):
    h = h + constant[None] + x
    return h, 2.0 * h


def make_arguments(length, dtype=np.float64):
    rng = np.random.default_rng(length)
    constants = {"matrix": rng.normal(size=(SIZE, SIZE)) / 2, "decay": rng.uniform(-1, 1, SIZE)}
    h0 = {"fast": rng.normal(size=(BATCH, SIZE)), "slow": rng.normal(size=(BATCH, SIZE))}
    xs = {"u": rng.normal(size=(BATCH, length, SIZE)), "gate": rng.normal(size=(BATCH, length, SIZE))}
    return jax.tree.map(lambda x: np.asarray(x, dtype), (constants, h0, xs))


def plain_scan(step, constants, h0, xs, reverse):
    xs = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), xs)
    h, ys = lax.scan(lambda h, x: step(constants, h, x), h0, xs, reverse=reverse)
    return jax.tree.map(lambda y: jnp.moveaxis(y, 0, 1), ys), h


@functools.partial(jax.jit, static_argnums=(0, 1, 2), compiler_options={"xla_backend_optimization_level": 0})
def both_with_gradients(step, emits_state, reverse, constants, h0, xs):
    """Returns (outputs, gradients) of our loop and of the plain one, for the same random-looking cotangents."""

    def ours(*args):
        return run_recurrence(step, *args, emits_state=emits_state, reverse=reverse)

    def differentiate(run):
        outputs, pull_back = jax.vjp(run, constants, h0, xs)
        cotangents = jax.tree.map(lambda y: jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape), outputs)
        return outputs, pull_back(cotangents)

    return differentiate(ours), differentiate(lambda c, h, x: plain_scan(step, c, h, x, reverse))


def assert_equal_in_float64(step, emits_state, reverse, length):
    with jax.enable_x64(True):
        ours, plain = both_with_gradients(step, emits_state, reverse, *make_arguments(length))
        assert all(x.dtype == jnp.float64 for x in jax.tree.leaves(ours))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-10), ours, plain)


@pytest.mark.parametrize(("length", "reverse"), [(1, False), (16, False), (33, False), (300, False), (33, True)])
def test_recomputed_states_give_the_gradients_of_a_plain_scan_at_every_chunk_boundary(length, reverse):
    assert_equal_in_float64(squash, False, reverse, length)


@pytest.mark.parametrize(("length", "reverse"), [(1, False), (4, False), (7, False), (6, True)])
def test_emitted_states_give_the_gradients_of_a_plain_scan_at_every_unroll_remainder(length, reverse):
    assert_equal_in_float64(squash_and_emit, True, reverse, length)


@pytest.mark.parametrize(("step", "emits_state", "factor"), [(count, True, 1.0), (count_twice, False, 2.0)])
def test_a_constant_gets_the_gradient_summed_over_time_and_batch(step, emits_state, factor):
    """h_t = t c, so d(sum of last states)/dc = T per row and d(sum of outputs)/dc = factor T (T+1) / 2 per row."""
    length = 40
    xs, h0 = jnp.zeros((BATCH, length, SIZE)), jnp.zeros((BATCH, SIZE))

    @jax.jit
    @functools.partial(jax.jacrev)
    def sums(constant):
        ys, last = run_recurrence(step, constant, h0, xs, emits_state=emits_state)
        return jnp.stack([last.sum(), ys.sum()])

    expected = BATCH * np.array([length, factor * length * (length + 1) / 2])
    np.testing.assert_array_equal(sums(jnp.ones(SIZE)), np.tile(expected[:, None], (1, SIZE)))


def test_results_keep_the_dtype_of_the_step():
    ys, last = jax.jit(functools.partial(run_recurrence, squash))(*make_arguments(5, np.float32))
    assert {x.dtype for x in jax.tree.leaves((ys, last))} == {jnp.dtype("float32")}


def test_keep_mask_cuts_the_state_that_enters_a_start_or_in_reverse_leaves_it():
    reset = jnp.array([[True, False, True, False], [False, False, False, True]])
    assert keep_mask(None, reverse=False) is None
    assert keep_mask(None, reverse=True) is None
    np.testing.assert_array_equal(keep_mask(reset, reverse=False), [[0, 1, 0, 1], [1, 1, 1, 0]])
    np.testing.assert_array_equal(keep_mask(reset, reverse=True), [[1, 0, 1, 1], [1, 1, 0, 1]])
    assert keep_mask(reset, reverse=False).dtype == jnp.float32


def test_delta_rule_backward_needs_far_less_memory_than_every_state():
    batch, length, heads, size = 2, 1024, 2, 32
    vector, scalar = jnp.zeros((batch, length, heads, size)), jnp.zeros((batch, length, heads))

    def plain(q, k, v, beta):
        def step(_, s, x):
            q, k, v, beta = x
            error = beta[..., None] * (v - jnp.einsum("bhkv,bhk->bhv", s, k))
            s = s + k[..., :, None] * error[..., None, :]
            return s, jnp.einsum("bhkv,bhk->bhv", s, q)

        return plain_scan(step, (), jnp.zeros((batch, heads, size, size)), (q, k, v, beta), False)

    def temporary_bytes(scan):
        gradient = jax.jit(jax.grad(lambda *xs: jnp.sum(scan(*xs)[0] ** 2), argnums=(0, 1, 2, 3)))
        return gradient.lower(vector, vector, vector, scalar).compile().memory_analysis().temp_size_in_bytes

    every_state = 4 * batch * length * heads * size * size
    ours = temporary_bytes(functools.partial(scan_delta_rule, method="sequential"))
    assert temporary_bytes(plain) > every_state
    assert ours < every_state / 4
