"""``lrnn data``: what it makes is the same however it is made, whole or not there, and what is wrong has its file and line."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import call, refuse, succeed
from lrnn_jax.data.catalogue import DATA_SETS
from lrnn_jax.data.listops import evaluate, parse
from lrnn_jax.data.preparing import Recipe, write_recipe
from small_data import small_data

ROOT = Path(__file__).parents[2]
LISTOPS = ["data", "prepare", "listops", "--examples=260"]
IMAGES = ["data", "prepare", "pathfinder32", "--examples=120"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LRNN_DATA_DIR", raising=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Small data sets, made by one process; tests copy what they change."""
    folder = tmp_path_factory.mktemp("made")
    for words in (LISTOPS, IMAGES):
        succeed(*words, f"--data_dir={folder}", "--processes=1")
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Smaller ones, as most that is wrong is found by reading all."""
    folder = tmp_path_factory.mktemp("few")
    for name in ("listops", "pathfinder32"):
        succeed("data", "prepare", name, "--examples=20", f"--data_dir={folder}", "--processes=1")
    return folder


@pytest.fixture
def copy(few, tmp_path):
    return Path(shutil.copytree(few, tmp_path / "copy"))


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def listops_folder(root):
    return root / "lra_release" / "listops-1000"


def images_folder(root):
    return root / "lra_release" / "pathfinder32" / "curv_contour_length_14"


def test_list_names_every_data_set_and_where_it_belongs(made):
    lines = succeed("data", "list", f"--data_dir={made}").splitlines()
    assert lines[0].split() == ["data", "set", "task", "what", "here", "where", "from"]
    rows = {line.split()[0]: line for line in lines[1:]}
    assert rows.keys() == DATA_SETS.keys()
    assert f"yes   {listops_folder(made)}" in rows["listops"]
    assert f"no    {made}/lra_release/tsv_data" in rows["aan"]
    for name, found in DATA_SETS.items():
        assert found.source in rows[name]
        assert (f"lrnn data prepare {name}" in rows[name]) == found.generated
    assert "give --data_dir or LRNN_DATA_DIR" in succeed("data", "list")


def test_the_files_are_those_of_the_release(made):
    rows = {split: (listops_folder(made) / f"basic_{split}.tsv").read_text().splitlines() for split in ("train", "val", "test")}
    assert {split: len(lines) - 1 for split, lines in rows.items()} == {"train": 250, "val": 5, "test": 5}
    assert {lines[0] for lines in rows.values()} == {"Source\tTarget"}
    every = [line.split("\t") for lines in rows.values() for line in lines[1:]]
    assert len({text for text, _ in every}) == 260
    assert all(evaluate(parse(text)) == int(value) for text, value in every[::10])
    lines = (images_folder(made) / "metadata" / "0.npy").read_text().splitlines()
    assert len(lines) == 120
    assert [line.split()[:3] for line in lines[:2]] == [["imgs/0", f"sample_{i}.png", str(i)] for i in range(2)]
    with Image.open(images_folder(made) / "imgs" / "0" / "sample_119.png") as image:
        assert (image.size, image.mode) == ((32, 32), "L")


@pytest.mark.parametrize("words", [LISTOPS, IMAGES], ids=["listops", "pathfinder"])
def test_two_processes_make_the_same_files_as_one(words, made, tmp_path):
    succeed(*words, f"--data_dir={tmp_path}", "--processes=2")
    mine = digests(tmp_path)
    assert mine
    assert mine.items() <= digests(made).items()


def test_another_seed_makes_others(made, tmp_path):
    succeed(*LISTOPS, f"--data_dir={tmp_path}", "--processes=1", "--seed=1")
    assert not digests(tmp_path).items() & digests(made).items()


# the command; a shell's background jobs, and so tests that run in one, would have it ignore Ctrl-C
HEEDING = """
import signal, sys
from lrnn_jax.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""


