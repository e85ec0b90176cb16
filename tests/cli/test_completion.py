"""Completion of ``lrnn`` in a shell: the candidates, and what a tab makes of a line in bash, zsh and fish."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import refuse, succeed
from lrnn_jax.cli.completion import SCRIPTS
from lrnn_jax.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Commands work from any folder, and tests leave nothing in the checkout."""
    monkeypatch.chdir(tmp_path)


def words(*line):
    """What the last word of the line may become."""
    return succeed("completion", "words", "--", *line).splitlines()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (["tr"], ["train"]),
        (["eval", "--work"], ["--workdir="]),
        (["reproduce", "--pl"], ["--plan"]),
        (["reproduce", "--nopl"], ["--noplan"]),
        (["eval", "--help", "--checkpoint="], ["--checkpoint=last", "--checkpoint=best"]),
        (["eval", "--checkpoint", "b"], ["best"]),
        (["train", "--config", "configs/parity.py:gru"], ["configs/parity.py:gru"]),
        (["train", "--workdir", ""], []),
        (["sweep", "--config=configs/parity.py:lru", "--sweep="], ["--sweep=layers"]),
        (["bench", "layer", "--layer=gru,ls"], ["--layer=gru,lstm"]),
        (["reproduce", "--layer=mamba2"], ["--layer=mamba2"]),
        (["reproduce", "grazzi2025_fig1", "--setting=c"], ["--setting=cpu"]),
        (["reproduce", "grazzi2025_z"], ["grazzi2025_z60"]),
        (["data", "pre"], ["prepare"]),
        (["data", "prepare", "--seed=1", "listo"], ["listops"]),
        (["data", "list", "listo"], []),
        (["list", "lay"], ["layers"]),
        (["completion", ""], list(SCRIPTS)),
        (["train", "--config=configs/par"], ["--config=configs/parity.py"]),
        (["config", "configs/par"], ["configs/parity.py"]),
        (["config", "configs/parity.py:smoke,deltap"], ["configs/parity.py:smoke,deltaproduct"]),
        (["config", "configs/parity.py:lru,smoke,"], []),  # both are given; it has no options
        (["config", "configs/word_problem.py:gro"], ["configs/word_problem.py:group="]),
        (["config", "configs/word_problem.py:A4"], ["configs/word_problem.py:A4xZ5"]),
        (["config", "configs/word_problem.py:lru,group=Z6"], ["configs/word_problem.py:lru,group=Z60"]),
        (["train", "--config.optim.l"], ["--config.optim.lr="]),
        # folders are left to the shell, and so is what is wrong
        (["train", "--workdir="], []),
        (["runs", ""], []),
        (["trian", "--work"], []),
        (["train", "--config=nowhere.py:"], []),
        (["reproduce", "nonsense", "--setting="], []),
        ([], []),
    ],
    ids=" ".join,
)  # fmt: skip
def test_candidates(line, found):
    assert words(*line) == found


def test_every_verb_and_each_of_its_flags_is_a_candidate():
    assert set(COMMANDS) < set(words(""))
    for verb in COMMANDS:
        flags = [line.split(":")[0].strip() for line in succeed(verb, "--help").splitlines()[4:]]
        assert {flag.removesuffix("=") for flag in words(verb, "--")} >= {flag for flag in flags if flag}


@pytest.mark.parametrize("text", ["print('x')\nraise SystemExit(3)", "def get_config(:", "import nowhere", "get_config = 3"])
def test_a_broken_config_says_nothing(tmp_path, text):
    (tmp_path / "own.py").write_text(text)
    assert words("train", "--config=own.py:") == []
    assert words("train", "--config=own.py", "--config.optim.lr") == ["--config.optim.lr="]


def test_an_unknown_shell_is_one_line():
    assert "bash, zsh, fish, not 'tcsh'" in refuse("completion", "tcsh")
    assert "bash, zsh, fish" in refuse("completion")


def test_it_imports_nothing_heavy():
    program = "import sys\nfrom lrnn_jax.cli.completion import complete\n"
    for line in (
        ["train", "--config=configs/word_problem.py:lru,"],
        ["train", "--config.optim."],
        ["reproduce", "--layer=lru"],
    ):
        program += f"assert complete({line})\n"
    program += "print([name for name in ('jax', 'flax', 'optax') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


LINES = {
    "ready": ["ready"],
    "tr\t--wo\tx": ["train", "--workdir=x"],  # a space after a whole word, none after =
    "eval --workdir=ru\tx": ["eval", "--workdir=runs/x"],  # the shell's own completion of files
    "train --config=configs/pari\t": ["train", "--config=configs/parity.py"],
    "config configs/word_problem.py:lru,gro\tZ6\t": ["config", "configs/word_problem.py:lru,group=Z60"],
    "eval --checkpoint=\tb\t": ["eval", "--checkpoint=best"],
    "config configs/parity.py:\tlst\t": ["config", "configs/parity.py:lstm"],
    "train --config.optim.warm\t5": ["train", "--config.optim.warmup=5"],
    "bench layer --layer=gru,ls\t--rounds=1": ["bench", "layer", "--layer=gru,lstm", "--rounds=1"],
}
STARTS = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"], "fish": ["fish", "--no-config", "-i"]}
# Makes standard input the terminal that the shell is controlled by.
TAKE = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"


@pytest.mark.parametrize("shell", STARTS)
def test_a_tab_completes_the_line(shell, tmp_path):
    """Types lines with tabs at a terminal; a command ``lrnn`` writes down what it was called with."""
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    (tmp_path / "runs").mkdir()
    fake, said = tmp_path / "bin" / "lrnn", tmp_path / "said"
    fake.parent.mkdir()
    program = f'[ "$1" = completion ] && exec {sys.executable} -m lrnn_jax "$@"'
    fake.write_text(f'#!/bin/sh\n{program}\necho "$@" >> {said}\n')
    fake.chmod(0o755)
    path = f"{fake.parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(tmp_path), "TERM": "dumb", "PYTHONPATH": str(ROOT)}
    terminal, end = pty.openpty()
    start = [sys.executable, "-c", TAKE, *STARTS[shell]]
    process = subprocess.Popen(start, stdin=end, stdout=end, stderr=end, cwd=tmp_path, env=environment, start_new_session=True)
    os.close(end)
    setup = "lrnn completion fish | source" if shell == "fish" else f'eval "$(lrnn completion {shell})"'
    try:
        os.write(terminal, f"{setup}\r".encode())
        for i, line in enumerate(LINES, 1):
            os.write(terminal, f"lrnn {line}\r".encode())
            screen = read_until(terminal, lambda i=i: said.exists() and said.read_text().count("\n") == i)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert said.read_text().splitlines() == [" ".join(line) for line in LINES.values()], screen


def read_until(terminal, is_done):
    """What a terminal shows until something is done; a program that waits for its reader would never be."""
    shown, ends = b"", time.monotonic() + 20
    while not is_done():
        assert time.monotonic() < ends, shown.decode(errors="replace")
        if select.select([terminal], [], [], 0.02)[0]:
            shown += os.read(terminal, 65536)
    return shown.decode(errors="replace")
