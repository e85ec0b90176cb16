"""How the runs of a sweep are executed: one after another, side by side in one program, or on a Ray cluster."""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lrnn_jax.config.checks import validate_config
from lrnn_jax.config.identity import config_hash, structure_key
from lrnn_jax.errors import UserError, suggest
from lrnn_jax.runs.folder import RunFolder, write_json
from lrnn_jax.runs.store import default_workdir, read_status
from lrnn_jax.sweeps.memory import free_memory
from lrnn_jax.training.loop import train_members
from lrnn_jax.training.program import make_program

EXECUTORS = ("vmap", "local", "ray")
Result = dict[str, Any]


def execute(
    configs: Sequence[ConfigDict],
    store: Path,
    *,
    executor: str = "vmap",
    retry_failed: bool = False,
    ray_address: str | None = None,
    workers: int | None = None,
) -> list[Result | None]:
    """Trains what is missing of ``configs`` in ``store``; finished runs are never run again.

    Args:
      configs: resolved configs, one per run; equal ones are one run.
      store: folder of the runs.
      executor: "vmap" (runs that can share a program are trained side by side), "local" (one after another), "ray".
      retry_failed: tries failed runs again: alone from their last good state, several of one program from the start.
      ray_address: cluster to run on; None starts one on this machine.
      workers: runs at a time on that machine; None for one per core.

    Returns:
      Each config's result; None where another process's failure left none.

    Raises:
      UserError: a config that cannot run, an unknown executor, or a cluster that does not answer.
    """
    check_executor(executor)
    for config in configs:
        validate_config(config)
    for config in {structure_key(config): config for config in configs}.values():
        make_program(config)  # what only the model knows is refused before the first run too
    distinct = {config_hash(config): config for config in configs}
    todo = [c for c in distinct.values() if is_due(c, store, retry_failed)]
    due = {config_hash(config) for config in todo}
    progress = _Progress(len(distinct), len(distinct) - len(todo))
    _clear_programs(store)
    if executor == "ray" and todo:
        from lrnn_jax.sweeps.ray_executor import run_on_ray

        run_on_ray(todo, store, progress, address=ray_address, workers=workers)
    else:
        for members in arrange(todo, list(distinct.values()), store, executor=executor):
            progress([result for result in train_pack(members, store) if result["config_hash"] in due])
    return [RunFolder(default_workdir(config, store)).read_result() for config in configs]


def check_executor(name: str) -> None:
    """Refuses an executor that there is not.

    Raises:
      UserError: names the nearest.
    """
    if name not in EXECUTORS:
        raise UserError(f"--executor={name!r} is not one of {', '.join(EXECUTORS)}{suggest(name, EXECUTORS)}")


def arrange(
    todo: Sequence[ConfigDict], wanted: Sequence[ConfigDict], store: Path, *, executor: str
) -> Iterator[list[ConfigDict]]:
    """Yields the members of every program that will be compiled, in order; arguments as `pack`, and the executor."""
    for members in pack(todo, wanted, store) if executor == "vmap" else [[config] for config in todo]:
        # what was interrupted goes on as it was, whatever memory there is now
        interrupted = (_program_folder(members, store) / "checkpoints").exists()
        yield from [members] if interrupted else split_to_fit(members)


def pack(todo: Sequence[ConfigDict], wanted: Sequence[ConfigDict], store: Path) -> list[list[ConfigDict]]:
    """Groups runs that can share a program; a program that was interrupted keeps its members.

    Args:
      todo: the runs to train.
      wanted: all runs of the sweep, finished ones included.
      store: folder of the runs.
    """
    by_name = {config_hash(config): config for config in wanted}
    left = {config_hash(config): config for config in todo}
    packs = []
    for folder, names in _programs(store):
        members = [by_name[name] for name in names if name in by_name]
        wanted_whole = len(members) == len(names) and any(name in left for name in names)
        if wanted_whole and _can_go_on(folder, names) and len({structure_key(config) for config in members}) == 1:
            packs.append(members)
            left = {name: config for name, config in left.items() if name not in names}
    shared: dict[str, list[ConfigDict]] = {}
    for config in left.values():
        shared.setdefault(structure_key(config), []).append(config)
    return packs + list(shared.values())


