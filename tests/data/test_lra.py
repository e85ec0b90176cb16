"""The release's files as they are, and everything that may be wrong with them, refused with file and line."""

import os
from pathlib import Path

import numpy as np
import pytest

from lrnn_jax.data.lra import find_release, read_listops, read_pairs, read_pathfinder
from lrnn_jax.errors import UserError

SHARED = os.environ.get("LRNN_DATA_DIR", "")

LISTOPS = b"Source\tTarget\r\n( ( ( [MAX 2 ) 9 ) ] )\t9\r\n( ( ( [SM 7 ) 6 ) ] )\t3\r\n"
PAIRS = b'0.0\t7\t8\tHe said "so.\tNo "quotes" here\n1.0\t9\t10\tna\xc3\xafve\tb\n'
META = "imgs/{0} sample_{1}.png {1} {2} 1.0 14 4 2 0.5 1 1\n"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "some.tsv"


@pytest.fixture
def folder(tmp_path):
    """Two batches, of three and of one image, whose labels are 1, 0, 0 and 1; the number of a batch is no word."""
    folder = tmp_path / "pathfinder32" / "curv_contour_length_14"
    for batch, labels in {2: [1, 0, 0], 10: [1]}.items():
        (folder / "imgs" / str(batch)).mkdir(parents=True)
        (folder / "metadata").mkdir(exist_ok=True)
        lines = [META.format(batch, i, label) for i, label in enumerate(labels)]
        (folder / "metadata" / f"{batch}.npy").write_text("".join(lines))
        for i in range(len(labels)):
            (folder / "imgs" / str(batch) / f"sample_{i}.png").write_bytes(b"an image")
    return folder


def refusal(read, *arguments):
    with pytest.raises(UserError) as caught:
        list(read(*arguments))
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- where things are ----------------------------------------------------------------------------------------------


def test_the_inner_folder_of_the_release_comes_first(tmp_path, monkeypatch):
    for place in ("listops-1000", "lra_release/listops-1000", "lra_release/lra_release/listops-1000"):
        (tmp_path / place).mkdir(parents=True)
        assert find_release("listops-1000", str(tmp_path)) == tmp_path / place
    monkeypatch.setenv("LRNN_DATA_DIR", str(tmp_path))
    assert find_release("listops-1000") == tmp_path / "lra_release/lra_release/listops-1000"


def test_what_is_missing_where_it_is_from_and_where_to_put_it(tmp_path, monkeypatch):
    message = refusal(find_release, "tsv_data", str(tmp_path))
    assert "lra_release.gz" in message and f"{tmp_path}/lra_release/lra_release/tsv_data" in message
    monkeypatch.delenv("LRNN_DATA_DIR", raising=False)
    assert "LRNN_DATA_DIR" in refusal(find_release, "tsv_data")


# --- ListOps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_listops_rows(file, end):
    file.write_bytes(LISTOPS.replace(b"\r\n", end))
    assert list(read_listops(file)) == [("( ( ( [MAX 2 ) 9 ) ] )", 9), ("( ( ( [SM 7 ) 6 ) ] )", 3)]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (LISTOPS, b"", "is empty"),
        (b"Source\tTarget", b"label\ttext", ":1 must be the header"),
        (b"\t3\r\n", b"\t3", ":3 has no line end: the file is truncated"),
        (b" 6 ) ] )\t3\r\n", b" 6", ":3 has no line end: the file is truncated"),
        (b"\t9", b"", ":2 has 1 columns instead of 2"),
        (b"[MAX 2", b"[MAX\t2", ":2 has 3 columns instead of 2 (Source, Target): a tab inside a text?"),
        (b"\t9", b"\t10", ":2 has Target '10', which must be 0..9"),
        (b"\t9", b"\t\xd9\xa3", ":2 has Target '\u0663', which must be 0..9"),
        (b"\t3", b"\t", ":3 has Target '', which must be 0..9"),
        (b"[SM", b'"[SM', ":3 has a word that is not of ListOps: '\"[SM'"),
        (b"[SM", b"[FIRST", ":3 has a word that is not of ListOps: '[FIRST'"),
        (b" ] )\t3", b" )\t3", ":3 has brackets that do not match"),
        (b"( ( ( [SM 7 ) 6 ) ] )", b"] 2 [MAX", ":3 has brackets that do not match"),
        (b"( ( ( [SM 7 ) 6 ) ] )", b") [MAX 5 ] (", ":3 has brackets that do not match"),
        (b"( ( ( [SM 7 ) 6 ) ] )", b"1 2 3", ":3 has brackets that do not match"),
        (b"( ( ( [SM 7 ) 6 ) ] )", b"[MAX 1 ] [MIN 2 ]", ":3 has brackets that do not match"),
        (b"( ( ( [SM 7 ) 6 ) ] )", b"[MAX ]", ":3 has an empty list"),
        (b"[SM", b"\xff\xfe", ":3 is not UTF-8 (byte 6 of the line is 0xff)"),
    ],
)
def test_bad_listops_rows(file, old, new, said):
    file.write_bytes(LISTOPS.replace(old, new))
    assert f"{file}{'' if said.startswith(':') else ' '}{said}" in refusal(read_listops, file)


