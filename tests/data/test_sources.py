"""Documents from files: every format, in a fixed order, and what is refused."""

import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from lrnn_jax.data.sources import open_source
from lrnn_jax.errors import UserError

SHARED = os.environ.get("LRNN_DATA_DIR", "")
TFDS = "tfds:imdb_reviews/plain_text"


def read(data, *, data_dir="", text_field="text"):
    return list(open_source(str(data), data_dir=str(data_dir), text_field=text_field).documents())


def texts(data, **how):
    return [document.text for document in read(data, **how)]


def refusal(data, **how):
    with pytest.raises(UserError) as caught:
        read(data, **how)
    message = str(caught.value)
    assert "\n" not in message and "task.data" in message
    return message


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.txt").write_bytes("zwei\r\nü".encode())
    (tmp_path / "one.txt").write_text("eins")
    (tmp_path / "three.jsonl").write_text('{"text": "drei", "id": 1}\n\n{"text": "vier"}\n')
    pyarrow.parquet.write_table(pyarrow.table({"text": ["fünf", "sechs"], "n": [1, 2]}), tmp_path / "z.parquet")
    (tmp_path / "image.png").write_bytes(b"\xff\x00")
    return tmp_path


def test_a_folder_holds_text_json_lines_and_parquet_in_the_order_of_their_names(folder):
    documents = read(folder)
    assert [d.name for d in documents] == [
        "b/two.txt",
        "one.txt",
        "three.jsonl:1",
        "three.jsonl:3",
        "z.parquet:1",
        "z.parquet:2",
    ]
    assert [d.text for d in documents] == ["zwei\r\nü", "eins", "drei", "vier", "fünf", "sechs"]
    assert {d.split for d in documents} == {None}


def test_a_pattern_a_file_and_a_path_inside_the_data_folder(folder, monkeypatch):
    assert texts(folder / "**" / "*.txt") == ["zwei\r\nü", "eins"]
    assert texts(folder / "one.txt") == ["eins"]
    assert texts("b/*.txt", data_dir=folder) == ["zwei\r\nü"]
    monkeypatch.setenv("LRNN_DATA_DIR", str(folder))
    assert texts("one.txt") == ["eins"]


def test_any_other_file_is_text_when_it_is_named(folder):
    (folder / "notes.md").write_text("# x")
    assert texts(folder / "notes.md") == ["# x"]


def test_the_digest_follows_contents_and_names(folder):
    digests = [open_source(str(folder), data_dir="", text_field="text").digest()]
    (folder / "one.txt").write_text("EINS")
    digests.append(open_source(str(folder), data_dir="", text_field="text").digest())
    (folder / "one.txt").write_text("eins")
    assert open_source(str(folder), data_dir="", text_field="text").digest() == digests[0]
    (folder / "one.txt").rename(folder / "uno.txt")
    digests.append(open_source(str(folder), data_dir="", text_field="text").digest())
    assert len(set(digests)) == 3


def test_the_standard_library_without_packages_tests_and_tables():
    documents = read("stdlib")
    names = [document.name for document in documents]
    assert {"argparse.py", "json/decoder.py", "os.py"} <= set(names)
    assert names == sorted(names) or names == [Path(n).as_posix() for n in sorted(map(Path, names))]
    parts = {part for name in names for part in Path(name).parts}
    assert not parts & {"site-packages", "dist-packages", "test", "tests", "encodings", "pydoc_data"}
    assert not [name for name in names if name.startswith("_sysconfigdata")]
    assert all(len(document.text.encode()) > 1 for document in documents)
    (argparse,) = [document.text for document in documents if document.name == "argparse.py"]
    assert argparse.encode() == Path(os.__file__).with_name("argparse.py").read_bytes()


def test_nothing_there(tmp_path):
    assert "'nothing/here'" in refusal("nothing/here")
    assert str(tmp_path) in refusal("nothing", data_dir=tmp_path)
    assert "folder" in refusal(tmp_path)


def test_text_that_is_not_utf8(folder):
    (folder / "one.txt").write_bytes(b"ein\xffs")
    message = refusal(folder)
    assert "one.txt" in message and "UTF-8" in message and "byte 3 is 0xff" in message


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "three.jsonl:1 is not JSON"),
        (b'{"body": "x", "id": 3}', "task.text_field='text' (it has body, id)"),
        (b'{"text": 3}', "three.jsonl:1 holds no text"),
        (b"[1]", "three.jsonl:1 holds no text"),
        (b'{"text": "\xff"}', "three.jsonl:1 is not UTF-8"),
        (b'{"text": "\\ud800"}', "three.jsonl:1 holds half a character"),
    ],
)
def test_json_lines_that_hold_no_text(folder, line, said):
    (folder / "three.jsonl").write_bytes(line + b"\n")
    assert said in refusal(folder)


def test_json_lines_by_another_field(folder):
    (folder / "three.jsonl").write_text(json.dumps({"body": "x y"}))
    assert texts(folder / "three.jsonl", text_field="body") == ["x y"]


def test_parquet_without_the_column_without_text_and_without_sense(folder):
    assert "did you mean 'text'" in refusal(folder / "z.parquet", text_field="texts")
    assert "row 1: task.text_field='n' holds no text" in refusal(folder / "z.parquet", text_field="n")
    (folder / "z.parquet").write_bytes(b"PAR1 but not really")
    assert "cannot be read as Parquet" in refusal(folder / "z.parquet")


def test_a_data_set_that_is_not_there_says_where_to_put_it(tmp_path):
    message = refusal("tfds:imdb_reviews/plain_text", data_dir=tmp_path)
    assert str(tmp_path) in message
    assert not list(tmp_path.iterdir()), "nothing is downloaded"
    assert "no such" in refusal("tfds:imdb_revues", data_dir=tmp_path)


@pytest.mark.shared_data
@pytest.mark.skipif(
    not Path(SHARED, "tfds", "imdb_reviews").is_dir() or not SHARED, reason="no LRNN_DATA_DIR with imdb_reviews"
)
def test_a_prepared_data_set_keeps_its_own_splits():
    source = open_source(TFDS, data_dir="", text_field="text")
    assert source.own_splits == {"train", "test"}
    documents = source.documents()
    first = next(documents)
    assert first.name == "test:0" and first.split == "test" and len(first.text) > 20
    assert len(source.digest()) == 64
    with pytest.raises(UserError, match=r"task\.text_field='txt'.*did you mean 'text'"):
        open_source(TFDS, data_dir="", text_field="txt")