def split_to_fit(members: list[ConfigDict]) -> Iterator[list[ConfigDict]]:
    """Yields the members in as few parts as fit into memory, by the compiler's account of one compiled call."""
    if len(members) > 1:
        need, have = make_program(*members).memory(), free_memory()
        if need > have:
            print(f"{len(members)} runs at once need {need / 2**30:.1f} GiB of {have / 2**30:.1f}: split", file=sys.stderr)
            middle = len(members) // 2
            yield from split_to_fit(members[:middle])
            yield from split_to_fit(members[middle:])
            return
    yield members


def train_pack(members: Sequence[ConfigDict], store: Path) -> list[Result]:
    """Trains runs that share a program, each in its own folder of the store."""
    workdirs = [default_workdir(config, store) for config in members]
    if len(members) == 1:
        return train_members(members, workdirs, workdirs[0] / "checkpoints", verbose=False)
    folder = _program_folder(members, store)
    write_json(folder / "members.json", [workdir.name for workdir in workdirs])
    results = train_members(members, workdirs, folder / "checkpoints", verbose=False)
    shutil.rmtree(folder, ignore_errors=True)
    return results


def _program_folder(members: Sequence[ConfigDict], store: Path) -> Path:
    names = " ".join(config_hash(config) for config in members)
    return store / "programs" / hashlib.sha256(names.encode()).hexdigest()[:12]


def _programs(store: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yields the folder and the members of every program that has begun and not been cleared."""
    for file in sorted((store / "programs").glob("*/members.json")):
        try:
            names = json.loads(file.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(names, list):
            yield file.parent, names


def _can_go_on(folder: Path, names: Sequence[str]) -> bool:
    """Says whether a program is to be resumed: some member has not ended, and no member's folder has been removed since."""
    runs = [RunFolder(folder.parent.parent / name) for name in names]
    begun = any((folder / "checkpoints").glob("[0-9]*"))
    removed = begun and not all(run.config_file.exists() for run in runs)
    return not removed and any(run.read_result() is None for run in runs)


def _clear_programs(store: Path) -> None:
    """Removes the programs that will not be resumed, such as one that was killed between its last result and its end."""
    for folder, names in _programs(store):
        if not _can_go_on(folder, names):
            shutil.rmtree(folder, ignore_errors=True)


def is_due(config: ConfigDict, store: Path, retry_failed: bool) -> bool:
    """Says whether a run is to be trained: it is not finished, and has not failed unless failed ones are tried again."""
    status = read_status(config, store)
    if status == "failed" and not retry_failed:
        reason = (RunFolder(default_workdir(config, store)).read_result() or {}).get("reason")
        print(f"{default_workdir(config, store)} failed before ({reason}); --retry_failed tries again", file=sys.stderr)
        return False
    return status != "finished"


class _Progress:
    """One line per ended run, with the time left."""

    def __init__(self, total: int, done: int) -> None:
        self._began, self._total, self._done, self._done_before = time.monotonic(), total, done, done
        if done:
            print(f"{done} of {total} runs are there already", file=sys.stderr)

    def __call__(self, results: Sequence[Result]) -> None:
        for result in results:
            self._done += 1
            said = result.get("reason") if result["status"] == "failed" else _headline(result)
            print(f"[{self._done}/{self._total}] {result['config_hash']}  {result['status']}  {said}", file=sys.stderr)
        left = self._total - self._done
        if left > 0 and results:
            seconds = (time.monotonic() - self._began) / (self._done - self._done_before) * left
            print(f"about {seconds / 60:.0f} min left for {left} runs", file=sys.stderr)


def _headline(result: Result) -> str:
    values = {name: value for name, value in result["metrics"].items() if "/" not in name}
    return "  ".join(f"{name} {value:.4f}" for name, value in values.items())