def test_a_file_that_is_not_there(tmp_path):
    for read in (read_listops, read_pairs):
        assert f"cannot read {tmp_path / 'none.tsv'}: No such file" in refusal(read, tmp_path / "none.tsv")
    assert "cannot read" in refusal(read_listops, tmp_path)


def test_bad_rows_are_left_out_where_asked(file):
    file.write_bytes(LISTOPS.replace(b"\t9", b"\tx"))
    bad = []
    assert list(read_listops(file, bad=bad)) == [("( ( ( [SM 7 ) 6 ) ] )", 3)]
    assert bad == [f"{file}:2 has Target 'x', which must be 0..9"]
    assert "task.skip_bad=True" in refusal(read_listops, file)


# --- pairs ---------------------------------------------------------------------------------------------------------


def test_quotes_are_text_and_labels_are_floats(file):
    file.write_bytes(PAIRS)
    assert list(read_pairs(file)) == [
        (0, ("7", "8"), ('He said "so.', 'No "quotes" here')),
        (1, ("9", "10"), ("naïve", "b")),
    ]


def test_what_only_looks_like_the_end_of_a_line_is_text(file):
    file.write_bytes("1\t1\t2\ta\x0b\u2028\rb\tc\n".encode())
    assert [row.texts for row in read_pairs(file)] == [("a\x0b\u2028\rb", "c")]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (PAIRS, b"", "is empty"),
        (b"\tb\n", b"\tb", ":2 has no line end: the file is truncated"),
        (b"\tb\n", b"\n", ":2 has 4 columns instead of 5"),
        (b"said ", b"said\t", ":1 has 6 columns instead of 5 (label, id1, id2, text1, text2): a tab inside a text?"),
        (b"0.0", b"2.0", ":1 has label '2.0', which must be 0 or 1"),
        (b"0.0", b"0.5", ":1 has label '0.5', which must be 0 or 1"),
        (b"0.0", b"nan", ":1 has label 'nan', which must be 0 or 1"),
        (b"0.0", b"label", ":1 has label 'label', which must be 0 or 1"),
        (b"\tb\n", b"\t\n", ":2 has no text2"),
        (b"\xc3\xaf", b"\xef", ":2 is not UTF-8"),
        (b"0.0\t", b"\n0.0\t", ":1 has 1 columns instead of 5"),
    ],
)
def test_bad_pairs(file, old, new, said):
    file.write_bytes(PAIRS.replace(old, new))
    assert f"{file}{'' if said.startswith(':') else ' '}{said}" in refusal(read_pairs, file)


# --- Pathfinder ----------------------------------------------------------------------------------------------------


def test_metadata_are_sorted_by_number(folder):
    expected = [("2/sample_0", 1), ("2/sample_1", 0), ("2/sample_2", 0), ("10/sample_0", 1)]
    assert read_pathfinder(folder) == [(folder / "imgs" / f"{name}.png", label) for name, label in expected]


def test_a_stray_file_among_the_batches_is_named(folder):
    (folder / "imgs" / ".DS_Store").write_bytes(b"x")
    assert f"{folder}/imgs/.DS_Store is no folder of images" in refusal(read_pathfinder, folder)


