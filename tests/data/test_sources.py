"""Documents from files: every format, in a fixed order, and what is refused."""

import bz2
import gzip
import json
import lzma
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
        (b'{"text": "x", "id": ' + b"9" * 5000 + b"}", "three.jsonl:1 is not JSON"),
        (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "three.jsonl:1 is not JSON"),
        (b'{"text": "\\ud800"}', "three.jsonl:1 holds half a character"),
    ],
)
def test_json_lines_that_hold_no_text(folder, line, said):
    (folder / "three.jsonl").write_bytes(line + b"\n")
    assert said in refusal(folder)


def test_json_lines_by_another_field(folder):
    (folder / "three.jsonl").write_text(json.dumps({"body": "x y"}))
    assert texts(folder / "three.jsonl", text_field="body") == ["x y"]


def test_a_mark_before_utf8_is_no_text(folder):
    (folder / "three.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "drei"}\n')
    (folder / "one.txt").write_bytes(b"\xef\xbb\xbfeins")
    assert texts(folder / "three.jsonl") == ["drei"] and texts(folder / "one.txt") == ["eins"]


def test_a_row_without_a_text_is_empty_and_another_kind_is_refused(folder):
    (folder / "three.jsonl").write_text('{"text": null}\n{"text": "vier"}\n')
    pyarrow.parquet.write_table(pyarrow.table({"text": ["fünf", None]}), folder / "z.parquet")
    assert texts(folder / "three.jsonl") == ["", "vier"] and texts(folder / "z.parquet") == ["fünf", ""]


@pytest.mark.parametrize("name", ["B.JSONL", "b.ndjson", "b.json", "b.jsonl.gz", "B.NDJSON.XZ", "b.json.bz2"])
def test_json_lines_by_any_of_their_names_in_a_folder_or_alone(tmp_path, name):
    raw = b'{"text": "drei"}\n{"text": "vier"}\n'
    pack = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}.get(Path(name.lower()).suffix, bytes)
    (tmp_path / name).write_bytes(pack(raw))
    for data in (tmp_path, tmp_path / name, tmp_path / "*"):
        assert texts(data) == ["drei", "vier"]


def test_json_about_the_text_is_left_out_of_a_folder_and_refused_alone(folder, caplog):
    count = len(texts(folder))
    (folder / "dataset_info.json").write_text('{\n "name": "x"}')
    (folder / "stats.json").write_text('{"rows": 3}')
    assert len(texts(folder)) == count and "dataset_info.json" in caplog.text and "stats.json" in caplog.text
    assert "dataset_info.json:1 is not JSON" in refusal(folder / "dataset_info.json")
    assert "it has rows" in refusal(folder / "stats.json")


def test_text_by_any_of_its_names_in_a_folder(tmp_path):
    (tmp_path / "A.TXT").write_text("eins")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("zwei ü".encode()))
    assert texts(tmp_path) == ["eins", "zwei ü"]


@pytest.mark.parametrize("name", ["a.txt.zst", "a.jsonl.zip", "a.parquet.gz", "A.TXT.ZST"])
def test_what_cannot_be_decompressed_here_is_refused_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x28\xb5\x2f\xfd")
    for data in (tmp_path, tmp_path / name):
        message = refusal(data)
        assert name in message and "is compressed as ." in message and "decompress it" in message


@pytest.mark.parametrize("damage", [lambda raw: b"no gzip", lambda raw: raw[:-9], lambda raw: raw[:20] + b"\0" * 20])
def test_a_damaged_compressed_file_is_named(tmp_path, damage):
    raw = damage(gzip.compress(b"eins" * 99))
    (tmp_path / "a.txt.gz").write_bytes(raw)
    assert "a.txt.gz" in refusal(tmp_path)


def test_a_name_that_is_not_utf8(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("eins")
    (document,) = read(tmp_path)
    assert document.text == "eins" and len(open_source(str(tmp_path), data_dir="", text_field="text").digest()) == 64


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
