"""ListOps: tokens by hand, labels by the oracle."""

import pytest

from lrnn_jax.registry import load_task
from small_data import write_listops

# NAMES: [MIN [MAX [MED [SM ] 0 1 ... 9 after pad and end
ROWS = [
    ("( ( ( ( ( [MAX 2 ) 9 ) ( ( ( [MIN 4 ) 7 ) ] ) ) 0 ) ] )", 9, [3, 9, 16, 2, 11, 14, 6, 7, 6, 1]),
    ("( ( ( [SM 8 ) 7 ) ] )", 5, [5, 15, 14, 6, 1]),
    ("( ( ( [MED 1 ) 4 ) ] )", 2, [4, 8, 11, 6, 1]),
]


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.setenv("LRNN_CACHE_DIR", str(tmp_path / "cache"))
    for split in ("train", "val", "test"):
        write_listops(tmp_path / "listops-1000" / f"basic_{split}.tsv", [(text, label) for text, label, _ in ROWS])
    return load_task("listops")(data_dir=str(tmp_path))


def test_parentheses_go_and_brackets_stay(task):
    rows = task.rows("train", (2, 12))
    for i, (_, label, expected) in enumerate(ROWS):
        tokens, length, target = rows[i]
        assert tokens[:length].tolist() == expected and not tokens[length:].any()
        assert target == label == task.oracle(expected)
    names = task.token_names()
    assert " ".join(names[token] for token in ROWS[0][2]) == "[MAX 2 9 [MIN 4 7 ] 0 ] end"
    assert (task.vocab_size, task.outputs) == (17, 10)


def test_long_expressions_are_cut_and_end_all_the_same(task):
    tokens, length, _ = task.rows("train", (2, 4))[0]
    assert tokens.tolist() == [3, 9, 16, 1] and length == 4
