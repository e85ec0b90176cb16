"""Faults of every kind against short runs, each of which must end in one of two ways.

    python scripts/fault_campaign.py --only=checkpoint,run --count=20 --seed=1 --out=faults.md

Right is: the bits of an uninterrupted run, or one line with exit code 2. Kinds that fill a disk need the right to mount one in
a namespace of their own. The table is Markdown; the exit code is how many ended wrongly.
"""

import argparse
import collections
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from scripts.faults.bench import PARITY, TINY, Bench, Ended, damage, files_in, judge, read_runs

Fault = Callable[[Bench, random.Random], tuple[str, str]]
SEEDS = [*PARITY, "--config.seeds=2"]


def signal_run(bench: Bench, rng: random.Random) -> tuple[str, str]:
    """A signal at a random moment of a run, and the same command again."""
    return _signal(bench, rng, "run", PARITY)


def signal_sweep(bench: Bench, rng: random.Random) -> tuple[str, str]:
    """The same of two seeds side by side."""
    return _signal(bench, rng, "seeds", SEEDS)


def _signal(bench: Bench, rng: random.Random, name: str, words: list[str]) -> tuple[str, str]:
    expected, workdir = bench.whole(name, words), bench.new_folder() / "run"
    signum = rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    process = bench.start("train", *words, f"--workdir={workdir}")
    # mostly once there is a checkpoint, where most can go wrong
    deadline = time.monotonic() + (60 if rng.random() < 0.9 else rng.uniform(0.0, 6.0))
    while not _saved(workdir) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    after = rng.uniform(0.0, 0.4)
    time.sleep(after)
    process.send_signal(signum)
    first = bench.wait(process)
    what = f"{signum.name}, {'started' if not _saved(workdir) else 'with checkpoints'} and {after:.2f} s"
    if first.code is None:
        return what, "WRONG: hangs after the signal"
    return what, judge(bench.call("train", *words, f"--workdir={workdir}"), lambda: read_runs(workdir), expected)


def _saved(workdir: Path) -> list[Path]:
    return [path for path in workdir.rglob("checkpoints/*") if path.name.isdigit()]


def full_disk(bench: Bench, rng: random.Random) -> tuple[str, str]:
    """A disk on which bytes run out; then there is room."""
    size = rng.randrange(1, 120) * 4096
    return f"{size:,} bytes", _on_small_disk(bench, f"size={size}")


def no_inodes(bench: Bench, rng: random.Random) -> tuple[str, str]:
    """A disk on which inodes run out; then there is room."""
    inodes = rng.randrange(2, 90)
    return f"{inodes} inodes", _on_small_disk(bench, f"nr_inodes={inodes},size=64m")


def _on_small_disk(bench: Bench, options: str) -> str:
    expected, folder = bench.whole("run", PARITY), bench.new_folder()
    disk = folder / "disk"
    disk.mkdir()
    train = [sys.executable, "-m", "lrnn_jax", "train", *PARITY, f"--workdir={disk / 'run'}"]
    script = (
        f"mount -t tmpfs -o {options} tmpfs {disk} || exit 99\n"
        f'timeout 120 "$@" 2>{folder}/first; echo $? >{folder}/first.code\n'
        f'mount -o remount,size=64m,nr_inodes=100000 {disk}\n"$@" 2>{folder}/second; echo $? >{folder}/second.code\n'
        f"cp -r {disk}/run {folder}/run\n"
    )
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", *train], capture_output=True, text=True)
    if done.returncode == 99:
        return f"WRONG: not tried: {done.stderr.strip()}"
    ended = [Ended(int((folder / f"{n}.code").read_text()), (folder / n).read_text()) for n in ("first", "second")]
    first, second = (judge(each, lambda: read_runs(folder / "run"), expected) for each in ended)
    return first if first.startswith("WRONG") else second if first == "same bits" else f"{first}, then {second}"


