"""Packed tokens: nothing lost, nothing twice, splits that hold, and no half-made files."""

import hashlib
import json
import os
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from lrnn_jax.data import tokenizers
from lrnn_jax.data.keeping import cache_folder
from lrnn_jax.data.packing import Rows, load_corpus
from lrnn_jax.data.sources import SPLITS
from lrnn_jax.errors import UserError

START = 256
CONFTEST = Path(__file__).parents[1] / "conftest.py"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LRNN_CACHE_DIR", str(tmp_path / "cache"))
    load_corpus.cache_clear()
    return tmp_path / "cache"


def load(data, *, tokenizer="bytes", skip_short=False):
    load_corpus.cache_clear()
    return load_corpus(str(data), data_dir="", text_field="text", tokenizer=tokenizer, skip_short=skip_short)


def write_lines(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def words(seed, count=20):
    moment = random.Random(seed)
    return " ".join(moment.choice(["one", "two", "drü", "vier"]) for _ in range(count))


@pytest.fixture
def many(tmp_path):
    return write_lines(tmp_path / "many.jsonl", [words(i) for i in range(400)])


def documents(corpus, split):
    return [bytes(corpus.document(split, i)[1:].astype(np.uint8)).decode() for i in range(corpus.counts[split])]


def test_every_document_is_in_one_split_whole(many):
    corpus = load(many)
    found = {split: documents(corpus, split) for split in SPLITS}
    assert sorted(text for part in found.values() for text in part) == sorted(words(i) for i in range(400))
    assert 300 < len(found["train"]) < 390
    assert all(5 < len(found[split]) < 40 for split in ("validation", "test"))
    for split in SPLITS:
        assert int(np.sum(corpus.tokens[split] == START)) == len(found[split])
        assert corpus.tokens[split][0] == START
        assert corpus.tokens[split].dtype == np.uint16


def test_names_belong_to_their_documents(many):
    corpus = load(many)
    for split in SPLITS:
        for name, text in zip(corpus.names(split), documents(corpus, split), strict=True):
            assert text == words(int(name.partition(":")[2]) - 1)


def test_names_are_read_only_when_they_are_asked_for(many, monkeypatch):
    load(many)
    read, files = Path.read_bytes, []
    monkeypatch.setattr(Path, "read_bytes", lambda path: files.append(path.name) or read(path))
    corpus = load(many)
    assert sum(corpus.counts.values()) == 400 and "corpus.json" in files and "train.names" not in files
    assert len(corpus.names("train")) == corpus.counts["train"] and "train.names" in files


def test_equal_documents_lie_on_one_side_and_the_order_does_not_matter(tmp_path):
    texts = [words(i) for i in range(100)]
    corpus = load(write_lines(tmp_path / "twice.jsonl", texts + texts[::-1]))
    sides = {split: set(documents(corpus, split)) for split in SPLITS}
    assert not sides["train"] & sides["validation"] and not sides["train"] & sides["test"]
    assert sum(map(len, sides.values())) == 100
    other = load(write_lines(tmp_path / "once.jsonl", texts[50:] + texts[:50]))
    assert {split: set(documents(other, split)) for split in SPLITS} == sides


def test_a_corpus_of_few_documents_is_split_inside_them(tmp_path):
    text = words(0, 1000)
    (tmp_path / "x.txt").write_text(text)
    corpus = load(tmp_path / "x.txt")
    parts = [documents(corpus, split)[0] for split in SPLITS]
    assert "".join(parts) == text
    assert len(parts[0]) == pytest.approx(0.9 * len(text), abs=1)
    assert len(parts[1]) == pytest.approx(len(parts[2]), abs=1)


def test_short_documents_of_a_small_corpus_train_whole(tmp_path):
    file = write_lines(tmp_path / "few.jsonl", ["short", words(0, 1000), "one"])
    corpus = load(file)
    assert documents(corpus, "train")[::2] == ["short", "one"]
    assert corpus.counts == {"train": 3, "validation": 1, "test": 1}


def test_what_a_killed_process_left_is_removed_after_a_day(many, cache):
    old, young, growing = (cache / f".half-{name}" for name in ("old", "young", "growing"))
    torn = cache / load_and_tear(many, cache)
    for folder in (old, young, growing):
        folder.mkdir()
        (folder / "train.tokens").touch()
    for path in (old / "train.tokens", old, growing):
        os.utime(path, (0, 0))
    assert load(many).counts["train"] > 300
    assert not old.exists() and young.exists() and growing.exists() and (torn / "corpus.json").exists()


def load_and_tear(many, cache):
    """Makes the tokens, and takes away the file that is written last."""
    load(many)
    (folder,) = cache.iterdir()
    (folder / "corpus.json").unlink()
    return folder.name


def test_the_second_time_nothing_is_made_again(many, cache, monkeypatch):
    corpus = load(many)
    (folder,) = cache.iterdir()
    monkeypatch.setattr("lrnn_jax.data.packing._write_corpus", None)
    again = load(many)
    assert again.digest == corpus.digest and again.counts == corpus.counts
    for split in SPLITS:
        np.testing.assert_array_equal(again.tokens[split], corpus.tokens[split])
    assert [path.name for path in cache.iterdir()] == [folder.name]


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


DAMAGE = {"cut": _cut, "empty": lambda path: path.write_bytes(b""), "flip": _flip, "gone": Path.unlink}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["train.tokens", "test.names", "tokenizer.json", "corpus.json"])
def test_kept_tokens_that_were_damaged_are_made_anew(many, name, how):
    corpus = load(many, tokenizer="bpe:300")
    before = {path.name: path.read_bytes() for path in corpus.folder.iterdir()}
    DAMAGE[how](corpus.folder / name)
    again = load(many, tokenizer="bpe:300")
    assert again.folder == corpus.folder and again.tokenizer == corpus.tokenizer
    assert {path.name: path.read_bytes() for path in again.folder.iterdir()} == before
    files = json.loads(before["corpus.json"])["files"]
    assert files["train.tokens"] == [2 * len(again.tokens["train"]), hashlib.sha256(before["train.tokens"]).hexdigest()]


