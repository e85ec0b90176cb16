"""One sequential loop with one fused backward pass, shared by every recurrence family.

``lax.scan`` differentiated by JAX stores each step's intermediates and, for arrays with the batch first, transposes every
input and output. This loop indexes ``[B T ...]`` arrays in place, keeps only what the backward pass cannot recompute, and
emits all input gradients from a single reverse loop: 1.2 to 3 times faster than the differentiated scan on a CPU, and 3 to
25 times faster than ``lax.associative_scan`` there.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Tree = Any
Step = Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]

# Four steps per loop iteration amortise the loop's bookkeeping; sixteen and more were measured slower on CPUs.
UNROLL = 4


def run_recurrence(
    step: Step,
    constants: Tree,
    h0: Tree,
    xs: Tree,
    *,
    emits_state: bool = False,
    reverse: bool = False,
) -> tuple[Tree, Tree]:
    """Runs ``h_t, y_t = step(constants, h_{t-1}, x_t)`` for t = 1..T (T..1 if ``reverse``).

    Args:
      step: pure function of (constants, state, one time slice of ``xs``) to (new state, output). It must be a module-level
        function or a ``functools.partial`` of one, so that compiled programs can be reused.
      constants: pytree of arrays that every step reads, such as a time-invariant transition.
      h0: pytree, the state before the first step.
      xs: pytree of ``[B T ...]`` arrays; step t sees their slices ``[B ...]``.
      emits_state: promises that ``y_t`` is ``h_t``. The outputs then serve as the backward pass's only residual; otherwise
        states are kept at about sqrt(T) checkpoints and recomputed in between.
      reverse: runs from the last position to the first.

    Returns:
      ``(ys, h_last)``: ``ys`` stacks the outputs as ``[B T ...]``, ``h_last`` is the state after the final step.

    Numerics: reverse-mode gradients only (custom VJP); dtypes are those that ``step`` produces.
    """
    if not _length(xs):
        return _empty_outputs(step, constants, h0, xs), h0
    return _run(step, emits_state, reverse, constants, h0, xs)


def loop_over_time(step: Step, h0: Tree, xs: Tree, *, reverse: bool = False, unroll: bool = False) -> tuple[Tree, Tree]:
    """Runs ``h_t, y_t = step((), h_{t-1}, x_t)`` in place, as `run_recurrence`, but without a gradient of its own.

    ``unroll`` takes a few steps per iteration, which pays for steps of a few operations.
    """
    length, ys = _length(xs), _empty_outputs(step, (), h0, xs)
    if not length:
        return ys, h0
    loop = _unrolled_loop if unroll else functools.partial(lax.fori_loop, 0)
    h, ys = loop(length, _make_advance(step, (), xs, reverse), (h0, ys))
    return ys, h


def start_state(h0: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    """Returns ``h0`` in float32, or zeros of ``shape`` if it is None."""
    return jnp.zeros(shape, jnp.float32) if h0 is None else h0.astype(jnp.float32)


def keep_mask(reset: jax.Array | None, *, reverse: bool = False) -> jax.Array | None:
    """Returns the float32 ``[B T]`` factor that the incoming state is multiplied with: 0 at a reset, 1 elsewhere.

    In reverse, the state that enters t comes from t+1, so it is cut where t+1 starts a new sequence.
    """
    if reset is None:
        return None
    if reverse:
        reset = jnp.concatenate([reset[:, 1:], jnp.zeros_like(reset[:, :1])], axis=1)
    return 1.0 - reset.astype(jnp.float32)


def cut(h: jax.Array, keep: jax.Array | None) -> jax.Array:
    """Multiplies ``h`` by a mask over its first axes; None keeps everything."""
    return h if keep is None else h * keep.reshape(*keep.shape, *[1] * (h.ndim - keep.ndim))


def shift(x: jax.Array, first: jax.Array, reverse: bool = False) -> jax.Array:
    """Returns ``[B T ...]`` with what stood one position before, ``first`` at the start; the other way round in reverse."""
    if not x.shape[1]:
        return x
    return jnp.concatenate([x[:, 1:], first[:, None]] if reverse else [first[:, None], x[:, :-1]], axis=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _run(step: Step, emits_state: bool, reverse: bool, constants: Tree, h0: Tree, xs: Tree) -> tuple[Tree, Tree]:
    return _forward(step, emits_state, reverse, constants, h0, xs)[0]


def _forward(
    step: Step, emits_state: bool, reverse: bool, constants: Tree, h0: Tree, xs: Tree
) -> tuple[tuple[Tree, Tree], Tree]:
    length = _length(xs)
    chunk = _chunk_size(length)
    ys = _empty_outputs(step, constants, h0, xs)
    advance = _make_advance(step, constants, xs, reverse)

    def run_chunk(c: jax.Array, carry: tuple[Tree, Tree, Tree]) -> tuple[Tree, Tree, Tree]:
        h, ys, starts = carry
        starts = _write(starts, h, c, axis=0)
        h, ys = lax.fori_loop(c * chunk, jnp.minimum((c + 1) * chunk, length), advance, (h, ys))
        return h, ys, starts

    if emits_state:
        h, ys = _unrolled_loop(length, advance, (h0, ys))
        return (ys, h), (constants, h0, xs, ys)
    chunks = -(-length // chunk)
    h, ys, starts = lax.fori_loop(0, chunks, run_chunk, (h0, ys, _empty_stack(h0, chunks)))
    return (ys, h), (constants, h0, xs, starts)


def _backward(step: Step, emits_state: bool, reverse: bool, residual: Tree, cotangents: Tree) -> tuple[Tree, Tree, Tree]:
    constants, h0, xs, kept = residual
    dys, dh_last = cotangents
    length = _length(xs)
    chunk = _chunk_size(length)

    def retreat(h_before: Tree, t: jax.Array, carry: tuple[Tree, Tree, Tree]) -> tuple[Tree, Tree, Tree]:
        dh, dconstants, dxs = carry
        _, pullback = jax.vjp(step, constants, h_before, _read(xs, t))
        dc, dh, dx = pullback((dh, _read(dys, t)))
        return dh, jax.tree.map(jnp.add, dconstants, dc), _write(dxs, dx, t)

    def position(i: jax.Array) -> jax.Array:
        return length - 1 - i if reverse else i

    carry = (dh_last, jax.tree.map(jnp.zeros_like, constants), jax.tree.map(jnp.zeros_like, xs))

    if emits_state:

        def undo(j: jax.Array, carry: tuple[Tree, Tree, Tree]) -> tuple[Tree, Tree, Tree]:
            i = length - 1 - j
            before = _read(kept, position(jnp.maximum(i - 1, 0)))
            h_before = jax.tree.map(lambda first, h: jnp.where(i == 0, first, h), h0, before)
            return retreat(h_before, position(i), carry)

        dh, dconstants, dxs = _unrolled_loop(length, undo, carry)
        return dconstants, dh, dxs

    def undo_chunk(j: jax.Array, carry: tuple[Tree, Tree, Tree]) -> tuple[Tree, Tree, Tree]:
        c = -(-length // chunk) - 1 - j
        first, last = c * chunk, jnp.minimum((c + 1) * chunk, length)

        def remember(i: jax.Array, carry: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
            h, stack = carry
            stack = _write(stack, h, i - first, axis=0)
            return step(constants, h, _read(xs, position(i)))[0], stack

        def undo(j: jax.Array, carry: tuple[Tree, Tree, Tree]) -> tuple[Tree, Tree, Tree]:
            i = last - 1 - j
            return retreat(_read(stack, i - first, axis=0), position(i), carry)

        _, stack = lax.fori_loop(first, last, remember, (_read(kept, c, axis=0), _empty_stack(h0, chunk)))
        return lax.fori_loop(0, last - first, undo, carry)

    dh, dconstants, dxs = lax.fori_loop(0, -(-length // chunk), undo_chunk, carry)
    return dconstants, dh, dxs


_run.defvjp(_forward, _backward)


def _make_advance(
    step: Step, constants: Tree, xs: Tree, reverse: bool
) -> Callable[[jax.Array, tuple[Tree, Tree]], tuple[Tree, Tree]]:
    """The body of the forward loops: the i-th step from (state, outputs so far) to the next."""
    length = _length(xs)

    def advance(i: jax.Array, carry: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
        h, ys = carry
        t = length - 1 - i if reverse else i
        h, y = step(constants, h, _read(xs, t))
        return h, _write(ys, y, t)

    return advance


def _length(xs: Tree) -> int:
    return jax.tree.leaves(xs)[0].shape[1]


def _chunk_size(length: int) -> int:
    """sqrt(T) checkpoints of sqrt(T) steps use the least memory; very short chunks would only add loop overhead."""
    return min(length, max(16, math.isqrt(length)))


def _read(tree: Tree, t: jax.Array, axis: int = 1) -> Tree:
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, t, axis, keepdims=False), tree)


def _write(tree: Tree, values: Tree, t: jax.Array, axis: int = 1) -> Tree:
    return jax.tree.map(lambda x, v: lax.dynamic_update_index_in_dim(x, v, t, axis), tree, values)


def _empty_stack(h: Tree, size: int) -> Tree:
    return jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), h)


def _empty_outputs(step: Step, constants: Tree, h0: Tree, xs: Tree) -> Tree:
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct((x.shape[0], *x.shape[2:]), x.dtype), xs)
    _, y = jax.eval_shape(step, constants, h0, first)
    return jax.tree.map(lambda x: jnp.zeros((x.shape[0], _length(xs), *x.shape[1:]), x.dtype), y)


def _unrolled_loop(length: int, body: Callable[[jax.Array, Tree], Tree], carry: Tree) -> Tree:
    def several(i: jax.Array, carry: Tree) -> Tree:
        for u in range(UNROLL):
            carry = body(i * UNROLL + u, carry)
        return carry

    carry = lax.fori_loop(0, length // UNROLL, several, carry)
    return lax.fori_loop(length - length % UNROLL, length, body, carry)
