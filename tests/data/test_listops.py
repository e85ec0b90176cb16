"""ListOps: values computed by hand, texts that are no lists, and lists drawn as the official ones are."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from lrnn_jax.data import listops
from lrnn_jax.data.listops import NotListOps, draw_rows, draw_trees, evaluate, measure, parse, write
from lrnn_jax.tasks.listops import ListOps
from scripts.compare_generators import compare_lists

SHARED = os.environ.get("LRNN_DATA_DIR", "")
RELEASED = Path(SHARED, "lra_release", "listops-1000")


@pytest.mark.parametrize(
    ("text", "value", "size"),
    [
        ("7", 7, (1, 1)),
        ("[MAX 2 9 ]", 9, (4, 2)),
        ("[MIN 4 3 8 ]", 3, (5, 2)),
        ("[SM 9 9 5 ]", 3, (5, 2)),  # 23 modulo 10
        ("[MED 1 2 9 ]", 2, (5, 2)),
        ("[MED 9 2 1 4 ]", 3, (6, 2)),  # the mean of 2 and 4
        ("[MED 3 4 ]", 3, (4, 2)),  # 3.5, cut
        ("[MED 8 0 9 1 ]", 4, (6, 2)),  # 4.5, cut
        ("[MAX 4 3 [MIN 2 3 ] 1 0 [MED 1 5 8 9 2 ] ]", 5, (17, 3)),  # the example of the Long Range Arena's paper
        ("[SM [SM [SM 9 9 ] 9 ] [MIN 5 [MAX 6 7 ] ] ]", 2, (16, 4)),  # 8, 7; 5; 12 modulo 10
    ],
)
def test_values_computed_by_hand(text, value, size):
    tree = parse(text)
    assert evaluate(tree) == value
    assert measure(tree) == size
    assert " ".join(listops.list_words(tree)) == text
    assert parse(write(tree)) == tree


def test_the_text_of_the_release():
    assert write(parse("[MAX 2 9 ]")) == "( ( ( [MAX 2 ) 9 ) ] )"
    assert write(parse("[SM 1 [MIN 2 3 ] ]")) == "( ( ( [SM 1 ) ( ( ( [MIN 2 ) 3 ) ] ) ) ] )"


def test_people_read_an_indented_list():
    assert listops.show(parse("[MAX 4 3 [MIN 2 3 ] 1 0 [MED 1 [SM 7 8 ] 9 ] ]")).splitlines() == [
        "MAX  = 5", "  4 3", "  MIN 2 3  = 2", "  1 0", "  MED  = 5", "    1", "    SM 7 8  = 5", "    9",
    ]  # fmt: skip
    assert listops.show(3) == "3"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "ends at word 0: no list"),
        ("[MAX 2 9", "ends at word 3: 1 lists are not closed"),
        ("[MAX 2 9 ] ]", r"word 5 \(column 12\), '\]': the list has ended"),
        ("[MAX 2 9 ] 3", "'3': the list has ended"),
        ("] 3", r"word 1 \(column 1\), '\]': closes a list"),
        ("[MAX ]", r"word 2 .*\[MAX has no arguments"),
        ("[MAX 2 12 ]", r"word 3 \(column 8\), '12': not a digit"),
        ("[MAX 2 ² ]", "'²': not a digit"),
        ("[FIRST 2 1 ]", r"'\[FIRST': not a digit"),
        ("MAX 2 1 ]", "'MAX': not a digit"),
        ("( ( [MAX 2 ) 9 ) ] )", r"word 3 .*'\[MAX': the parentheses ask for '\('"),
        ("( ( ( [MAX 2 ) 9 ) ]", r"ends at word 9: the parentheses ask for '\)'"),
        ("( ( ( [MAX 2 ) 9 ) ] ) )", "the parentheses ask for the end"),
        ("[MAX 1 " * 5000 + "2" + " ]" * 5000, "lists inside lists, 100 deep"),
    ],
)
def test_what_is_no_list_is_refused_with_its_place(text, said):
    with pytest.raises(NotListOps, match=said):
        parse(text)


def test_rows_depend_on_the_seed_and_the_chunk_alone():
    rows = draw_rows(3, 5, 4)
    assert rows == draw_rows(3, 5, 4)
    assert rows[:2] == draw_rows(3, 5, 2)
    assert not {text for text, _ in rows} & {text for seed, chunk in [(3, 6), (4, 5)] for text, _ in draw_rows(seed, chunk, 4)}
    for text, value in rows:
        tree = parse(text)
        assert value == evaluate(tree)
        assert write(tree) == text
        assert 500 < measure(tree).length < 2000
        assert measure(tree).depth <= 10


def test_short_lists_are_never_twice():
    texts = [text for text, _ in draw_rows(0, 0, 300, shorter=3, longer=6)]
    assert len(set(texts)) == 300
    assert {measure(parse(text)).length for text in texts} == {4, 5}
    for bad in [(2, 4), (500, 501)]:
        with pytest.raises(ValueError, match=f"shorter={bad[0]} and longer={bad[1]}"):
            next(draw_trees(np.random.default_rng(0), shorter=bad[0], longer=bad[1]))


def draw_as_the_rules_say(random, depth=1):
    """One tree by the rules of the paper, node after node: the specification of `draw_trees`."""
    if depth == 10 or random.random() > 0.25:
        return int(random.integers(10))
    arguments = [draw_as_the_rules_say(random, depth + 1) for _ in range(random.integers(2, 11))]
    return (listops.OPERATORS[random.integers(4)], arguments)


def test_the_distribution_is_that_of_the_rules():
    slow, random = [], np.random.default_rng(0)
    while len(slow) < 200:
        tree = draw_as_the_rules_say(random)
        if 8 < measure(tree).length < 60:
            slow.append(tree)
    fast = list(itertools.islice(draw_trees(np.random.default_rng(1), shorter=8, longer=60), 1000))
    assert min(compare_lists(slow, fast).values()) > 0.001


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED or not RELEASED.is_dir(), reason="no LRNN_DATA_DIR with listops-1000")
def test_the_released_rows_agree_with_the_oracle_and_with_ours():
    official = []
    for split in ("train", "val", "test"):
        for line in (RELEASED / f"basic_{split}.tsv").read_text().splitlines()[1:]:
            text, value = line.split("\t")
            official.append(parse(text))
            assert evaluate(official[-1]) == int(value)
            assert write(official[-1]) == text
    assert len(official) == 600
    values = [evaluate(tree) for tree in official]
    assert max(values.count(value) for value in set(values)) / 600 == ListOps.CHANCE
    ours = list(itertools.islice(draw_trees(np.random.default_rng(0)), 600))
    assert min(compare_lists(official, ours).values()) > 0.001