def test_metadata_as_a_real_array(folder):
    expected = read_pathfinder(folder)
    for path in (folder / "metadata").iterdir():
        np.save(path.with_suffix(""), np.array([line.split() for line in path.read_text().splitlines()]))
        assert path.read_bytes().startswith(b"\x93NUMPY")
    assert read_pathfinder(folder) == expected
    path = folder / "metadata" / "2.npy"
    np.save(path, np.load(path)[:2])
    assert f"{folder}/imgs/2/sample_2.png has no row in {folder}/metadata" in refusal(read_pathfinder, folder)
    path.write_bytes(path.read_bytes()[:-20])
    assert f"{path} cannot be read as a NumPy array of strings" in refusal(read_pathfinder, folder)
    np.save(path, np.array([["imgs/2", 3]], object), allow_pickle=True)
    assert f"{path} cannot be read as a NumPy array of strings" in refusal(read_pathfinder, folder)
    np.save(path, np.zeros((2, 4)))
    assert f"{path} holds an array float64 (2, 4), not rows of strings" in refusal(read_pathfinder, folder)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("imgs/2 sample_1.png 1 0", "imgs/2 sample_1.png 1 2", "2.npy:2 has label '2', which must be 0 or 1"),
        ("imgs/2 sample_1.png 1 0", "imgs/2 sample_1.png 1 0.0", "2.npy:2 has label '0.0', which must be 0 or 1"),
        ("imgs/2 sample_2.png", "imgs/2 sample_1.png", "2.npy:3 names imgs/2/sample_1.png a second time"),
        ("imgs/2 sample_2.png", "imgs/2 sample_3.png", "2.npy:3 names imgs/2/sample_3.png, which is not in"),
        ("imgs/2 sample_2.png", "../2 sample_2.png", "2.npy:3 names ../2/sample_2.png, which is not in"),
        (META.format(2, 1, 0), "", "imgs/2/sample_1.png has no row in"),
        (META.format(2, 1, 0), "\n", "2.npy:2 has 0 columns, of which 4 are needed"),
        (" 0 1.0 14 4 2 0.5 1 1\n" + META.format(2, 2, 0), "", "2.npy:2 has 3 columns, of which 4 are needed"),
    ],
)
def test_bad_metadata(folder, old, new, said):
    path = folder / "metadata" / "2.npy"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert said in refusal(read_pathfinder, folder)
    bad = []
    left = read_pathfinder(folder, bad=bad)
    assert any(said in message for message in bad) and 1 < len(left) < 4


def test_the_empty_image_of_the_release_has_its_own_words(tmp_path):
    folder = tmp_path / "pathfinder32" / "curv_baseline"
    (folder / "imgs" / "0").mkdir(parents=True)
    (folder / "metadata").mkdir()
    for i in (171, 172):
        (folder / "imgs" / "0" / f"sample_{i}.png").write_bytes(b"x" * (172 - i))
    (folder / "metadata" / "0.npy").write_text(META.format(0, 171, 1) + META.format(0, 172, 0))
    message = refusal(read_pathfinder, folder)
    assert "imgs/0/sample_172.png is empty (the release itself has this empty file)" in message
    assert "0.npy:2" in message and "task.skip_bad=True" in message
    bad = []
    assert len(read_pathfinder(folder, bad=bad)) == len(bad) == 1


def test_a_folder_without_metadata_or_images(folder, tmp_path):
    assert "no folder" in refusal(read_pathfinder, tmp_path)
    for path in (folder / "metadata").iterdir():
        path.write_bytes(b"")
    assert "2.npy is empty" in refusal(read_pathfinder, folder)
    for path in (folder / "metadata").iterdir():
        path.rename(path.with_name(f"m{path.name}"))
    assert "must be named by a number" in refusal(read_pathfinder, folder)
    for path in (folder / "metadata").iterdir():
        path.unlink()
    assert "no files metadata/NUMBER.npy" in refusal(read_pathfinder, folder)


# --- the real files ------------------------------------------------------------------------------------------------


@pytest.mark.shared_data
@pytest.mark.skipif(not Path(SHARED, "lra_release").is_dir() or not SHARED, reason="no LRNN_DATA_DIR with lra_release")
def test_the_release_as_it_is():
    listops = find_release("listops-1000")
    rows = {split: list(read_listops(listops / f"basic_{split}.tsv")) for split in ("train", "val", "test")}
    assert [len(part) for part in rows.values()] == [400, 100, 100]
    images = read_pathfinder(find_release("pathfinder32/curv_contour_length_14"))
    assert len(images) == 4000
    assert 1900 < sum(label for _, label in images) < 2100
    assert {path.suffix for path, _ in images} == {".png"}