def damaged_checkpoint(bench: Bench, rng: random.Random) -> tuple[str, str]:
    """A file of the newest checkpoint of a run that was killed."""
    expected, workdir = bench.whole("run", PARITY), bench.killed("run", PARITY)
    newest = max(_saved(workdir), key=lambda path: int(path.name))
    return _damage_and_train(bench, rng, PARITY, workdir, files_in(newest), expected)


def damaged_run(bench: Bench, rng: random.Random) -> tuple[str, str]:
    """Any file outside of the checkpoints, of a run that was killed, or of one that has ended."""
    expected = bench.whole("run", PARITY)
    workdir = bench.copy(bench.base / "run-whole") if rng.random() < 0.5 else bench.killed("run", PARITY)
    files = [
        file for file in files_in(workdir) if not file.parent.is_relative_to(workdir / "checkpoints") or file.suffix == ".jsonl"
    ]
    return _damage_and_train(bench, rng, PARITY, workdir, files, expected)


def damaged_store(bench: Bench, rng: random.Random) -> tuple[str, str]:
    """Any file of a program of two runs that was killed, and of these runs."""
    expected, store = bench.whole("seeds", SEEDS), bench.killed("seeds", SEEDS)
    return _damage_and_train(bench, rng, SEEDS, store, files_in(store), expected)


def _damage_and_train(
    bench: Bench, rng: random.Random, words: list[str], workdir: Path, files: list[Path], expected: dict[str, object]
) -> tuple[str, str]:
    file = rng.choice(files)
    what = f"{file.relative_to(workdir)}: {damage(file, rng)}"
    return what, judge(bench.call("train", *words, f"--workdir={workdir}"), lambda: read_runs(workdir), expected)


def damaged_cache(bench: Bench, rng: random.Random) -> tuple[str, str]:
    """A file of the token cache, between two runs on the same text."""
    bench.write_texts()
    words = [
        "--config=configs/language_modeling.py:diagonal,smoke",
        "--config.model.width=8",
        f"--config.task.data={bench.data}/*.jsonl",
        "--config.task.tokenizer=bpe:270",
        "--config.train.length=[16,16]",
        "--config.eval.lengths=[[16,16]]",
        "--config.eval.headline=[16,16]",
        *TINY,
    ]
    expected = bench.whole("text", words)
    cache, workdir = bench.copy(bench.base / "cache"), bench.new_folder() / "run"
    file = rng.choice(files_in(cache))
    what = f"{file.name}: {damage(file, rng)}"
    with mock.patch.dict(os.environ, LRNN_CACHE_DIR=str(cache)):
        ended = bench.call("train", *words, f"--workdir={workdir}")
    return what, judge(ended, lambda: read_runs(workdir), expected)


def damaged_record(bench: Bench, rng: random.Random) -> tuple[str, str]:
    """A record of a table that is drawn again from its records."""
    results = bench.base / "results"
    table, setting = "grazzi2025_fig1", "cpu"
    if not results.exists():
        _keep_records(bench, table, setting, results)
    copy = bench.copy(results)
    words = ["reproduce", table, f"--setting={setting}", "--render", f"--results={copy}"]
    expected = (results / table / setting / "table.md").read_text()
    file = rng.choice(files_in(copy / "runs"))
    how = damage(file, rng)
    ended, drawn = bench.call(*words), copy / table / setting / "table.md"
    verdict = judge(ended, drawn.read_text, expected)
    if how == "removed" and ended.code == 0 and "missing" in drawn.read_text():
        verdict = "shown as missing"
    return f"{file.name}: {how}", verdict


