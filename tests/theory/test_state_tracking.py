"""The constructions of Grazzi et al. 2025 track what they should: 10 000 steps, every group by its multiplication table."""

import itertools

import numpy as np
import pytest

from lrnn_jax.tasks.word_problem import make_group
from lrnn_jax.theory.state_tracking import (
    count_by_two_layers,
    count_by_two_reflections,
    mirrors_of,
    run_reflections,
    swaps_of,
    track_dihedral,
    track_parity,
    track_permutations,
    track_resets,
    track_rotations,
)

STEPS = 10_000


def draw(choices, steps=STEPS, seed=0):
    return np.random.default_rng(seed).choice(choices, steps)


def products(letters, group):
    """Products by the table alone: the newest letter stands on the right."""
    table = make_group(group).table
    return np.array(list(itertools.accumulate(letters, lambda y, x: table[y, x])))


def moved(group, most):
    elements = make_group(group).elements
    return np.flatnonzero(np.sum(elements != elements[0], axis=1) <= most)


def test_parity_for_ten_thousand_bits():
    bits = draw(2)
    np.testing.assert_array_equal(track_parity(bits), np.cumsum(bits) % 2)


@pytest.mark.parametrize("modulus", [2, 3, 39])
@pytest.mark.parametrize("count", [count_by_two_reflections, count_by_two_layers])
def test_sums_modulo_m_for_ten_thousand_numbers(count, modulus):
    numbers = draw(modulus)
    np.testing.assert_array_equal(count(numbers, modulus), np.cumsum(numbers) % modulus)


@pytest.mark.parametrize("count", [count_by_two_reflections, count_by_two_layers])
def test_sums_modulo_small_m(count):
    for modulus in (2, 4, 5, 6, 7, 16, 63):
        numbers = draw(modulus, 100)
        np.testing.assert_array_equal(count(numbers, modulus), np.cumsum(numbers) % modulus)


@pytest.mark.parametrize(("letters_move", "reflections"), [(2, 1), (3, 2), (5, 4)])
def test_products_in_s5_take_one_reflection_less_than_points_moved(letters_move, reflections):
    letters = draw(moved("S5", letters_move))
    np.testing.assert_array_equal(track_permutations(letters, "S5", reflections=reflections), products(letters, "S5"))


def test_fewer_reflections_are_refused():
    with pytest.raises(ValueError, match="needs 2 swaps"):
        track_permutations(moved("S5", 3), "S5", reflections=1)


def test_groups_that_are_no_such_rotations_are_refused():
    with pytest.raises(ValueError, match="'S5' is not one of A4, S4, A5"):
        track_rotations(np.array([0]), "S5")


@pytest.mark.parametrize("group", ["A4", "S4", "A5"])
def test_rotation_groups_take_two_reflections(group):
    letters = draw(len(make_group(group).elements))
    np.testing.assert_array_equal(track_rotations(letters, group), products(letters, group))


@pytest.mark.parametrize("m", [3, 4, 12])
def test_dihedral_groups_take_one_reflection_in_two_layers(m):
    letters = draw(2 * m)
    np.testing.assert_array_equal(track_dihedral(letters, m), products(letters, f"D{m}"))


def test_resets_and_permutations_make_an_automaton():
    automaton = np.array([[0, 1, 2, 3], [1, 2, 3, 0], [2, 2, 2, 2], [1, 0, 2, 3], [0, 0, 0, 0]])
    letters = draw(5)
    states = list(itertools.accumulate(letters, lambda q, letter: automaton[letter, q], initial=3))[1:]
    np.testing.assert_array_equal(track_resets(letters, automaton, start=3), states)


def test_an_automaton_that_merges_some_states_is_refused():
    with pytest.raises(ValueError, match="neither"):
        track_resets(np.array([0]), np.array([[0, 0, 2]]))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_every_permutation_is_points_minus_cycles_swaps(n):
    for images in itertools.permutations(range(n)):
        line = list(range(n))
        swaps = swaps_of(list(images))
        for a, b in swaps:
            line[a], line[b] = line[b], line[a]
        assert tuple(line) == images
        assert len(swaps) == np.linalg.matrix_rank(np.eye(n) - np.eye(n)[list(images)])


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_every_orthogonal_matrix_is_at_most_n_reflections(n):
    """Proposition 1 (2)."""
    rng = np.random.default_rng(n)
    for _ in range(20):
        matrix = np.linalg.qr(rng.normal(size=(n, n)))[0]
        vectors = mirrors_of(matrix)
        assert len(vectors) == np.linalg.matrix_rank(np.eye(n) - matrix)
        made = np.eye(n)
        for v in vectors:
            made = (np.eye(n) - 2 * np.outer(v, v)) @ made
        np.testing.assert_allclose(made, matrix, atol=1e-9)


def test_reflections_are_those_of_the_equation():
    rng = np.random.default_rng(0)
    start, vectors = rng.normal(size=3), rng.normal(size=(6, 2, 3))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    betas, values = rng.uniform(0, 2, (6, 2)), rng.normal(size=(6, 2))
    found = run_reflections(start, vectors, betas=betas, values=values)
    h = start
    for t in range(6):
        for j in range(2):
            v = vectors[t, j]
            h = (np.eye(3) - betas[t, j] * np.outer(v, v)) @ h + betas[t, j] * v * values[t, j]
        np.testing.assert_allclose(found[t], h, rtol=1e-4, atol=1e-5)
