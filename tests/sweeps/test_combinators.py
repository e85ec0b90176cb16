"""Combinators: which points a sweep has, in which order, and what is refused."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrnn_jax.errors import UserError
from lrnn_jax.sweeps import combinators
from lrnn_jax.sweeps.combinators import chain, choice, difficulties, grid, log_uniform, one_length, sample, seeds, uniform

# mappings from a few field names to values; field names of "left" and "right" never meet
VALUES = st.lists(st.integers(), max_size=4)
left = st.dictionaries(st.sampled_from(["a", "b.c"]), VALUES, max_size=2)
right = st.dictionaries(st.sampled_from(["x", "y.z"]), VALUES, max_size=2)
BOUNDS = st.tuples(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def test_grid_is_every_combination_and_its_last_part_varies_fastest():
    assert grid({"optim.lr": [0.1, 0.2]}, seeds(2)) == [
        {"optim.lr": 0.1, "seed": 0},
        {"optim.lr": 0.1, "seed": 1},
        {"optim.lr": 0.2, "seed": 0},
        {"optim.lr": 0.2, "seed": 1},
    ]


def test_grid_of_one_mapping_combines_its_fields():
    points = grid({"a": [1, 2], "b": ["x", "y", "z"]})
    assert [(point["a"], point["b"]) for point in points] == list(itertools.product([1, 2], "xyz"))


def test_grid_with_an_empty_part_is_empty():
    assert grid({"a": [1, 2]}, {"b": []}) == []
    assert grid({"a": [1, 2]}, seeds(0)) == []


@given(left, right)
def test_grid_has_as_many_points_as_the_product_of_its_lists_and_none_twice_from_distinct_values(first, second):
    points = grid(first, second)
    assert len(points) == math.prod(len(values) for values in [*first.values(), *second.values()])
    for point in points:
        assert point.keys() == first.keys() | second.keys()
        assert all(value in {**first, **second}[name] for name, value in point.items())
    distinct = math.prod(len(set(values)) for values in [*first.values(), *second.values()])
    assert len({tuple(sorted(point.items())) for point in points}) == distinct


@given(left, right, st.integers(0, 4))
def test_grids_nest(first, second, count):
    assert grid(grid(first, second), seeds(count)) == grid(first, grid(second, seeds(count)))


@pytest.mark.parametrize("combine", [grid, combinators.zip])
@pytest.mark.parametrize(
    "parts",
    [
        ({"optim.lr": [0.1]}, {"optim.lr": [0.2]}),
        ({"seed": [3]}, [{"seed": 0}]),
        ([{"a": 1, "seed": 0}], [{"b": 1}], [{"seed": 0}]),
    ],
    ids=["mappings", "mapping and sweep", "first and last"],
)
def test_a_field_that_is_set_twice_is_refused_by_name(combine, parts):
    name = "optim.lr" if "optim.lr" in parts[0] else "seed"
    with pytest.raises(UserError, match=f"'{name}' twice"):
        combine(*parts)


@pytest.mark.parametrize("values", ["cosine", 0.1, 3, None], ids=str)
@pytest.mark.parametrize(
    "combine", [grid, combinators.zip, lambda fields: choice(fields["optim.x"])], ids=["grid", "zip", "choice"]
)
def test_one_value_where_a_list_belongs_is_refused_with_what_to_write(combine, values):
    with pytest.raises(UserError, match="list of values") as error:
        combine({"optim.x": values})
    assert f"[{values!r}]" in str(error.value) and "\n" not in str(error.value)


def test_numbers_of_numpy_become_pythons_own():
    fields = {
        "seed": np.arange(2),
        "optim.lr": [np.float32(0.5)],
        "train.length": [[np.int64(3), np.int64(4)]],
        "a": [np.True_],
    }
    drawn = sample(3, {"seed": choice(np.arange(5)), "b": lambda generator: np.float32(0.5)})
    for point in [*grid(fields), *combinators.zip({"seed": np.arange(2)}), *grid([{"seed": np.int64(1)}]), *drawn]:
        assert point == json.loads(json.dumps(point))
        assert type(point["seed"]) is int
    assert grid(fields)[1] == {"seed": 1, "optim.lr": 0.5, "train.length": [3, 4], "a": True}


def test_zip_walks_along_all_fields_at_once():
    assert combinators.zip({"a": [1, 2, 3], "b": ["x", "y", "z"]}, seeds(3, first=7)) == [
        {"a": 1, "b": "x", "seed": 7},
        {"a": 2, "b": "y", "seed": 8},
        {"a": 3, "b": "z", "seed": 9},
    ]


@pytest.mark.parametrize(
    "parts", [({"a": [1, 2]}, seeds(3)), ({"a": [1, 2], "b": [1, 2, 3]},), ([{"a": 1}], {"b": []})], ids=str
)
def test_zip_of_unequal_lengths_is_refused_with_the_lengths(parts):
    with pytest.raises(UserError, match="different lengths") as error:
        combinators.zip(*parts)
    lengths = [len(v) for p in parts for v in (p.values() if isinstance(p, dict) else [p])]
    assert all(str(length) in str(error.value) for length in lengths)
    assert "\n" not in str(error.value)


@given(st.lists(st.integers(), max_size=5), st.lists(st.integers(), max_size=5))
def test_zip_takes_the_first_points_of_all_parts_together(first, second):
    if len(first) != len(second):
        with pytest.raises(UserError):
            combinators.zip({"a": first}, {"b": second})
    else:
        points = combinators.zip({"a": first}, {"b": second})
        assert [(point["a"], point["b"]) for point in points] == list(zip(first, second, strict=True))


def test_chain_keeps_the_order_and_allows_different_fields():
    assert chain(seeds(2), [{"a": 1}], [], seeds(1, first=5)) == [{"seed": 0}, {"seed": 1}, {"a": 1}, {"seed": 5}]
    assert chain() == []


def test_a_chained_grid_is_the_two_grids():
    small, large = {"model.width": [4], "optim.lr": [0.1, 0.2]}, {"model.width": [8], "optim.lr": [0.01]}
    assert grid(chain(grid(small), grid(large)), seeds(2)) == chain(grid(small, seeds(2)), grid(large, seeds(2)))


def test_seeds_count_up_from_the_first():
    assert seeds(3) == [{"seed": 0}, {"seed": 1}, {"seed": 2}]
    assert seeds(2, first=10) == [{"seed": 10}, {"seed": 11}]
    assert seeds(0) == []


def test_the_parts_are_left_as_they_were():
    part, values = seeds(2), {"a": [1, 2]}
    for point in [*grid(values, part), *combinators.zip(values, part), *grid(part)]:
        point["b"] = 0
    assert part == [{"seed": 0}, {"seed": 1}] and values == {"a": [1, 2]}


# --- sampling ------------------------------------------------------------------------------------------------------

FIELDS = {"optim.lr": log_uniform(1e-4, 1e-1), "model.dropout": uniform(0.0, 0.5), "model.width": choice([4, 8, 16])}


def test_a_sample_has_every_field_in_every_point():
    points = sample(20, FIELDS)
    assert len(points) == 20
    assert all(point.keys() == FIELDS.keys() for point in points)
    assert sample(0, FIELDS) == []


@given(st.integers(0, 2**32), st.integers(1, 10))
def test_the_same_seed_draws_the_same_points(seed, count):
    assert sample(count, FIELDS, seed=seed) == sample(count, FIELDS, seed=seed)


def test_another_seed_draws_other_points():
    draws = [tuple(point["optim.lr"] for point in sample(3, FIELDS, seed=seed)) for seed in range(50)]
    assert len(set(draws)) == 50


def test_fields_are_drawn_each_on_its_own():
    fields = {"a": uniform(0.0, 1.0), "b": uniform(0.0, 1.0)}
    points = sample(2000, fields, seed=1)
    assert len({point["a"] for point in points}) == 2000
    covariance = sum((point["a"] - 0.5) * (point["b"] - 0.5) for point in points) / 2000
    # independent: standard deviation 1/12/sqrt(2000) = 0.0019
    assert abs(covariance) < 0.01


@given(BOUNDS, st.integers(0, 1000))
def test_uniform_stays_within_its_bounds(bounds, seed):
    low, high = bounds
    assert all(low <= point["x"] <= high for point in sample(5, {"x": uniform(low, high)}, seed=seed))


@given(st.floats(-20, 20), st.floats(0.01, 20), st.integers(0, 1000))
def test_log_uniform_stays_within_its_bounds(log_low, span, seed):
    low, high = math.exp(log_low), math.exp(log_low + span)
    drawn = [point["x"] for point in sample(5, {"x": log_uniform(low, high)}, seed=seed)]
    assert all(low * (1 - 1e-12) <= x <= high * (1 + 1e-12) for x in drawn)


def test_uniform_and_log_uniform_fill_their_ranges_evenly():
    points = sample(4000, {"u": uniform(2.0, 6.0), "l": log_uniform(1e-4, 1.0)})
    for quarter in range(4):
        inside = sum(2.0 + quarter <= point["u"] < 3.0 + quarter for point in points)
        decade = sum(10.0 ** (quarter - 4) <= point["l"] < 10.0 ** (quarter - 3) for point in points)
        # binomial: 1000 with a standard deviation of 27
        assert abs(inside - 1000) < 150 and abs(decade - 1000) < 150


def test_choice_takes_every_value_about_equally_often():
    points = sample(3000, {"x": choice(["a", "b", "c"])})
    counts = [sum(point["x"] == value for point in points) for value in "abc"]
    assert sum(counts) == 3000 and all(abs(count - 1000) < 150 for count in counts)


def test_a_sample_is_a_sweep_like_any_other():
    points = grid(sample(3, FIELDS, seed=2), seeds(2))
    assert [point["seed"] for point in points] == [0, 1] * 3
    assert [point["optim.lr"] for point in points[::2]] == [point["optim.lr"] for point in sample(3, FIELDS, seed=2)]


def test_difficulties_are_the_baseline_and_one_change_at_a_time():
    at_32 = {"train.length": [32, 32], "eval.lengths": [[32, 32]], "eval.headline": [32, 32]}
    assert one_length(32) == at_32
    points = difficulties(vocabulary=[8, 16], length=[32], noise=[0.5])
    assert points == [{}, {"task.vocabulary": 8}, {"task.vocabulary": 16}, at_32, {"task.noise": 0.5}]
    with pytest.raises(UserError, match="list of values for 'vocabulary'"):
        difficulties(vocabulary=8)