def test_a_killed_process_leaves_nothing_that_looks_whole_and_is_resumed(made, tmp_path):
    command = [sys.executable, "-c", HEEDING, *IMAGES, "--examples=1000", f"--data_dir={tmp_path}", "--processes=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    part = images_folder(tmp_path).with_name(".curv_contour_length_14.part")
    for number in (signal.SIGKILL, signal.SIGINT):
        before = len(list((part / "chunks").iterdir())) if part.exists() else 0
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        while len(list((part / "chunks").glob("??????")) if part.exists() else []) <= before and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), said
        assert not images_folder(tmp_path).exists()
    assert "the same command goes on" in said
    kept = {path: path.stat().st_mtime_ns for path in (part / "chunks").glob("??????")}
    assert 2 <= len(kept) < 20
    # in the meantime another recipe is not mixed in
    said = refuse(*IMAGES, f"--data_dir={tmp_path}", "--seed=1")
    assert "was begun with seed=0, examples=1000" in said
    code, _, err = call(*IMAGES, "--examples=1000", f"--data_dir={tmp_path}", "--processes=1")
    assert (code, f"goes on after {50 * len(kept)} of 1,000" in err) == (0, True)
    assert not part.exists()
    resumed = digests(images_folder(tmp_path))
    fresh = {name: digest for name, digest in digests(images_folder(made)).items() if name.startswith("imgs")}
    assert len(resumed) == 1002 and len(fresh) == 120
    assert fresh.items() <= resumed.items()


def test_what_fails_its_check_is_not_there(tmp_path):
    def verify(folder):
        raise ZeroDivisionError

    folder = tmp_path / "listops-1000"
    with pytest.raises(ZeroDivisionError):
        write_recipe(Recipe("listops", 0, 10), folder, processes=1, verify=verify)
    assert not folder.exists()


def test_prepare_refuses_what_is_there_and_what_it_cannot_make(made, tmp_path):
    assert f"is there already, in {listops_folder(made)}" in refuse(*LISTOPS, f"--data_dir={made}")
    said = refuse("data", "prepare", "aan", f"--data_dir={tmp_path}")
    assert "long-range-arena/lra_release.gz" in said
    assert str(tmp_path / "lra_release" / "tsv_data") in said
    said = refuse("data", "prepare", "cifar10", f"--data_dir={tmp_path}")
    assert "cs.toronto.edu" in said
    assert str(tmp_path / "tfds" / "cifar10") in said
    # a folder without a data set is none
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "x").write_text("bytes")
    said = refuse("data", "prepare", "mnist", f"--data_dir={tmp_path}")
    assert f"({tmp_path / 'mnist'} holds no VERSION/dataset_info.json)" in said and str(tmp_path / "tfds" / "mnist") in said
    assert "yes" not in succeed("data", "list", f"--data_dir={tmp_path}").split()
    said = refuse("data", "prepare", "mnist", f"--data_dir={small_data()}")
    assert "mnist is there already, in" in said and "made" not in said
    (tmp_path / "file").write_text("")
    assert "cannot write" in refuse(*LISTOPS, f"--data_dir={tmp_path}/file")


def pack(archive, folder, prefix):
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, prefix)


def test_prepare_takes_a_part_out_of_the_archive(few, tmp_path):
    """The inner of the two copies that the archive holds."""
    release = tmp_path / "lra"
    shutil.copytree(listops_folder(few), release / "lra_release" / "listops-1000")
    (release / "listops-1000").mkdir()
    (release / "listops-1000" / "basic_train.tsv").write_text("not this one")
    (release / "lra_release" / "tsv_data").mkdir()
    for split in ("train", "eval", "test"):
        (release / "lra_release" / "tsv_data" / f"new_aan_pairs.{split}.tsv").write_text('0.0\t1\t2\ta "b\tc\n')
    pack("x.gz", release, "lra_release")
    assert "eval   1" in succeed("data", "prepare", "aan", "--archive=x.gz", "--data_dir=data")
    succeed("data", "prepare", "listops", "--archive=x.gz", "--data_dir=data")
    assert digests(listops_folder(tmp_path / "data")) == digests(listops_folder(few))
    assert "has no lra_release/lra_release/pathfinder32" in refuse(
        "data", "prepare", "pathfinder32", "--archive=x.gz", "--data_dir=data"
    )
    images = images_folder(few)
    pack("y.gz", images, "lra_release/lra_release/pathfinder32/curv_contour_length_14")
    succeed("data", "prepare", "pathfinder32", "--archive=y.gz", "--data_dir=data")
    assert digests(images_folder(tmp_path / "data")) == digests(images)
    assert "--seed is for what is generated" in refuse(
        "data", "prepare", "listops", "--archive=x.gz", "--seed=1", "--data_dir=other"
    )


