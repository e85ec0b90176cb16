"""Which runs share a program, whether it fits into memory, and training what does."""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ml_collections import ConfigDict

from lrnn_jax.config.identity import config_hash, structure_key
from lrnn_jax.runs.files import write_json
from lrnn_jax.runs.folder import RunFolder
from lrnn_jax.runs.results import Result
from lrnn_jax.runs.store import default_workdir
from lrnn_jax.training.loop import train_members
from lrnn_jax.training.memory import free_memory
from lrnn_jax.training.program import Program, make_program

# Begins the name of a folder that is being removed.
_REMOVED = ".removed-"


def make_each(configs: Sequence[ConfigDict]) -> dict[str, Program]:
    """Returns one program of each structure, by `structure_key`; the other configs differ from it in numbers only.

    Raises:
      UserError: a config that cannot run.
    """
    made: dict[str, Program] = {}
    for config in configs:
        if structure_key(config) not in made:
            made[structure_key(config)] = make_program(config)
    return made


def arrange(
    todo: Sequence[ConfigDict],
    wanted: Sequence[ConfigDict],
    store: Path,
    *,
    executor: str,
    made: Mapping[str, Program] | None = None,
) -> Iterator[Program]:
    """Yields the programs to train, in order; all that can be refused is refused before the first.

    Args:
      todo: the runs to train.
      wanted: all runs of the sweep, finished ones included.
      store: folder of the runs.
      executor: "vmap" puts runs that can share a program into one; the others have one each.
      made: what `make_each` made of all runs; None makes it here.

    Raises:
      UserError: a config that cannot run.
    """
    groups = pack(todo, wanted, store) if executor == "vmap" else [[config] for config in todo]
    made = make_each(todo) if made is None else made
    for members in groups:
        program = made[structure_key(members[0])].with_members(members)
        # what was interrupted goes on as it was, whatever memory there is now
        interrupted = (_program_folder(program.configs, store) / "checkpoints").exists()
        yield from [program] if interrupted else split_to_fit(program)


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


def split_to_fit(program: Program) -> Iterator[Program]:
    """Yields the program in as few parts as fit into memory, by the compiler's account of one compiled call."""
    members = program.configs
    if len(members) > 1:
        need, have = program.memory(), free_memory()
        if need > have:
            print(f"{len(members)} runs at once need {need / 2**30:.1f} GiB of {have / 2**30:.1f}: split", file=sys.stderr)
            middle = len(members) // 2
            yield from split_to_fit(program.with_members(members[:middle]))
            yield from split_to_fit(program.with_members(members[middle:]))
            return
    yield program


def train_pack(program: Program, store: Path) -> list[Result]:
    """Trains a program's runs, each in its own folder of the store."""
    members = program.configs
    workdirs = [default_workdir(config, store) for config in members]
    if len(members) == 1:
        return train_members(program, workdirs, workdirs[0] / "checkpoints")
    folder = _program_folder(members, store)
    if not (folder / "members.json").exists():
        _remove(folder)  # a removal that was cut short has left something
    write_json(folder / "members.json", [workdir.name for workdir in workdirs])
    results = train_members(program, workdirs, folder / "checkpoints")
    _remove(folder)
    return results


def clear_programs(store: Path) -> None:
    """Removes the programs that will not be resumed, such as one that was killed between its last result and its end."""
    for folder, names in _programs(store):
        if not _can_go_on(folder, names):
            _remove(folder)
    for folder in (store / "programs").glob(f"{_REMOVED}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Removes a program's folder, which is none from the first moment on: a kill in between leaves nothing to resume."""
    removed = folder.with_name(_REMOVED + folder.name)
    if removed.exists():
        shutil.rmtree(removed, ignore_errors=True)
    with suppress(FileNotFoundError):
        folder.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def _program_folder(members: Sequence[ConfigDict], store: Path) -> Path:
    names = " ".join(config_hash(config) for config in members)
    return store / "programs" / hashlib.sha256(names.encode()).hexdigest()[:12]


def _programs(store: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yields the folder and the members of every program that has begun and not been cleared."""
    for file in sorted((store / "programs").glob("[!.]*/members.json")):
        try:
            names = json.loads(file.read_text(encoding="utf-8"))
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
