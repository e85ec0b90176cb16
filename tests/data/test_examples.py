"""Examples on disk: read once, whole or not at all, and read anew when a file changes."""

import logging
import os

import numpy as np
import pytest

from lrnn_jax.data.examples import Record, keep_examples
from lrnn_jax.errors import UserError

RECORDS = [Record("a", [b"xyz", b""], 1), Record("b", [b"", b"u"], 0), Record("a", [b"p", b"qr"], 2)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LRNN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "data.tsv"
    file.write_text("x")
    return file


def keep(file, records=RECORDS, *, error=None, bad_rows=(), skip_bad=False, fields=()):
    reads = []

    def read(bad):
        reads.append(1)
        yield from records
        for message in bad_rows:
            bad.append(message)
        if error:
            raise error

    return keep_examples("task", [file], read, fields=fields, skip_bad=skip_bad), len(reads)


def contents(examples):
    parts = examples.parts.items()
    return {
        name: [([bytes(row) for row in part.rows(i)], int(part.labels[i])) for i in range(len(part.labels))]
        for name, part in parts
    }


def test_what_is_read_is_what_was_kept(file):
    first, reads = keep(file)
    assert contents(first) == {"a": [([b"xyz", b""], 1), ([b"p", b"qr"], 2)], "b": [([b"", b"u"], 0)]}
    again, more = keep(file, [])
    assert (reads, more) == (1, 0)
    assert contents(again) == contents(first) and again.digest == first.digest and again.left_out == []
    assert all(part.values.dtype == np.uint8 for part in again.parts.values())


def test_another_file_or_field_is_read_anew(file):
    before, _ = keep(file)
    os.utime(file, ns=(1, 1))
    after, reads = keep(file, RECORDS[:1])
    assert reads == 1 and after.digest != before.digest
    assert keep(file, RECORDS[:1], fields=["grey"])[1] == 1
    assert keep(file, RECORDS[:1], skip_bad=True)[1] == 1


def test_the_digest_depends_on_cuts_labels_and_parts(file):
    digests = set()
    for i, records in enumerate(
        [
            [Record("a", [b"xy", b"z"], 1)],
            [Record("a", [b"x", b"yz"], 1)],
            [Record("a", [b"xy", b"z"], 0)],
            [Record("b", [b"xy", b"z"], 1)],
        ]
    ):
        digests.add(keep(file, records, fields=[i])[0].digest)
    assert len(digests) == 4


@pytest.mark.parametrize("name", ["a.values", "b.ends", "a.labels", "examples.json"])
def test_kept_examples_that_were_damaged_are_read_anew(file, cache, name):
    whole = contents(keep(file)[0])
    (folder,) = cache.iterdir()
    raw = (folder / name).read_bytes()
    for damaged in (b"", raw[: len(raw) // 2], raw[:-1] + bytes([raw[-1] ^ 1])):
        (folder / name).write_bytes(damaged)
        again, reads = keep(file)
        assert reads == 1 and contents(again) == whole and (folder / name).read_bytes() == raw


def test_an_error_leaves_nothing(file, cache):
    with pytest.raises(UserError, match="line 7"):
        keep(file, error=UserError("line 7"))
    assert not list(cache.iterdir())


def test_bad_rows_are_counted_each_time(file, caplog):
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            examples, _ = keep(file, bad_rows=["f:3 is bad", "f:9 is bad"], skip_bad=True)
            assert examples.left_out == ["f:3 is bad", "f:9 is bad"]
    assert [record.getMessage() for record in caplog.records] == ["task: 2 bad rows were left out, the first: f:3 is bad"] * 2