def test_a_damaged_archive_leaves_nothing(few, tmp_path):
    pack("x.gz", listops_folder(few), "lra_release/lra_release/listops-1000")
    raw = Path("x.gz").read_bytes()
    for damaged, said in [
        (raw[: len(raw) // 2], "damaged"),
        (raw[:2000] + bytes(200) + raw[2200:], "damaged"),
        (b"no archive", "no archive"),
        (b"", "no archive"),
    ]:
        Path("x.gz").write_bytes(damaged)
        assert said in refuse("data", "prepare", "listops", "--archive=x.gz", "--data_dir=data")
        assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert "cannot unpack z.gz" in refuse("data", "prepare", "listops", "--archive=z.gz", "--data_dir=data")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "one of list, prepare, check, show"),
        (["chekc", "listops"], "did you mean 'check'"),
        (["check"], "needs one NAME"),
        (["check", "listops", "aan"], "needs one NAME"),
        (["list", "listops"], "takes no name"),
        (["check", "listop"], "did you mean 'listops'"),
        (["check", "pathfinder32/curv_basline"], "did you mean 'curv_baseline'"),
        (["check", "listops/curv_baseline"], "no data set 'listops/curv_baseline'"),
        (["check", "listops"], "give --data_dir=DIR, or set LRNN_DATA_DIR"),
        (["check", "listops", "--data_dir=."], "`lrnn data prepare listops` makes one"),
        (["check", "listops", "--seed=1"], "takes no --seed; prepare does"),
        (["show", "listops", "--processes=1"], "takes no --processes"),
        (["show", "listops", "--split=trian", "--data_dir=."], "did you mean 'train'"),
        (["show", "listops", "--out=x.png", "--data_dir=."], "--out is for images"),
        (["prepare", "listops", "--examples=0"], "--examples"),
        (["prepare", "listops", "--examples=2", "--data_dir=."], "at least 3, one for each split"),
    ],
)
def test_mistakes(words, said):
    assert said in refuse("data", *words)


def test_check_says_what_there_is(made):
    out = succeed("data", "check", "listops", f"--data_dir={made}")
    assert "train  250" in out and "250 evaluated again" in out and "as prepared" in out
    assert "nothing wrong" in out and "of the whole: train 96,000, val 2,000" in out
    out = succeed("data", "check", "pathfinder32", f"--data_dir={made}")
    assert "32 x 32" in out and "120 decoded" in out and "20 drawn anew" in out


def damage_listops(line, change):
    def damage(root):
        path = listops_folder(root) / "basic_train.tsv"
        lines = path.read_bytes().split(b"\n")
        lines[line - 1] = change(lines[line - 1])
        path.write_bytes(b"\n".join(lines))

    return damage


def other_target(line):
    text, value = line.split(b"\t")
    return text + b"\t%d" % ((int(value) + 1) % 10)


def damage_image(change):
    def damage(root):
        path = images_folder(root) / "imgs" / "0" / "sample_7.png"
        change(path)

    return damage


def swap_images(path):
    other = path.with_name("sample_8.png")
    raw = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(raw)


