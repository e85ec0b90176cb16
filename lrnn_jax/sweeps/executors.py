"""How the runs of a sweep are executed: one after another, side by side in one program, or on a Ray cluster."""

import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from lrnn_jax.config.checks import validate_config
from lrnn_jax.config.durations import train_steps
from lrnn_jax.config.fields import flatten
from lrnn_jax.config.identity import config_hash
from lrnn_jax.errors import UserError, suggest
from lrnn_jax.runs.folder import RunFolder
from lrnn_jax.runs.naming import name_runs
from lrnn_jax.runs.results import Result
from lrnn_jax.runs.store import default_workdir, read_status
from lrnn_jax.sweeps.packs import arrange, clear_programs, make_each, train_pack
from lrnn_jax.training.loggers import clock
from lrnn_jax.training.program import Program


class Name(NamedTuple):
    """What people call a run: ``what`` it is, such as row and column of a table, and its ``seed``."""

    what: str
    seed: int


EXECUTORS = ("vmap", "local", "ray")


def execute(
    configs: Sequence[ConfigDict],
    store: Path,
    *,
    executor: str = "vmap",
    retry_failed: bool = False,
    ray_address: str | None = None,
    workers: int | None = None,
    check: bool = True,
    made: Mapping[str, Program] | None = None,
    progress: "Progress | None" = None,
) -> list[Result | None]:
    """Trains what is missing of ``configs`` in ``store``; finished runs are never run again.

    Args:
      configs: resolved configs, one per run; equal ones are one run.
      store: folder of the runs.
      executor: "vmap" (runs that can share a program are trained side by side), "local" (one after another), "ray".
      retry_failed: tries failed runs again: alone from their last good state, several of one program from the start.
      ray_address: cluster to run on; None starts one on this machine.
      workers: runs at a time on that machine; None for one per core.
      check: validates the configs; False where that has been done.
      made: what `lrnn_jax.sweeps.packs.make_each` made of them; None makes it here.
      progress: what says how far it is, where these are a part of more; None says it of these.

    Returns:
      Each config's result; None where another process's failure left none.

    Raises:
      UserError: a config that cannot run, an unknown executor, or a cluster that does not answer.
    """
    check_executor(executor)
    for config in configs if check else ():
        validate_config(config)
    distinct = {config_hash(config): config for config in configs}
    todo = [c for c in distinct.values() if is_due(c, store, retry_failed)]
    due = {config_hash(config) for config in todo}
    progress = progress or Progress(distinct, name_configs(list(distinct.values())), due)
    clear_programs(store)
    if executor == "ray" and todo:
        from lrnn_jax.sweeps.ray_executor import run_on_ray

        if made is None:
            make_each(todo)  # refused here, before a cluster is asked
        run_on_ray(todo, store, progress, address=ray_address, workers=workers)
    else:
        for program in arrange(todo, list(distinct.values()), store, executor=executor, made=made):
            progress.begin([config_hash(config) for config in program.configs])
            progress([result for result in train_pack(program, store) if result["config_hash"] in due])
    return [RunFolder(default_workdir(config, store)).read_result(config) for config in configs]


def check_executor(name: str) -> None:
    """Refuses an executor that there is not.

    Raises:
      UserError: names the nearest.
    """
    if name not in EXECUTORS:
        raise UserError(f"--executor={name!r} is not one of {', '.join(EXECUTORS)}{suggest(name, EXECUTORS)}")


def is_due(config: ConfigDict, store: Path, retry_failed: bool) -> bool:
    """Says whether a run is to be trained: it is not finished, and has not failed unless failed ones are tried again."""
    status = read_status(config, store)
    if status == "failed" and not retry_failed:
        result = RunFolder(default_workdir(config, store)).read_result(config)
        reason = result and result["reason"]
        print(f"{default_workdir(config, store)} failed before ({reason}); --retry_failed tries again", file=sys.stderr)
        return False
    return status != "finished"


class Progress:
    """What runs now, by names for people; one line per ended run; and the time left for all of them."""

    def __init__(self, configs: Mapping[str, ConfigDict], names: Mapping[str, Name], due: Collection[str]) -> None:
        """Takes all runs by their hashes, what they are called, and which are to be trained."""
        self._names, self._total, self._due = names, len(configs), len(due)
        self._began, self._ended = time.monotonic(), 0
        # runs of more steps on more or longer examples take longer
        self._work = {name: _count_positions(configs[name]) for name in due}
        self._worked = 0
        if len(due) < self._total:
            print(f"{self._total - len(due)} of {self._total} runs are there already", file=sys.stderr)

    def begin(self, members: Sequence[str]) -> None:
        """Says which runs are trained next."""
        seeds: dict[str, list[str]] = {}
        for name in members:
            what, seed = self._names.get(name, Name(name, 0))
            seeds.setdefault(what, []).append(str(seed))
        shown = [f"{what}, seed{'s' if len(own) > 1 else ''} {', '.join(own)}" for what, own in seeds.items()]
        more = f"; and {len(shown) - 3} more" if len(shown) > 3 else ""
        done = self._total - self._due + self._ended
        print(f"next: {'; '.join(shown[:3])}{more}  ({done} of {self._total} runs done{self._left()})", file=sys.stderr)

    def __call__(self, results: Sequence[Result]) -> None:
        """Says how runs have ended."""
        for result in results:
            name = result["config_hash"]
            self._ended += 1
            self._worked += self._work.get(name, 0)
            what, seed = self._names.get(name, Name(name, 0))
            said = result.get("reason") if result["status"] == "failed" else _headline(result)
            done = self._total - self._due + self._ended
            print(f"[{done}/{self._total}] {what}, seed {seed}  {name}  {result['status']}  {said}", file=sys.stderr)
        if results and self._ended < self._due:
            print(f"{self._due - self._ended} of {self._total} runs left{self._left()}", file=sys.stderr)

    def _left(self) -> str:
        if not self._worked:
            return ""
        seconds = (time.monotonic() - self._began) / self._worked * (sum(self._work.values()) - self._worked)
        return f", about {clock(seconds)} left for all"


def name_configs(configs: Sequence[ConfigDict]) -> dict[str, Name]:
    """Returns what each run is called by what it differs in from the others, by its hash."""
    names = name_runs([dict(flatten(config)) for config in configs], seeds=False)
    return {config_hash(config): Name(name, config.seed) for config, name in zip(configs, names, strict=True)}


def _count_positions(config: ConfigDict) -> int:
    return train_steps(config) * config.train.batch_size * config.train.length[1]


def _headline(result: Result) -> str:
    values = {name: value for name, value in result["metrics"].items() if "/" not in name}
    return "  ".join(f"{name} {value:.4f}" for name, value in values.items())