def _keep_records(bench: Bench, table: str, setting: str, results: Path) -> None:
    """Makes records of a run's numbers for a table: what is drawn does not ask whether they were trained."""
    from lrnn_jax.tables.declaring import Table, list_runs, load_experiment
    from lrnn_jax.tables.records import save_record

    (result,) = (run[0] for run in bench.whole("run", PARITY).values())
    metrics = {**result["metrics"], "scaled_accuracy": 0.5}
    said = {**result, "metrics": metrics, "validation": {"scaled_accuracy": [[100, 0.25], [400, 0.5]]}, "wall_time_s": 1.0}
    said.pop("curves", None)
    declared = load_experiment(table)
    assert isinstance(declared, Table)
    for run in list_runs(declared, setting):
        save_record(run, said, results / "runs")
    ended = bench.call("reproduce", table, f"--setting={setting}", "--render", f"--results={results}")
    assert ended.code == 0, ended.said


def removed_under_it(bench: Bench, rng: random.Random) -> tuple[str, str]:
    """A run's folder or a part of it is removed while the run writes it; then the same command again."""
    expected, workdir = bench.whole("run", PARITY), bench.new_folder() / "run"
    process = bench.start("train", *PARITY, f"--workdir={workdir}")
    while not _saved(workdir) and process.poll() is None:
        time.sleep(0.01)
    part = rng.choice(["", "checkpoints", ".lock", "config.json", "metrics.jsonl"])
    time.sleep(rng.uniform(0.0, 0.5))
    for _ in range(2):  # the first may meet a file that has just been made
        subprocess.run(["rm", "-rf", str(workdir / part)], stderr=subprocess.DEVNULL)
    first = judge(bench.wait(process), lambda: read_runs(workdir), expected)
    if first.startswith("WRONG"):
        return part or "the folder", first
    second = judge(bench.call("train", *PARITY, f"--workdir={workdir}"), lambda: read_runs(workdir), expected)
    return part or "the folder", f"{first}, then {second}" if not second.startswith("WRONG") else second


KINDS: dict[str, Fault] = {
    "signal": signal_run,
    "sweep": signal_sweep,
    "disk": full_disk,
    "inodes": no_inodes,
    "checkpoint": damaged_checkpoint,
    "run": damaged_run,
    "store": damaged_store,
    "cache": damaged_cache,
    "record": damaged_record,
    "removed": removed_under_it,
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Returns the command's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(KINDS), help="kinds, such as signal,disk (default: all)")
    parser.add_argument("--count", type=int, default=15, help="faults of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn at random; with the count it names the faults")
    parser.add_argument("--out", type=Path, help="file of the table (default: standard output)")
    options = parser.parse_args(argv)
    options.out = options.out and options.out.absolute()
    for kind in options.only.split(","):
        if kind not in KINDS:
            parser.error(f"--only={kind}: not one of {', '.join(KINDS)}")
    if options.count < 1:
        parser.error(f"--count={options.count} must be at least 1")
    return options


def run(argv: list[str] | None = None) -> int:
    """Tries the faults and writes the table; returns how many ended wrongly."""
    options = parse(argv)
    os.chdir(Path(__file__).parents[1])  # the configs are named from there
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as base:
        bench = Bench(Path(base))
        for kind in options.only.split(","):
            for i in range(options.count):
                what, ended = KINDS[kind](bench, random.Random(f"{kind} {options.seed} {i}"))
                rows.append((kind, what, ended))
                print(f"{kind}  {what}  {ended}", file=sys.stderr, flush=True)
    table = render(rows)
    if options.out:
        options.out.write_text(table)
    else:
        print(table, end="")
    return sum(ended.startswith("WRONG") for _, _, ended in rows)


def render(rows: list[tuple[str, str, str]]) -> str:
    """Returns two Markdown tables: how many faults of each kind ended how, and all of them."""
    counts = collections.Counter((kind, ended.partition(":")[0]) for kind, _, ended in rows)
    lines = [f"{len(rows)} faults, {sum(ended.startswith('WRONG') for *_, ended in rows)} ended wrongly.", ""]
    lines += ["| kind | ended in | faults |", "|---|---|---|"]
    lines += [f"| {kind} | {ended} | {count} |" for (kind, ended), count in sorted(counts.items())]
    lines += ["", "| kind | fault | ended in |", "|---|---|---|"]
    lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(min(run(), 100))
