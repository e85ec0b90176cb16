"""What can be done to a file, and the runs that it is done to."""

import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from lrnn_jax.cli.main import main
from lrnn_jax.training import loop

# What may differ between two runs of the same bits: the clock, and the code where it is edited during the campaign.
CLOCK = ("elapsed_s", "steps_per_s", "wall_time_s", "finished_at", "git_commit", "code")

TINY = [
    "--config.train.duration=400 steps",
    "--config.train.batch_size=8",
    "--config.train.steps_per_dispatch=20",
    "--config.eval.every=100 steps",
    "--config.eval.examples=8",
    "--config.eval.batch_size=8",
    "--config.checkpoint.every=40 steps",
    "--config.checkpoint.keep=2",
    "--config.log.every=60 steps",
]
PARITY = [
    "--config=configs/parity.py:diagonal,smoke",
    "--config.model.width=8",
    "--config.train.length=[3,16]",
    "--config.eval.lengths=[[40,64]]",
    *TINY,
]


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
      code: exit code; None where it did not end by itself in two minutes.
      said: standard error.
    """

    code: int | None
    said: str


def damage(file: Path, rng: random.Random) -> str:
    """Damages a file in some way and says in which."""
    name = rng.choice(list(DAMAGES))
    DAMAGES[name](file, rng)
    return name


def _flip(file: Path, rng: random.Random) -> None:
    data = bytearray(file.read_bytes())
    if data:
        place = rng.randrange(8 * len(data))
        data[place // 8] ^= 1 << place % 8
    file.write_bytes(bytes(data))


def _make_folder(file: Path, rng: random.Random) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Callable[[Path, random.Random], Any]] = {
    "one bit flipped": _flip,
    "emptied": lambda file, rng: file.write_bytes(b""),
    "cut": lambda file, rng: file.write_bytes(file.read_bytes()[: rng.randrange(max(1, file.stat().st_size))]),
    "zeroed": lambda file, rng: file.write_bytes(bytes(file.stat().st_size)),
    "removed": lambda file, rng: file.unlink(),
    "other bytes": lambda file, rng: file.write_bytes(rng.randbytes(file.stat().st_size)),
    "a list": lambda file, rng: file.write_text("[]"),
    "an object": lambda file, rng: file.write_text("{}"),
    "a folder": _make_folder,
}


def files_in(folder: Path) -> list[Path]:
    """Returns the files of a folder at any depth, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def read_runs(folder: Path) -> dict[str, Any]:
    """Returns what the finished runs in a folder computed, by the name of the run; a run's own folder is one run."""
    runs = {}
    for file in sorted([*folder.glob("result.json"), *folder.glob("*/result.json")]):
        lines = [json.loads(line) for line in file.with_name("metrics.jsonl").read_text().splitlines()]
        parts = [json.loads(file.read_text()), *lines]
        name = "" if file.parent == folder else file.parent.name
        runs[name] = [{key: value for key, value in part.items() if key not in CLOCK} for part in parts]
    return runs


class Bench:
    """Short runs, whole and killed, that faults are tried on; made once each."""

    def __init__(self, base: Path) -> None:
        """Works in the folder ``base``."""
        self.base = base
        self.data = base / "texts"
        self.environment = {"LRNN_CACHE_DIR": str(base / "cache"), "JAX_COMPILATION_CACHE_DIR": str(base / "compiled")}
        os.environ.update(self.environment, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
        self._made: dict[str, Path] = {}

    def call(self, *words: str) -> Ended:
        """Runs a command in this process, which has compiled its programs before."""
        from lrnn_jax.data.packing import load_corpus

        load_corpus.cache_clear()
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            try:
                code = main(list(words))
            except Exception as error:  # noqa: BLE001 - a traceback is what is looked for
                return Ended(1, f"Traceback: {type(error).__name__}: {error}")
        return Ended(code, said.getvalue())

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Starts a command as a process of its own."""
        command = [sys.executable, "-m", "lrnn_jax", *words]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def wait(self, process: "subprocess.Popen[str]", seconds: float = 120.0) -> Ended:
        """Waits for a process that was started."""
        try:
            said = process.communicate(timeout=seconds)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            return Ended(None, process.communicate()[1])
        return Ended(process.returncode, said)

    def whole(self, name: str, words: list[str]) -> dict[str, Any]:
        """Returns what an uninterrupted run computes."""
        if name not in self._made:
            self._made[name] = self.base / f"{name}-whole"
            ended = self.call("train", *words, f"--workdir={self._made[name]}")
            assert ended.code == 0, ended.said
        return read_runs(self._made[name])

    def killed(self, name: str, words: list[str], at: int = 240) -> Path:
        """Returns a copy of a run that was killed after the checkpoint before the one at step ``at``."""
        key = f"{name}-killed-{at}"
        if key not in self._made:
            self._made[key] = self.base / key
            save = loop.Loop._save

            def die(self: Any, state: Any, step: int) -> None:
                if step >= at:
                    raise KeyboardInterrupt
                save(self, state, step)

            with mock.patch.object(loop.Loop, "_save", die):
                ended = self.call("train", *words, f"--workdir={self._made[key]}")
            assert ended.code == 130, ended.said
        return self.copy(self._made[key])

    def copy(self, folder: Path) -> Path:
        """Returns a copy of a folder that may be spoiled."""
        return shutil.copytree(folder, self.new_folder() / "it")

    def new_folder(self) -> Path:
        """Returns a new folder."""
        return Path(tempfile.mkdtemp(dir=self.base))

    def write_texts(self) -> None:
        """Writes the texts that a language model is trained on."""
        rng = random.Random(0)
        self.data.mkdir(exist_ok=True)
        for name in ("a", "b"):
            texts = [" ".join(rng.choice(["one", "two", "three"]) for _ in range(rng.randint(3, 40))) for _ in range(150)]
            (self.data / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def judge(ended: Ended, found: Callable[[], Any], expected: Any) -> str:
    """Returns how a command ended: in one of the two ways that are right, or in words that begin with "WRONG"."""
    last = (ended.said.strip().splitlines() or [""])[-1]
    if ended.code is None:
        return "WRONG: hangs"
    if "Traceback" in ended.said:
        return f"WRONG: traceback: {last[:200]}"
    if ended.code == 2 and last.startswith("lrnn: "):
        return "one line"
    if ended.code != 0:
        return f"WRONG: exit code {ended.code}: {last[:200]}"
    try:
        return "same bits" if found() == expected else "WRONG: other bits"
    except (OSError, ValueError, RecursionError) as error:
        return f"WRONG: its files cannot be read: {error}"