def flip_label(root):
    path = images_folder(root) / "metadata" / "0.npy"
    lines = [line.split(" ") for line in path.read_text().splitlines()]
    lines[0][3] = str(1 - int(lines[0][3]))
    path.write_text("".join(" ".join(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("listops", damage_listops(3, other_target), "basic_train.tsv:3 has Target"),
        ("listops", damage_listops(3, lambda line: line[2:]), "basic_train.tsv:3 has brackets that do not match"),
        ("listops", damage_listops(3, lambda line: b"( ( ( [MAX 2 ) 9 ) ] )\t9"), "basic_train.tsv:3 has 4 tokens"),
        ("listops", damage_listops(3, lambda line: line.replace(b") ] )", b"] ) )", 1)), "basic_train.tsv:3 word"),
        ("listops", damage_listops(3, lambda line: line + b"\t"), "basic_train.tsv:3 has 3 columns"),
        ("listops", damage_listops(3, lambda line: b"\xff" + line), "basic_train.tsv:3 is not UTF-8"),
        ("listops", damage_listops(1, lambda line: b"Text\tTarget"), "basic_train.tsv:1 must be the header"),
        ("listops", damage_listops(2, lambda line: line[:-2] + line[-2:] + b"\r"), "basic_train.tsv is not as it was prepared"),
        ("listops", lambda root: (listops_folder(root) / "basic_test.tsv").write_bytes(b""), "basic_test.tsv is empty"),
        ("listops", lambda root: (listops_folder(root) / "basic_test.tsv").unlink(), "cannot read"),
        ("listops", lambda root: (listops_folder(root) / "prepared.json").write_text("{"), "prepared.json is damaged"),
        ("pathfinder32", damage_image(lambda path: path.write_bytes(path.read_bytes()[:60])), "sample_7.png cannot be read"),
        ("pathfinder32", damage_image(lambda path: path.write_bytes(b"")), "sample_7.png is empty"),
        ("pathfinder32", damage_image(lambda path: path.unlink()), "sample_7.png, which is not in"),
        ("pathfinder32", damage_image(lambda path: Image.new("L", (32, 64)).save(path)), "sample_7.png is 32 x 64 pixels"),
        ("pathfinder32", damage_image(lambda path: Image.new("RGB", (32, 32)).save(path)), "pixels of the kind RGB"),
        ("pathfinder32", damage_image(swap_images), "imgs/0 is not as it was prepared"),
        ("pathfinder32", flip_label, "sample_0.png is not what seed 0 draws"),
    ],
)  # fmt: skip
def test_damage_is_said_with_its_place(name, damage, said, copy):
    damage(copy)
    assert said in refuse("data", "check", name, f"--data_dir={copy}")


def test_the_same_list_twice_is_said(copy):
    folder = listops_folder(copy)
    (folder / "prepared.json").unlink()
    line = (folder / "basic_train.tsv").read_text().splitlines()[4]
    with (folder / "basic_test.tsv").open("a") as file:
        file.write(f"{line}\n")
    assert "basic_test.tsv:3 is the same list as" in refuse("data", "check", "listops", f"--data_dir={copy}")


def test_show_a_list(made):
    line = (listops_folder(made) / "basic_val.tsv").read_text().splitlines()[2]
    first, *lines = succeed("data", "show", "listops", "--split=val", "--index=1", f"--data_dir={made}").splitlines()
    text, value = line.split("\t")
    assert first.startswith(f"target {value}: ")
    assert lines[0] == f"{parse(text)[0]}  = {value}"
    assert all(line.startswith("  ") for line in lines[1:])
    out = succeed("data", "show", "listops", "--split=val", "--index=3", "--count=9", f"--data_dir={made}")
    assert out.count("target") == 2
    assert "has no example 5 in split 'val'" in refuse(
        "data", "show", "listops", "--split=val", "--index=5", f"--data_dir={made}"
    )


def test_show_pairs(tmp_path):
    (tmp_path / "tsv_data").mkdir()
    (tmp_path / "tsv_data" / "new_aan_pairs.eval.tsv").write_text("1.0\ta\tb\tfirst " + "word " * 40 + '\ta "second" text\n')
    lines = succeed("data", "show", "aan", "--split=eval", f"--data_dir={tmp_path}").splitlines()
    assert lines[0] == "label 1: one cites the other"
    assert max(map(len, lines)) <= 100
    assert 'a "second" text' in lines


def test_show_images_on_a_sheet(made, tmp_path):
    out = succeed("data", "show", "pathfinder32", "--index=110", "--count=20", "--out=sheets/x.png", f"--data_dir={made}")
    assert out.strip() == "sheets/x.png: examples 110 to 119, each with its label"
    with Image.open(tmp_path / "sheets" / "x.png") as sheet:
        assert sheet.size == (8 * 100, 2 * 114)
        drawn = np.asarray(sheet.convert("L"))
    with Image.open(images_folder(made) / "imgs" / "0" / "sample_110.png") as image:
        np.testing.assert_array_equal(drawn[2:98:3, 2:98:3], np.asarray(image))
    assert [path.name for path in (tmp_path / "sheets").iterdir()] == ["x.png"]


def test_the_record_says_how_it_was_made(made):
    record = json.loads((listops_folder(made) / "prepared.json").read_text())
    assert (record["seed"], record["examples"], record["revision"]) == (0, 260, 1)
    assert record["sha256"]["basic_val.tsv"] == digests(listops_folder(made))["basic_val.tsv"]