def test_tokens_reach_the_disk_before_the_name_that_says_they_are_there(many, monkeypatch):
    order, sync, rename = [], os.fsync, Path.rename
    monkeypatch.setattr(
        os, "fsync", lambda number: order.append(Path(f"/proc/self/fd/{number}").readlink().name) or sync(number)
    )
    monkeypatch.setattr(Path, "rename", lambda path, to: order.append("renamed") or rename(path, to))
    load(many)
    assert {"train.tokens", "corpus.json", "tokenizer.json"} < set(order[: order.index("renamed")])


@pytest.mark.parametrize("text", [b"../many", b"\xff\x00", b"0123456789abcdef"])
def test_a_link_that_was_damaged_leads_nowhere_else(many, cache, text):
    folder = load(many, tokenizer="bpe:300").folder
    (link,) = cache.glob("*.link")
    link.write_bytes(text)
    assert load(many, tokenizer="bpe:300").folder == folder and link.read_text() == folder.name


def test_a_row_without_a_text_is_left_out_where_that_is_asked(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    file = write_lines(folder / "nulls.jsonl", [None if i == 7 else words(i) for i in range(60)])
    pyarrow.parquet.write_table(pyarrow.table({"text": [words(99), None]}), folder / "z.parquet")
    for data, left in ((file, 59), (folder, 60)):
        with pytest.raises(UserError, match=r"nulls\.jsonl:8 is empty.*task\.skip_short=True"):
            load(data)
        assert sum(load(data, skip_short=True).counts.values()) == left


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe:400"])
def test_a_long_text_takes_a_small_multiple_of_its_memory_and_the_same_tokens(tmp_path, monkeypatch, tokenizer):
    """Measured with NumPy and Python alone; what the library takes is in proportion to the parts that it is given."""
    text, parts = words(0, 400_000), []
    (tmp_path / "long.txt").write_text(text, encoding="utf-8")
    encode = tokenizers.Tokenizer._encode
    monkeypatch.setattr(
        tokenizers.Tokenizer, "_encode", lambda self, part, done: parts.append(len(part)) or encode(self, part, done)
    )
    tracemalloc.start()
    corpus = load(tmp_path / "long.txt", tokenizer=tokenizer)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # "ü" makes every character of the text in memory no wider than a byte of Latin-1
    assert peak < 6 * len(text.encode())
    assert max(parts) < 70_000 and sum(parts) == len(text)
    whole = encode(corpus.tokenizer, text[: round(0.9 * len(text))], 0)
    np.testing.assert_array_equal(corpus.tokens["train"][1:], whole)


def test_few_documents_are_not_all_in_memory_at_once(tmp_path):
    for i in range(20):
        (tmp_path / f"{i}.txt").write_text("one two " * 60_000)
    tracemalloc.start()
    load(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * 480_000


@pytest.mark.parametrize("variable", ["LRNN_CACHE_DIR", "XDG_CACHE_HOME"])
def test_a_user_without_a_home_needs_but_the_variable(tmp_path, monkeypatch, variable):
    for name in ("HOME", "LRNN_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    with pytest.raises(UserError, match="set LRNN_CACHE_DIR"):
        cache_folder()
    monkeypatch.setenv(variable, str(tmp_path))
    assert cache_folder() in (tmp_path, tmp_path / "lrnn_jax")


def test_the_tests_tokens_go_with_their_session(cache):
    code = "import os, runpy, sys; runpy.run_path(sys.argv[1]); print(p := os.environ['LRNN_CACHE_DIR'], os.path.isdir(p))"
    session = {name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"}
    done = subprocess.run([sys.executable, "-c", code, str(CONFTEST)], env=session, capture_output=True, text=True, check=True)
    folder, there = done.stdout.split()
    assert folder != str(cache) and there == "True" and not Path(folder).exists()


def test_other_contents_another_tokenizer_another_folder(many, cache):
    load(many)
    load(many, tokenizer="bpe:300")
    with many.open("a") as file:
        file.write(json.dumps({"text": "more of it"}))
    load(many)
    assert len(list(cache.glob("*/corpus.json"))) == 3


def test_a_trained_tokenizer_and_a_runs_copy_of_it_find_the_same_tokens(many, cache, tmp_path, monkeypatch):
    corpus = load(many, tokenizer="bpe:300")
    (tmp_path / "tokenizer.json").write_text(corpus.tokenizer.file)
    monkeypatch.setattr("lrnn_jax.data.packing.train_bpe", None)
    for tokenizer in (tmp_path / "tokenizer.json", "bpe:300"):
        assert load(many, tokenizer=str(tokenizer)).folder == corpus.folder
    assert len(list(cache.glob("*/corpus.json"))) == 1


@pytest.mark.parametrize("torn", ["link", "tokens"])
def test_a_link_that_leads_nowhere_is_made_again(many, cache, torn):
    folder = load(many, tokenizer="bpe:300").folder
    (link,) = cache.glob("*.link")
    if torn == "link":
        link.write_text("")
    else:
        (folder / "corpus.json").unlink()
    assert load(many, tokenizer="bpe:300").folder == folder and link.read_text() == folder.name


def test_byte_pairs_are_trained_on_the_training_documents_only(tmp_path):
    first = load(write_lines(tmp_path / "a.jsonl", [words(i) for i in range(200)]), tokenizer="bpe:300")
    held_out = set(documents_of_bytes(tmp_path / "a.jsonl")["test"])
    changed = [text for i in range(200) if (text := words(i)) not in held_out]
    second = load(write_lines(tmp_path / "b.jsonl", changed), tokenizer="bpe:300")
    assert first.tokenizer == second.tokenizer
    assert first.tokenizer.decode(first.document("train", 0)[1:]).decode() in {words(i) for i in range(200)}


def documents_of_bytes(path):
    corpus = load(path)
    return {split: documents(corpus, split) for split in SPLITS}


@pytest.mark.parametrize(("text", "said"), [("", "is empty"), ("x", "is one token long")])
def test_documents_that_are_too_short_are_refused_or_left_out(tmp_path, cache, text, said):
    file = write_lines(tmp_path / "short.jsonl", [*(words(i) for i in range(60)), text])
    with pytest.raises(UserError, match=rf"task\.data=.*short\.jsonl:61 {said}.*task\.skip_short=True") as caught:
        load(file)
    assert "\n" not in str(caught.value)
    assert not list(cache.iterdir()), "something half-made is left"
    assert sum(load(file, skip_short=True).counts.values()) == 60


def test_nothing_is_left_of_a_corpus_that_turns_out_bad(tmp_path, cache):
    file = write_lines(tmp_path / "bad.jsonl", [words(i) for i in range(60)])
    with file.open("ab") as lines:
        lines.write(b'{"text": "\xff"}\n')
    with pytest.raises(UserError, match="UTF-8"):
        load(file)
    assert not list(cache.iterdir())


def test_a_cache_that_cannot_be_written(many, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LRNN_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(UserError, match="LRNN_CACHE_DIR"):
        load(many)


def test_rows_make_every_token_but_the_rest_a_target_once():
    tokens = np.arange(100, 123)
    rows = Rows(tokens, 5)
    assert len(rows) == 4
    cut = np.stack([rows[i] for i in range(4)])
    assert cut.shape == (4, 6)
    np.testing.assert_array_equal(cut[:, :-1].reshape(-1), tokens[:20])
    np.testing.assert_array_equal(cut[:, 1:].reshape(-1), tokens[1:21])
    assert [len(Rows(tokens[:n], 5)) for n in (0, 1, 5, 6, 10, 11)] == [0, 0, 0, 1, 1, 2]
