"""Text and pairs of texts: tokens by hand."""

import pytest

from lrnn_jax.registry import load_task
from small_data import write_imdb, write_pairs


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LRNN_CACHE_DIR", str(tmp_path / "cache"))


def test_bytes_are_tokens_as_they_are(tmp_path):
    text = '<br />Né "A"'
    rows = [{"text": text.encode(), "label": 1}, {"text": b"", "label": 0}]
    write_imdb(tmp_path, {"train": rows * 10, "test": rows})
    task = load_task("text_classification")(data_dir=str(tmp_path))
    tokens, length, label = task.rows("test", (2, 16))[0]
    assert tokens.tolist() == [byte + 2 for byte in text.encode()] + [1, 0, 0] and (length, label) == (14, 1)
    tokens, length, _ = task.rows("test", (2, 16))[1]
    assert tokens.tolist() == [1] + 15 * [0] and length == 1
    names = task.token_names()
    assert [names[token] for token in (0, 1, ord("A") + 2, 0xC3 + 2)] == ["pad", "end", "'A'", "'\\xc3'"]


def test_both_texts_of_a_pair_are_rows(tmp_path):
    for split in ("train", "eval", "test"):
        write_pairs(tmp_path / "tsv_data" / f"new_aan_pairs.{split}.tsv", [("1.0", "7", "8", 'a"b', "cdefgh")])
    task = load_task("retrieval")(data_dir=str(tmp_path))
    tokens, lengths, label = task.rows("validation", (2, 5))[0]
    assert tokens.tolist() == [[99, 36, 100, 1, 0], [101, 102, 103, 104, 1]]
    assert lengths.tolist() == [4, 5] and label == 1
    assert task.example_spec(5).rows == 2 and task.HEADS == ("pair",)
