"""ListOps: nested lists of digits under MIN, MAX, MED and SM. Drawing, writing, parsing and evaluating them.

Source: Nangia and Bowman 2018 (the task); Tay et al. 2021, Long Range Arena, A.1 (operators, lengths, and its text form).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

OPERATORS = ("MIN", "MAX", "MED", "SM")
CLASSES = 10
# Of the Long Range Arena: an argument is an operator with this probability, of so many arguments, down to this depth.
OPERATOR_SHARE = 0.25
FEWEST_ARGUMENTS, MOST_ARGUMENTS = 2, 10
MOST_DEPTH = 10
# Its lengths lie strictly between these.
SHORTER, LONGER = 500, 2000
# Deeper lists are refused: no rule makes them, and every function here calls itself once a level.
_DEEPEST = 100
_TOGETHER = 2048
_DIGITS = tuple("0123456789")

Tree = int | tuple[str, list["Tree"]]
"""A digit, or an operator and its arguments."""


class Size(NamedTuple):
    """The size of a tree.

    Attributes:
      length: operators, closing brackets and digits; round parentheses do not count.
      depth: levels; a digit alone has 1.
    """

    length: int
    depth: int


class NotListOps(ValueError):
    """A text that is no list; says what is wrong at which word and column."""


def evaluate(tree: Tree) -> int:
    """Returns the value, 0 to 9: ``MED`` is the median cut to an integer, ``SM`` the sum modulo 10."""
    if isinstance(tree, int):
        return tree
    operator, arguments = tree
    values = [argument if isinstance(argument, int) else evaluate(argument) for argument in arguments]
    if operator == "MIN":
        return min(values)
    if operator == "MAX":
        return max(values)
    if operator == "SM":
        return sum(values) % 10
    values.sort()
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) // 2


def measure(tree: Tree) -> Size:
    """Returns a tree's length and depth."""
    if isinstance(tree, int):
        return Size(1, 1)
    sizes = [measure(argument) for argument in tree[1]]
    return Size(2 + sum(size.length for size in sizes), 1 + max(size.depth for size in sizes))


def write(tree: Tree) -> str:
    """Returns the text of the released files: the words and the parentheses of the binary tree that they are there.

    Each argument, and the closing bracket as the last, opens one parenthesis before the operator: ``[MAX 2 9 ]`` is
    ``( ( ( [MAX 2 ) 9 ) ] )``.
    """
    if isinstance(tree, int):
        return str(tree)
    operator, arguments = tree
    inner = " ) ".join([_DIGITS[argument] if isinstance(argument, int) else write(argument) for argument in arguments])
    return f"{'( ' * (len(arguments) + 1)}[{operator} {inner} ) ] )"


def list_words(tree: Tree) -> list[str]:
    """Returns the words without the parentheses, as models read them: ``[MAX``, digits, ``]``."""
    return [word for word in write(tree).split() if word not in "()"]


def parse(text: str) -> Tree:
    """Returns the tree of a text, with its parentheses or without any.

    Raises:
      NotListOps: anything else, with the first word that is wrong.
    """
    words = [(match[0], match.start() + 1) for match in re.finditer(r"\S+", text)]
    open_lists: list[tuple[str, list[Tree]]] = []
    tree: Tree | None = None
    for number, (word, column) in enumerate(words, 1):
        if word in ("(", ")"):
            continue
        found = _read_word(word, open_lists, whole=tree is not None)
        if isinstance(found, str):
            raise NotListOps(f"word {number} (column {column}), {word!r}: {found}")
        if found is not None and open_lists:
            open_lists[-1][1].append(found)
        elif found is not None:
            tree = found
    if tree is None:
        opened = f"{len(open_lists)} lists are not closed" if open_lists else "no list"
        raise NotListOps(f"the text ends at word {len(words)}: {opened}")
    if len(words) > measure(tree).length:
        _check_parentheses(words, tree)
    return tree


def _read_word(word: str, open_lists: list[tuple[str, list[Tree]]], *, whole: bool) -> Tree | str | None:
    """Returns what a word completes, or what is wrong with it; opens and closes lists."""
    if whole:
        return "the list has ended before"
    if word in _DIGITS:
        return int(word)
    if word == "]":
        if not open_lists:
            return "closes a list that was not opened"
        operator, arguments = open_lists.pop()
        return (operator, arguments) if arguments else f"[{operator} has no arguments"
    if word[:1] == "[" and word[1:] in OPERATORS:
        open_lists.append((word[1:], []))
        return None if len(open_lists) < _DEEPEST else f"lists inside lists, {_DEEPEST} deep"
    return f"not a digit, ']', or one of {', '.join(f'[{name}' for name in OPERATORS)}"


def _check_parentheses(words: list[tuple[str, int]], tree: Tree) -> None:
    text = write(tree)
    if " ".join([word for word, _ in words]) == text:
        return
    right = text.split()
    for number, (word, column) in enumerate(words, 1):
        if number > len(right) or word != right[number - 1]:
            wanted = repr(right[number - 1]) if number <= len(right) else "the end"
            raise NotListOps(f"word {number} (column {column}), {word!r}: the parentheses ask for {wanted}")
    if len(words) < len(right):
        raise NotListOps(f"the text ends at word {len(words)}: the parentheses ask for {right[len(words)]!r}")


