"""What does not fit is refused by name and shape, by every scan and method alike; what fits may be a NumPy array."""

import functools

import jax
import numpy as np
import pytest
from scans.families import EVERY_METHOD, FAMILIES, WITH_RESETS, call, make_case

from lrnn_jax.scans import scan_attention, scan_delta_product, scan_diagonal, scan_gated_outer

STEPS = 5


def arguments_of(name):
    constants, xs, h0, reset = make_case(name, STEPS)
    return {**constants, **xs, "h0": h0, "reset": reset}


def leaves_of(arguments):
    """Names as the messages have them (``b[1]``, ``h0['k']``), with arrays."""
    for path, x in jax.tree_util.tree_leaves_with_path(arguments):
        yield path[0].key + jax.tree_util.keystr(path[1:]), x


def change(arguments, name, new):
    return jax.tree_util.tree_map_with_path(
        lambda path, x: new(x) if path[0].key + jax.tree_util.keystr(path[1:]) == name else x, arguments
    )


EVERY_ARRAY = [(name, array) for name in FAMILIES for array, _ in leaves_of(arguments_of(name))]


def assert_refused(name, arguments, message):
    for method in ("auto", *FAMILIES[name].methods):
        with pytest.raises(ValueError, match=message) as refusal:
            call(name, method, {}, arguments)
        assert "\n" not in str(refusal.value)


def quote(name):
    return name.replace("[", r"\[").replace("]", r"\]")


@pytest.mark.parametrize(("name", "array"), EVERY_ARRAY)
def test_an_axis_of_another_size_is_refused_by_name_and_shape(name, array):
    """One batch row instead of two is not broadcast, nor are fewer positions; constants have neither."""
    arguments = arguments_of(name)
    before = dict(leaves_of(arguments))[array]
    for axis in range(before.ndim):
        if before.shape[axis] > 1:
            shorter = change(arguments, array, lambda x, axis=axis: np.take(x, range(1), axis))
            assert_refused(name, shorter, r"^[a-z0-9_']+(\[[01'a-z]+\])?: (shape|a cache|. groups) .*")


@pytest.mark.parametrize(("name", "array"), EVERY_ARRAY)
def test_a_missing_or_additional_axis_is_refused_by_name(name, array):
    arguments = arguments_of(name)
    if FAMILIES[name].scan is scan_gated_outer and array == "a":
        return  # one decay per row and one per head both fit
    assert_refused(name, change(arguments, array, lambda x: x[..., None]), r"(has . axes and is not \[|: \*N is )")
    assert_refused(name, change(arguments, array, lambda x: x[..., 0]), rf"^{quote(array)}: shape .* axes and is not \[")


@pytest.mark.parametrize("name", FAMILIES)
def test_arrays_without_a_batch_axis_are_refused(name):
    one = jax.tree.map(lambda x: x[0], {k: v for k, v in arguments_of(name).items() if k not in make_case(name, 1)[0]})
    assert_refused(name, make_case(name, 1)[0] | one, r"^\w+(\[0\])?: shape \(5.* has \d axes and is not \[B T")


@pytest.mark.parametrize(("name", "array"), EVERY_ARRAY)
def test_another_dtype_is_refused_by_name(name, array):
    arguments = arguments_of(name)
    if array == "reset":
        assert_refused(name, change(arguments, array, np.float32), "^reset: dtype float32 is not bool$")
        assert_refused(name, change(arguments, array, lambda x: x.astype(int)), "^reset: dtype int64 is not bool$")
        return
    complex_array = change(arguments, array, lambda x: x.astype(np.complex64))
    assert_refused(name, complex_array, rf"^{quote(array)}: complex64 is complex; scan_diagonal_complex takes")
    assert_refused(
        name, change(arguments, array, lambda x: x.astype(np.int32)), rf"^{quote(array)}: dtype int32 is not floating$"
    )


@pytest.mark.parametrize(("name", "array"), EVERY_ARRAY)
def test_what_is_no_array_is_refused_by_name(name, array):
    whole = array.split("[")[0]
    assert_refused(name, arguments_of(name) | {whole: 1.0}, rf"^{whole}: (float is not an array|not a (tuple|dictionary) of )")


