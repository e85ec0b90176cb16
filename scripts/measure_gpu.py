"""Measures on a GPU what is worth knowing about one, in pieces, in the time there is.

    python scripts/measure_gpu.py --minutes=10 --out=DIR                  # the first items without a result, in order
    python scripts/measure_gpu.py --minutes=3 --out=DIR --only=methods
    python scripts/measure_gpu.py --show=DIR                              # the results as Markdown tables

From the root of a checkout. Each piece's rows are written to DIR/ITEM.json as soon as it has ended, and the script, started
again, goes on where it was. What stands in scripts/results/gpu is not measured again unless --only names its item, and what has
failed is tried again only then. Times are to be compared within one run, which has one card; every piece names its run.
--tiny takes sizes for a CPU and writes DIR/ITEM-tiny.json.

Items: correct (scans, decoding, a kill), methods (every scan's ways of running), seeds (many runs in one program). A new one is
a function from ``tiny`` to its pieces (`scripts.gpu.pieces.Piece`) and an entry in `ITEMS`.
"""

import argparse
import functools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lrnn_jax.config.files import load_own_config
from lrnn_jax.runs.origin import describe_origin
from scripts.gpu import correct, methods, seeds
from scripts.gpu.pieces import Compiled, Piece, attempt

ITEMS: Mapping[str, Callable[[bool], list[Piece]]] = {
    "correct": correct.list_pieces,
    "methods": methods.list_pieces,
    "seeds": seeds.list_pieces,
}
COMMITTED = Path(__file__).resolve().parent / "results" / "gpu"
TINY = "-tiny"
WORKERS = os.cpu_count() or 1
# Pieces whose programs are compiled side by side before the first of them runs.
TOGETHER = max(1, min(4, WORKERS // 4))


class Results:
    """One item's file: the runs that worked on it, and each piece's rows."""

    def __init__(self, name: str, folder: Path, origin: Mapping[str, Any]) -> None:
        self.name, self.origin, self.file = name, origin, folder / f"{name}.json"
        self.content: dict[str, Any] = (
            json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {"runs": [], "pieces": {}}
        )
        self.run = len(self.content["runs"])

    def add(self, piece: str, entry: Mapping[str, Any]) -> None:
        """Adds a piece's result and replaces the file."""
        if len(self.content["runs"]) == self.run:
            self.content["runs"].append(self.origin)
        self.content["pieces"][piece] = {"run": self.run, **entry}
        temporary = self.file.with_suffix(".partial")
        temporary.write_text(format_results(self.content), encoding="utf-8")
        temporary.replace(self.file)


def format_results(content: Mapping[str, Any]) -> str:
    """JSON with one line per run and per piece."""
    runs = ",\n".join(f"  {json.dumps(run)}" for run in content["runs"])
    pieces = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in content["pieces"].items())
    return f'{{\n "runs": [\n{runs}\n ],\n "pieces": {{\n{pieces}\n }}\n}}\n'


def has_failed(entry: Mapping[str, Any]) -> bool:
    """Whether a piece, or a row of it, has failed."""
    return "failed" in entry or any("failed" in row for row in entry.get("rows", []))


def find_pending(pieces: Sequence[Piece], results: Results, *, named: bool) -> list[Piece]:
    """Returns the pieces that are still to be measured."""
    done = {key for key, entry in results.content["pieces"].items() if not (named and has_failed(entry))}
    committed = COMMITTED / results.file.name
    if not named and committed.exists():
        done |= set(json.loads(committed.read_text(encoding="utf-8"))["pieces"])
    return [piece for piece in pieces if piece.name not in done]


def measure(pieces: Sequence[Piece], results: Results, deadline: float, *, quickly: bool = False) -> bool:
    """Measures the pieces, some at a time, as long as the next are likely to end in time; returns whether all were.

    ``quickly`` lets XLA optimise little.
    """
    options = {"xla_backend_optimization_level": 0} if quickly else None
    for first in range(0, len(pieces), TOGETHER):
        group = pieces[first : first + TOGETHER]
        if time.monotonic() + max(piece.seconds for piece in group) > deadline:
            say(f"{results.name}: {len(pieces) - first} pieces are left for another time")
            return False
        began = time.monotonic()
        with ThreadPoolExecutor(WORKERS) as pool:
            lowered = [attempt(functools.partial(_start_compiling, pool, options, piece)) for piece in group]
        say(f"{results.name}: {sum(map(len, lowered))} programs compiled in {time.monotonic() - began:.0f} s")
        for piece, programs in zip(group, lowered, strict=True):
            began = time.monotonic()
            entry = programs if "failed" in programs else attempt(functools.partial(_run, piece, programs))
            results.add(piece.name, {"seconds": round(time.monotonic() - began, 1), **entry})
            say(f"{results.name}: {piece.name} {_outcome(entry)}, {deadline - time.monotonic():.0f} s left")
    return True


def _outcome(entry: Mapping[str, Any]) -> str:
    wrong = sum(not row.get("passed", True) for row in entry.get("rows", []))
    return "FAILED" if has_failed(entry) else f"done, {wrong} NOT PASSED" if wrong else "done"


def _run(piece: Piece, programs: Compiled) -> dict[str, Any]:
    return {"rows": piece.run(programs)}


def _start_compiling(pool: ThreadPoolExecutor, options: Any, piece: Piece) -> dict[str, Any]:
    return {name: pool.submit(program.compile, options) for name, program in piece.programs().items()}


def show(folder: Path) -> str:
    """Returns a Markdown table for each item that has results in the folder, and a line for each failed piece."""
    parts = []
    for name in (f"{item}{ending}" for item in ITEMS for ending in ("", TINY)):
        file = folder / f"{name}.json"
        if not file.exists():
            continue
        content = json.loads(file.read_text(encoding="utf-8"))
        parts += [f"## {name}", "", *(f"* run {i}: {_describe(run)}" for i, run in enumerate(content["runs"])), ""]
        several = len(content["runs"]) > 1
        entries = content["pieces"].items()
        rows = [{**({"run": e["run"]} if several else {}), **row} for _, e in entries for row in e.get("rows", [])]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        if checks := [row["passed"] for row in rows if "passed" in row]:
            parts += [f"{sum(checks)} of {len(checks)} checks passed.", ""]
        parts += [
            _line(columns),
            _line(["---"] * len(columns)),
            *(_line([row.get(c, "") for c in columns]) for row in rows),
            "",
        ]
        parts += [*(f"* {piece} failed: {entry['failed']}" for piece, entry in entries if "failed" in entry), ""]
    return "\n".join(parts)


def _describe(run: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return f"{run['device']}; {versions}; commit {run['git_commit']}; {run['date']}"


def _line(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(_format(cell) for cell in cells)} |"


def _format(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_format(part) for part in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def say(text: str) -> None:
    """Prints a line at once."""
    print(text, flush=True)


def stop_at(deadline: float) -> None:
    """Ends the process at the deadline, whatever it is compiling: everything measured by then is on disk."""

    def stop() -> None:
        say("the time is up; what was under way is left for another time")
        os._exit(0)

    timer = threading.Timer(deadline - time.monotonic(), stop)
    timer.daemon = True
    timer.start()


def main(argv: Sequence[str]) -> int:
    """Measures or shows; returns 1 where something measured now has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="time to take at most")
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"items, of {', '.join(ITEMS)}")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU")
    parser.add_argument("--show", type=Path, help="prints the results in a folder")
    flags = parser.parse_args(argv)
    if flags.show:
        print(show(flags.show))
        return 0
    if not flags.minutes or not flags.out:
        parser.error("--minutes and --out, or --show, must be given")
    if unknown := sorted(set(flags.only or []) - set(ITEMS)):
        parser.error(f"--only: unknown item {unknown[0]!r}; there are {', '.join(ITEMS)}")
    deadline = time.monotonic() + 60 * flags.minutes
    stop_at(deadline)
    return run_items(flags.out, deadline, only=flags.only, tiny=flags.tiny)


def run_items(folder: Path, deadline: float, *, only: Sequence[str] | None, tiny: bool) -> int:
    """Measures what is pending of the items, in order; returns 1 where something has failed, else 0."""
    folder.mkdir(parents=True, exist_ok=True)
    origin = describe_origin(load_own_config("configs/parity.py"))
    origin = {"date": origin.pop("finished_at"), **{key: value for key, value in origin.items() if key != "config_hash"}}
    say(f"{origin['device']}, jax {origin['versions']['jax']}, commit {origin['git_commit']}")
    failed = False
    for name in only or ITEMS:
        results = Results(f"{name}{TINY if tiny else ''}", folder, origin)
        pending = find_pending(ITEMS[name](tiny), results, named=bool(only))
        say(f"{results.name}: {len(pending)} pieces to measure")
        ended = measure(pending, results, deadline, quickly=tiny)
        measured = [results.content["pieces"].get(piece.name, {}) for piece in pending]
        failed = failed or any(map(has_failed, measured))
        if not ended:
            break
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
