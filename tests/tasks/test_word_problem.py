"""Word problems: groups by hand, the convention of composition, and the paper's facts (Grazzi et al. 2025, App. E.2)."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch
from lrnn_jax.tasks.word_problem import WordProblem, make_group, multiply

ORDERS = {
    "S2": 2,
    "Z2": 2,
    "Z60": 60,
    "S3": 6,
    "S4": 24,
    "S5": 120,
    "A4": 12,
    "A5": 60,
    "D3": 6,
    "D4": 8,
    "A4xZ5": 60,
    "Z2xZ2xS3": 24,
}


@functools.cache
def rows(task, length=(32, 32), size=512):
    return jax.tree.map(np.asarray, jax.jit(lambda key: task.batch(key, size, length))(jax.random.key(0)))


def number(group, *images):
    """The number of the element with these images."""
    return make_group(group).elements.tolist().index(list(images))


# --- groups ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORDERS)
def test_table_is_that_of_a_group(name):
    elements, table = make_group(name)
    n = ORDERS[name]
    assert len(elements) == n
    assert table.shape == (n, n)
    np.testing.assert_array_equal(elements[0], np.arange(elements.shape[1]))
    np.testing.assert_array_equal(table[0], np.arange(n))
    np.testing.assert_array_equal(table[:, 0], np.arange(n))
    for line in (*table, *table.T):
        assert sorted(line) == list(range(n))
    np.testing.assert_array_equal(table[table], table[:, table])  # (a o b) o c = a o (b o c)


@pytest.mark.parametrize("name", ORDERS)
def test_elements_are_in_lexicographic_order(name):
    elements = make_group(name).elements.tolist()
    assert elements == sorted(elements)


@pytest.mark.parametrize("n", [3, 5])
def test_symmetric_groups_are_all_permutations(n):
    assert [tuple(p) for p in make_group(f"S{n}").elements.tolist()] == list(itertools.permutations(range(n)))


def test_alternating_group_is_what_three_cycles_make():
    elements, table = make_group("A5")
    cycles = [i for i, p in enumerate(elements) if np.sum(p != np.arange(5)) == 3]
    assert len(cycles) == 20
    made = {0}
    while (more := made | set(table[sorted(made)][:, cycles].ravel().tolist())) != made:
        made = more
    assert len(made) == 60


def test_cyclic_group_adds():
    table = make_group("Z60").table
    np.testing.assert_array_equal(table, np.add.outer(np.arange(60), np.arange(60)) % 60)


def test_dihedral_group_is_that_of_the_square():
    table = make_group("D4").table
    turn, flip = number("D4", 1, 2, 3, 0), number("D4", 3, 2, 1, 0)
    back = number("D4", 3, 0, 1, 2)
    assert table[turn, back] == table[flip, flip] == 0
    assert table[flip, table[turn, flip]] == back
    assert table[turn, flip] != table[flip, turn]


def test_direct_product_multiplies_side_by_side():
    product, left, right = (make_group(name).table for name in ("A4xZ5", "A4", "Z5"))
    a, b = np.divmod(np.arange(60), 5)
    expected = left[a[:, None], a[None]] * 5 + right[b[:, None], b[None]]
    np.testing.assert_array_equal(product, expected)


def test_composition_by_hand_the_newest_element_acts_first():
    first, second = number("S3", 2, 0, 1), number("S3", 1, 0, 2)
    assert (first, second) == (4, 2)
    # 0 -> 1 -> 0, 1 -> 0 -> 2, 2 -> 2 -> 1
    assert make_group("S3").table[first, second] == number("S3", 0, 2, 1) == 1
    assert make_group("S3").table[second, first] == number("S3", 2, 1, 0) == 5
    np.testing.assert_array_equal(multiply("S3", jnp.asarray([[4, 2, 4]], jnp.int32)), [[4, 1, 2]])
    assert WordProblem("S3").oracle([5, 3, 5]) == [4, 1, 2]


# --- letters and tokens ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("letters", "count", "moved"),
    [("all", 120, 5), ("swaps", 11, 2), ("moved_2", 11, 2), ("moved_3", 31, 3), ("moved_4", 76, 4)],
)
def test_letters_of_the_paper_are_uniform(letters, count, moved):
    tokens, counts = np.unique(rows(WordProblem(letters=letters)).inputs, return_counts=True)
    assert tokens.size == count
    assert 1 in tokens
    elements = make_group("S5").elements[tokens - 1]
    assert np.max(np.sum(elements != np.arange(5), axis=1)) == moved
    total = counts.sum()
    np.testing.assert_allclose(counts / total, 1 / count, atol=5 * math.sqrt(1 / count / total))


def test_targets_of_swaps_cover_the_whole_group():
    assert set(np.unique(rows(WordProblem(letters="swaps")).targets)) == set(range(120))


@pytest.mark.parametrize("group", ["S5", "Z60", "D4", "A4xZ5"])
@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("tokens", [1, 2, 4])
def test_targets_are_a_loop_over_permutations(group, bos, tokens):
    task = WordProblem(group, tokens_per_transition=tokens, bos=bos)
    batch = rows(task, (9, 14), 64)
    elements = [tuple(p) for p in make_group(group).elements.tolist()]
    for row, targets, n in zip(batch.inputs, batch.targets, batch.lengths, strict=True):
        letters = row[bos:n].tolist()
        expected = [0] * (tokens - 1)
        product = list(elements[0])
        for t, token in enumerate(letters):
            if t % tokens == 0:
                product = [product[i] for i in elements[token - 1]]
            else:
                assert token == len(elements) + 1
            expected.append(elements.index(tuple(product)))
        expected = [0] * bos + expected[: len(letters)]
        assert targets[:n].tolist() == expected == task.oracle(row[:n].tolist())


def test_four_tokens_per_transition_by_hand():
    task = WordProblem("S3", tokens_per_transition=4)
    assert task.vocab_size == 8
    # the answer to the letter at position i is asked at i + 3; 7 says "no element"
    assert task.oracle([5, 7, 7, 7, 3, 7, 7, 7, 5, 7]) == [0, 0, 0, 4, 4, 4, 4, 1, 1, 1]


def test_bos_comes_before_the_sequence_and_is_not_asked():
    task = WordProblem("S3", bos=True)
    assert (task.vocab_size, task.outputs, task.bos_token) == (8, 6, 7)
    batch = rows(task, (3, 5))
    assert batch.inputs.shape == batch.targets.shape == batch.weights.shape == (512, 6)
    assert set(batch.lengths) == {4, 5, 6}
    np.testing.assert_array_equal(batch.inputs[:, 0], 7)
    np.testing.assert_array_equal(batch.weights[:, 0], 0.0)
    np.testing.assert_array_equal(batch.weights.sum(axis=1), batch.lengths - 1)
    assert 7 not in batch.inputs[:, 1:]
    assert WordProblem("S3", bos=True, tokens_per_transition=2).bos_token == 8
    assert task.oracle([7, 5, 3]) == [0, 4, 1]


@pytest.mark.parametrize("group", ["S2", "S3"])
def test_without_padding_the_vocabulary_is_the_group(group):
    """As Dubinin et al. 2026 have it: acc_t = op(acc_{t-1}, x_t) with (p * q)[i] = p[q[i]], from element 0 on."""
    task = WordProblem(group, padding=False)
    elements = list(itertools.permutations(range(int(group[1]))))
    assert task.vocab_size == task.outputs == len(elements)
    assert task.token_names() == ["".join(map(str, p)) for p in elements]
    batch = rows(task, (16, 16), 64)
    assert set(np.unique(batch.inputs)) == set(range(len(elements)))
    for row, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        product, expected = elements[0], []
        for x in row:
            product = tuple(product[i] for i in elements[x])
            expected.append(elements.index(product))
        assert targets == expected == task.oracle(row)
    np.testing.assert_array_equal(batch.weights, 1.0)


def test_padding_is_no_part_of_what_is_drawn():
    with_padding, without = (rows(WordProblem("S3", padding=padding, bos=True), (9, 14), 64) for padding in (True, False))
    np.testing.assert_array_equal(with_padding.targets, without.targets)
    inside = np.arange(15)[None] < without.lengths[:, None]
    np.testing.assert_array_equal(with_padding.inputs[inside] - 1, without.inputs[inside])
    assert not without.inputs[~inside].any() and WordProblem("S3", padding=False, bos=True).bos_token == 6


# --- what is measured -----------------------------------------------------------------------------------------------


def measured(bos):
    """Three rows of four letters, the last of which is padding in the third row; wrong at 1-based (2: 3rd), (3: 1st, 4th)."""
    task = WordProblem("S3", bos=bos)
    targets = np.array([[1, 2, 3, 4], [5, 0, 1, 2], [3, 4, 5, 0]], np.int32)
    guess = targets.copy()
    guess[1, 2] = 0
    guess[2, [0, 3]] = 1
    weights = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0]], np.float32)
    pad = ((0, 0), (int(bos), 0))
    targets, guess, weights = (np.pad(x, pad) for x in (targets, guess, weights))
    if bos:
        guess[:, 0] = 5  # not asked, so no mistake
    lengths = np.array([4, 4, 3], np.int32) + bos
    batch = Batch(jnp.asarray(targets + 1), jnp.asarray(targets), jnp.asarray(weights), jnp.asarray(lengths))
    return task, jnp.asarray(np.eye(6, dtype=np.float32)[guess]), batch


@pytest.mark.parametrize("bos", [False, True])
def test_sequence_accuracy_counts_rows_that_are_right_throughout(bos):
    task, logits, batch = measured(bos)
    sums = {name: tuple(map(float, pair)) for name, pair in task.metrics(logits, batch).items()}
    assert sums["sequence_accuracy"] == (1.0, 3.0)
    assert sums["accuracy"] == (9.0, 11.0)
    muted = batch._replace(weights=batch.weights.at[1].set(0.0))
    assert tuple(map(float, task.metrics(logits, muted)["sequence_accuracy"])) == (1.0, 2.0)


@pytest.mark.parametrize("bos", [False, True])
def test_curves_by_hand(bos):
    task, logits, batch = measured(bos)
    curves = task.curves(logits, batch)
    total, weight = curves["sequence_accuracy_by_length"]
    np.testing.assert_array_equal(total, [2, 2, 1, 1])
    np.testing.assert_array_equal(weight, [3, 3, 3, 2])
    total, weight = curves["accuracy_by_length"]
    np.testing.assert_array_equal(total, [2, 3, 2, 2])
    np.testing.assert_array_equal(weight, [3, 3, 3, 2])


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["S1", "S7", "A2", "Z1", "Z721", "D2", "D361", "Q8", "", "S5x", "s5", "S5xS4"])
def test_other_groups_are_refused_in_one_line(group):
    with pytest.raises(UserError, match=r"^group=") as caught:
        WordProblem(group)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("group", "letters"), [("S5", "swap"), ("S5", "moved_"), ("S5", "moved_1"), ("A5", "swaps"), ("Z60", "moved_3")]
)
def test_letters_that_mean_nothing_are_refused(group, letters):
    with pytest.raises(UserError, match=rf"^letters='{letters}'"):
        WordProblem(group, letters)


def test_tokens_per_transition_below_one_is_refused():
    with pytest.raises(UserError, match=r"^tokens_per_transition=0 .*at least 1$"):
        WordProblem(tokens_per_transition=0)


def test_sequences_without_a_single_answer_are_refused():
    task = WordProblem(tokens_per_transition=4)
    task.check_length("train.length", (4, 4))
    with pytest.raises(UserError, match=r"train\.length=\[1, 3\].*task\.tokens_per_transition=4"):
        task.check_length("train.length", (1, 3))