def show(tree: Tree, *, indent: str = "  ") -> str:
    """Returns a tree for people: one list a line with its value, its arguments below and further in; runs of digits on one."""
    return "\n".join(_show_lines(tree, "", indent))


def _show_lines(tree: Tree, margin: str, indent: str) -> Iterator[str]:
    if isinstance(tree, int):
        yield f"{margin}{tree}"
        return
    operator, arguments = tree
    if all(isinstance(argument, int) for argument in arguments):
        yield f"{margin}{operator} {' '.join(map(str, arguments))}  = {evaluate(tree)}"
        return
    yield f"{margin}{operator}  = {evaluate(tree)}"
    digits: list[str] = []
    for argument in arguments:
        if isinstance(argument, int):
            digits.append(str(argument))
            continue
        if digits:
            yield f"{margin}{indent}{' '.join(digits)}"
            digits = []
        yield from _show_lines(argument, margin + indent, indent)
    if digits:
        yield f"{margin}{indent}{' '.join(digits)}"


# --- drawing -------------------------------------------------------------------------------------------------------


def draw_trees(random: np.random.Generator, *, shorter: int = SHORTER, longer: int = LONGER) -> Iterator[Tree]:
    """Yields trees whose length lies strictly between ``shorter`` and ``longer``, for ever.

    A node is an operator with probability 1/4 where its depth is below 10, else a digit; an operator has 2 to 10 arguments;
    operators, digits and numbers of arguments are uniform. Trees of other lengths are drawn again.

    Args:
      random: where randomness comes from; only its ``random`` is called, whose numbers NumPy keeps from version to version.
      shorter: tokens, excluded.
      longer: tokens, excluded; at least 5, as the shortest list has 4.

    Source: Tay et al. 2021, as their released generator does it.
    Differs: draws the shapes of many trees at once, level by level, and digits and operators only for those that stay; the
      root is an operator to begin with. The distribution is the same, as a digit alone is always too short.

    Raises:
      ValueError: no list is that long.
    """
    if longer <= max(shorter + 1, 4):
        raise ValueError(f"no list has a length between shorter={shorter} and longer={longer}; both are excluded")
    while True:
        levels = _draw_shapes(random)
        length = sum(np.bincount(owner, 1 + operators, _TOGETHER) for owner, operators, _ in levels)
        # both are in the order of the trees: where each tree's begin
        starts = [np.searchsorted(owner, np.arange(_TOGETHER + 1)) for owner, _, _ in levels]
        starts_of_lists = [np.searchsorted(owner[operators], np.arange(_TOGETHER + 1)) for owner, operators, _ in levels]
        for i in np.flatnonzero((length > shorter) & (length < longer)):
            shape = [
                (operators[nodes[i] : nodes[i + 1]], counts[lists[i] : lists[i + 1]])
                for (_, operators, counts), nodes, lists in zip(levels, starts, starts_of_lists, strict=True)
            ]
            yield _fill(random, shape)


Levels = list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def _draw_shapes(random: np.random.Generator) -> Levels:
    """Returns for each level its nodes' trees, whether they are operators, and these operators' numbers of arguments."""
    owner = np.arange(_TOGETHER)
    operators = np.ones(_TOGETHER, bool)
    levels = []
    for depth in range(1, MOST_DEPTH + 1):
        if depth > 1:
            operators = random.random(len(owner)) < (OPERATOR_SHARE if depth < MOST_DEPTH else 0.0)
        kinds = MOST_ARGUMENTS - FEWEST_ARGUMENTS + 1
        counts = FEWEST_ARGUMENTS + (random.random(int(operators.sum())) * kinds).astype(int)
        levels.append((owner, operators, counts))
        owner = np.repeat(owner[operators], counts)
    return levels


def _fill(random: np.random.Generator, levels: list[tuple[np.ndarray, np.ndarray]]) -> Tree:
    """Gives a shape its digits and operators, from the deepest level up."""
    below: list[Tree] = []
    for operators, counts in reversed(levels):
        kinds = np.where(operators, len(OPERATORS), CLASSES)
        drawn = (random.random(len(operators)) * kinds).astype(int).tolist()
        level: list[Tree] = []
        start = 0
        sizes = iter(counts.tolist())
        for number, is_operator in zip(drawn, operators.tolist(), strict=True):
            if is_operator:
                size = next(sizes)
                level.append((OPERATORS[number], below[start : start + size]))
                start += size
            else:
                level.append(number)
        below = level
    return below[0]


def draw_tree(random: np.random.Generator) -> Tree:
    """Returns one tree of the Long Range Arena's lengths; see `draw_trees`, which is far faster for many."""
    return next(draw_trees(random))


def draw_rows(seed: int, chunk: int, count: int, *, shorter: int = SHORTER, longer: int = LONGER) -> list[tuple[str, int]]:
    """Returns ``count`` rows (text, value), none twice: a chunk's rows depend on the seed and its number alone.

    Args:
      seed: at least 0.
      chunk: its number, at least 0.
      count: rows.
      shorter: see `draw_trees`.
      longer: see `draw_trees`.
    """
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(chunk,))))
    rows: dict[str, int] = {}
    for tree in draw_trees(random, shorter=shorter, longer=longer):
        rows.setdefault(write(tree), evaluate(tree))
        if len(rows) == count:
            break
    return list(rows.items())
