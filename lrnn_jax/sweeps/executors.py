"""How the runs of a sweep are executed: one after another, side by side in one program, or on a Ray cluster."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from lrnn_jax.config.checks import validate_config
from lrnn_jax.config.identity import config_hash
from lrnn_jax.errors import UserError, suggest
from lrnn_jax.runs.folder import RunFolder
from lrnn_jax.runs.results import Result
from lrnn_jax.runs.store import default_workdir, read_status
from lrnn_jax.sweeps.packs import arrange, clear_programs, make_each, train_pack
from lrnn_jax.training.program import Program

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
    progress = _Progress(len(distinct), len(distinct) - len(todo))
    clear_programs(store)
    if executor == "ray" and todo:
        from lrnn_jax.sweeps.ray_executor import run_on_ray

        if made is None:
            make_each(todo)  # refused here, before a cluster is asked
        run_on_ray(todo, store, progress, address=ray_address, workers=workers)
    else:
        for program in arrange(todo, list(distinct.values()), store, executor=executor, made=made):
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
