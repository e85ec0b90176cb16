"""Paths on the command line: ``~``, names that no file can have, users without a home, and what writes nothing."""

from pathlib import Path

import pytest

from helpers import refuse, succeed
from lrnn_jax.cli.main import parse_flags

PARITY = "--config=configs/parity.py:diagonal,smoke"
LONG = "x" * 256


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The user's home, which is empty, and a working directory beside it."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("verb", "flag"),
    [
        ("train", "workdir"), ("sweep", "workdir"), ("eval", "workdir"), ("generate", "workdir"), ("spectra", "workdir"),
        ("reproduce", "workdir"), ("reproduce", "results"), ("generate", "prompt_file"), ("bench", "out"), ("data", "out"),
        ("data", "data_dir"), ("data", "archive"),
    ],
)  # fmt: skip
def test_a_home_is_what_the_shell_means(verb, flag, home):
    for words in ([f"--{flag}=~/x"], [f"--{flag}", "~/x"]):
        assert parse_flags(verb, words)[0][flag].value == str(home / "x")
    assert "no home" in refuse(verb, f"--{flag}=~nobody-at-all/x")


def test_a_home_in_every_other_place(home):
    load = "from lrnn_jax.config.files import load_own_config"
    (home / "own.py").write_text(f"{load}\ndef get_config(arg=None):\n    return load_own_config('configs/parity.py')\n")
    assert "optim.lr" in succeed("config", "~/own.py")
    assert f"{home}/runs holds no runs" in refuse("runs", "~/runs")
    assert str(home / "data") in succeed("data", "list", "--data_dir=~/data")
    (home / "a.txt").write_text("one two three " * 500)
    text = ["--config=configs/language_modeling.py:diagonal,smoke", "--config.task.data=~/a.txt"]
    assert "~/b.json" in refuse("train", *text, "--config.task.tokenizer=~/b.json", "--workdir=~/r")
    assert not (home / "r").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["train", PARITY, f"--workdir={LONG}"],
        ["train", PARITY, f"--workdir=a/{LONG}/b"],
        ["train", f"--config={LONG}"],
        ["train", f"--config={LONG}.py"],
        ["train", f"--config=configs/{LONG}.py:diagonal"],
        ["train", "--config=configs/language_modeling.py:diagonal,smoke", f"--config.task.data={LONG}"],
        ["train", "--config=configs/language_modeling.py:diagonal,smoke", f"--config.task.data={LONG}/*.txt"],
        ["train", "--config=configs/language_modeling.py:diagonal,smoke", f"--config.task.tokenizer={LONG}.json"],
        ["train", "--config=configs/listops.py:diagonal,smoke", f"--config.task.data_dir={LONG}"],
        ["eval", f"--workdir={LONG}"],
        ["generate", f"--workdir={LONG}"],
        ["spectra", f"--workdir={LONG}"],
        ["sweep", PARITY, f"--workdir={LONG}"],
        ["runs", LONG],
        ["reproduce", LONG],
        ["reproduce", "grazzi2025_fig1", "--setting=smoke", f"--results={LONG}"],
        ["reproduce", "grazzi2025_fig1", "--setting=smoke", f"--workdir={LONG}"],
        ["data", "check", "listops", f"--data_dir={LONG}"],
        ["train", "--config=configs/language_modeling.py:diagonal,smoke", "--config.task.data=/"],
        ["train", "--config=configs/language_modeling.py:diagonal,smoke", "--config.task.data=/**"],
    ],
    ids=lambda words: " ".join(words).replace(LONG, "LONG"),
)
def test_a_name_that_no_file_can_have_and_the_whole_disk_are_one_line_and_nothing_is_written(words, tmp_path, monkeypatch):
    monkeypatch.setenv("LRNN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("LRNN_DATA_DIR", raising=False)
    refuse(*words)
    assert not list((tmp_path / "here").rglob("*.json")) and not (tmp_path / "cache").exists()


def test_what_cannot_start_writes_nothing_and_the_corrected_command_is_another(tmp_path):
    for words in (["--config.model.depth=2147483648"], ["--config.model.width=1048576", "--config.model.layer.name=lstm"]):
        refuse("train", PARITY, *words, "--workdir=w")
        assert not list(Path().iterdir())


def test_a_user_without_home_and_name_trains_with_the_variable(tmp_path, monkeypatch):
    """As in a container with --user: no HOME, and an id that no list of users has."""
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    Path("a.txt").write_text("one two three " * 2000)
    words = [
        "--config=configs/language_modeling.py:diagonal,smoke",
        "--config.task.data=a.txt",
        "--config.train.duration=2 steps",
    ]
    words += [
        "--config.train.length=[16,16]",
        "--config.eval.lengths=[[16,16]]",
        "--config.eval.headline=[16,16]",
        "--workdir=w",
    ]
    monkeypatch.setenv("LRNN_CACHE_DIR", "")
    assert "set LRNN_CACHE_DIR" in refuse("train", *words)
    monkeypatch.setenv("LRNN_CACHE_DIR", str(tmp_path / "cache"))
    assert "headline" in succeed("train", *words)
    assert list((tmp_path / "cache").glob("*/corpus.json"))