@pytest.mark.parametrize("name", FAMILIES)
def test_an_unknown_method_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"'chunky' is not one of auto, {', '.join(FAMILIES[name].methods)}"):
        call(name, "chunky", {}, arguments_of(name))


@pytest.mark.parametrize(("name", "method"), [*EVERY_METHOD, *((name, "auto") for name in FAMILIES)])
def test_numpy_arrays_are_served(name, method):
    """Traced, not run: all that could fail does so there."""
    arguments = arguments_of(name)
    if method == "auto" or (name, method) in WITH_RESETS:
        jax.eval_shape(functools.partial(call, name, method, {}, arguments))
    del arguments["h0"], arguments["reset"]
    jax.eval_shape(functools.partial(call, name, method, {}, arguments))


@pytest.mark.parametrize(("name", "method"), EVERY_METHOD)
def test_an_empty_batch_is_served(name, method):
    constants, *rows = make_case(name, STEPS, method)
    xs, h0, reset = jax.tree.map(lambda x: x[:0], tuple(rows))
    ys, last = jax.eval_shape(functools.partial(call, name, method, constants, xs, h0=h0, reset=reset))
    assert all(y.shape[:2] == (0, STEPS) for y in jax.tree.leaves(ys))
    assert jax.tree.map(lambda x: x.shape, last) == jax.tree.map(lambda x: x.shape, h0)


@pytest.mark.parametrize("method", ["sequential", "associative"])
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ((2, 50, 8), (2, 40, 8), r"^b: shape \(2, 40, 8\) is not \[B T \*N\]: T is 40 here and 50 in a$"),
        ((2, 40, 8), (2, 50, 8), r"^b: shape \(2, 50, 8\) is not \[B T \*N\]: T is 50 here and 40 in a$"),
        ((1, 1, 8), (2, 50, 8), r"^b: shape \(2, 50, 8\) is not \[B T \*N\]: B is 2 here and 1 in a, T is 50 here and 1 in a$"),
        ((2, 50, 1), (2, 50, 8), r"^b: shape \(2, 50, 8\) is not \[B T \*N\]: \*N is \(8,\) here and \(1,\) in a$"),
        ((50, 8), (50, 8), r"^a: shape \(50, 8\) has 2 axes and is not \[B T \*N\]$"),
    ],
)
def test_refusals_of_the_diagonal_scan_word_for_word(a, b, message, method):
    with pytest.raises(ValueError, match=message):
        scan_diagonal(np.zeros(a, np.float32), np.zeros(b, np.float32), method=method)


def zeros(*shape):
    return np.zeros(shape, np.float32)


def test_rules_beyond_letters_are_refused_by_name():
    x = zeros(2, 5, 3, 4)
    with pytest.raises(ValueError, match=r"^q: 3 groups do not divide the 2 heads of v$"):
        scan_gated_outer(x, x, zeros(2, 5, 2, 4), zeros(2, 5, 2))
    with pytest.raises(ValueError, match=r"^a: shape \(2, 5\) has 2 axes and is not \[B T H K\] or \[B T H\]$"):
        scan_gated_outer(x, x, x, zeros(2, 5))
    with pytest.raises(ValueError, match=r"^k: shape \(2, 5, 0, 3, 4\) has no writes: J is 0$"):
        scan_delta_product(x, zeros(2, 5, 0, 3, 4), zeros(2, 5, 0, 3, 4), zeros(2, 5, 0, 3))
    with pytest.raises(ValueError, match=r"^window: 0 is below 1$"):
        scan_attention(x, x, x, window=0)
    with pytest.raises(ValueError, match=r"^q: shape \(2, 5, 2, 3\) has an odd K"):
        scan_attention(*[zeros(2, 5, 2, 3)] * 3, window=2)
    cache = {"k": zeros(2, 1, 3, 4), "v": zeros(2, 1, 3, 4), "valid": zeros(2, 1)}
    with pytest.raises(ValueError, match=r"^h0: a cache of 1 positions is not that of a window of 3$"):
        scan_attention(x, x, x, window=3, h0=cache)
    with pytest.raises(ValueError, match=r"^h0: not a dictionary of k, v, valid$"):
        scan_attention(x, x, x, window=2, h0={"k": cache["k"]})
