"""The command ``lrnn spectra``: what it writes and prints, and what it refuses in one line."""

import contextlib
import io
import json
import random
import shutil

import numpy as np
import pytest

from lrnn_jax.cli.main import main
from lrnn_jax.config.files import load_own_config
from lrnn_jax.training.loop import train

SMALL = {
    "train.duration": "6 steps",
    "train.batch_size": 8,
    "train.steps_per_dispatch": 2,
    "eval.every": "3 steps",
    "eval.examples": 8,
    "eval.batch_size": 8,
    "model.width": 8,
}
PARITY = {"train.length": [3, 8], "eval.lengths": [[40, 48]], "eval.best_metric": "", "model.depth": 2}
TEXT = {"train.length": [16, 16], "eval.lengths": [[16, 16]], "eval.headline": [16, 16]}
WRITTEN = {"spectra.npz", "spectra.png"}


def call(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(words))
    return code, out.getvalue(), err.getvalue()


def train_small(spec, folder, **fields):
    config = load_own_config(spec).unlock()
    config.update_from_flattened_dict({**SMALL, **fields})
    train(config.lock(), folder)
    return folder


@pytest.fixture(scope="module")
def parity(tmp_path_factory):
    spec = "configs/parity.py:diagonal/positive,smoke"
    return train_small(spec, tmp_path_factory.mktemp("parity") / "run", **PARITY)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    moment = random.Random(0)
    rows = ["".join(moment.choice("abcdefghijklmnop\n") for _ in range(moment.randint(5, 60))) for _ in range(300)]
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    fields = {**TEXT, "task.data": str(folder / "text.jsonl"), "model.layer.heads": 2}
    return train_small("configs/language_modeling.py:deltanet,smoke", folder / "run", **fields)


@pytest.fixture
def run(parity, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(parity, tmp_path / "run")


def refuse(workdir, *flags):
    before = sorted(workdir.rglob("*"))
    code, out, err = call("spectra", f"--workdir={workdir}", *flags)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert sorted(workdir.rglob("*")) == before
    return err


def table_of(out):
    head, *rows = [line.split("  ") for line in out.split("\n\n")[0].splitlines()]
    return [tuple(cell.strip() for cell in row if cell.strip()) for row in (head, *rows)]


def test_the_command_writes_numbers_and_plot_and_prints_their_ranges(run):
    before = {path.name for path in run.iterdir()}
    code, out, err = call("spectra", f"--workdir={run}")
    assert (code, err) == (0, "")
    assert {path.name for path in run.iterdir()} == before | WRITTEN
    assert (run / "spectra.png").read_bytes().startswith(b"\x89PNG")
    assert f"{run / 'spectra.png'}: last checkpoint, step 6; 4 test sequences of 8 tokens" in out
    _, *rows = table_of(out)
    assert [row[:2] for row in rows] == [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")]
    # seven bits a row are no padding
    assert sum(int(row[2]) for row in rows) == 2 * 4 * 7
    with np.load(run / "spectra.npz") as arrays:
        there = arrays["block_1"][:, :7][arrays["tokens"][:, :7] == 2]
        # a sigmoid, by channel
        assert arrays["block_1"].shape == (4, 8, 8) and not there.imag.any() and there.real.min() >= 0
        assert rows[3][3:] == tuple(f"{x:.4f}" for x in (there.real.min(), there.real.max(), 0, there.real.max()))


def test_the_same_flags_give_the_same_files(run):
    files = []
    for flags in (["--examples=2", "--length=5"], [], ["--examples=2", "--length=5"]):
        assert call("spectra", f"--workdir={run}", *flags)[0] == 0
        with np.load(run / "spectra.npz") as arrays:
            files.append((arrays["tokens"].shape, (run / "spectra.png").read_bytes()))
    assert files[0] == files[2] and files[0][0] == (2, 5)
    assert files[1][0] == (4, 8) and files[1][1] != files[0][1]


def test_text_is_told_apart_by_its_bytes(text):
    code, out, err = call("spectra", f"--workdir={text}", "--examples=8", "--checkpoint=best")
    assert (code, err) == (0, "") and "best checkpoint" in out
    _, *rows = table_of(out)
    names = [row[1] for row in rows]
    assert len(names) == 13 and names[-1].endswith("others")
    assert set(names[:-1]) <= {repr(letter) for letter in "abcdefghijklmnop\n"} | {"start"}
    assert sum(int(row[2]) for row in rows) == 8 * 16
    with np.load(text / "spectra.npz") as arrays:
        assert arrays["names"].shape == (257,) and arrays["block_0"].shape == (8, 16, 8)
        values, tokens = np.sort(arrays["block_0"].real.reshape(8, 16, 2, 4), axis=-1), arrays["tokens"]
    np.testing.assert_allclose(values[..., 1:], 1, atol=1e-5)
    # the rows are the test split's: documents of these letters, packed one after another
    assert set(tokens.ravel()) <= {*b"abcdefghijklmnop\n", 256} and (tokens == 256).any()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--length=1"], "--length=[1, 1]"),
        (["--length=100000"], "--length=[100000, 100000]"),
        (["--examples=200000", "--length=16000"], "too many"),
    ],
)
def test_what_cannot_be_measured_is_one_line_and_leaves_nothing(run, flags, said):
    assert said in refuse(run, *flags)


def test_more_text_than_there_is(text):
    call("spectra", f"--workdir={text}")
    assert "--examples=5000: the test split has only" in refuse(text, "--examples=5000")
    assert "too few for one row of 16000" in refuse(text, "--length=16000")


def test_a_run_without_what_is_asked_for(run, tmp_path):
    assert "no best checkpoint" in refuse(run, "--checkpoint=best")
    shutil.rmtree(run / "checkpoints")
    assert "no checkpoint" in refuse(run)
    (tmp_path / "empty").mkdir()
    assert "not a run" in refuse(tmp_path / "empty")


@pytest.mark.parametrize(
    ("section", "name", "value", "said"),
    [
        ("layer", "name", "diagnoal", "did you mean 'diagonal'"),
        ("layer", "gian", 1.0, "model.layer.gian"),
        (None, "width", 16, "incompatible model"),
    ],
)
def test_a_config_that_is_not_the_checkpoints(run, section, name, value, said):
    config = json.loads((run / "config.json").read_text())
    (config["model"][section] if section else config["model"])[name] = value
    (run / "config.json").write_text(json.dumps(config))
    assert said in refuse(run)


def test_other_data_than_the_runs(text, tmp_path):
    run = shutil.copytree(text, tmp_path / "run")
    (run / "data.json").write_text("{}")
    assert "other data" in refuse(run)


def test_a_folder_that_cannot_be_written_is_one_line(run):
    (run / "spectra.png").mkdir()
    (run / "spectra.png" / "kept").touch()
    assert f"cannot write in --workdir={run}" in call("spectra", f"--workdir={run}")[2]
    assert not [path for path in run.iterdir() if path.name.startswith(".spectra")]
