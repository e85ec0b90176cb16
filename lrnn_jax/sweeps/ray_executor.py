"""Runs on a Ray cluster: one task per run; what a dead worker held is tried again and resumes from its checkpoint."""

import json
import logging
import os
import socket
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lrnn_jax.errors import Interrupted, UserError
from lrnn_jax.runs.results import Result
from lrnn_jax.runs.store import default_workdir

# How often a run may lose its worker: machines go away now and then, but what needs too much memory dies every time.
RETRIES = 5


def run_on_ray(
    configs: Sequence[ConfigDict],
    store: Path,
    report: Callable[[list[Result]], None],
    *,
    address: str | None,
    workers: int | None,
) -> None:
    """Trains every config as one Ray task in ``store``, which all machines of the cluster must see.

    Args:
      configs: resolved configs.
      store: folder of the runs.
      report: called with the results as they come.
      address: cluster to run on; None starts one on this machine.
      workers: tasks at a time on that machine; None for one per core.

    Raises:
      UserError: Ray is not installed, or nobody answers at the address.
    """
    ray = _import_ray()
    if not ray.is_initialized():
        _connect(address, workers)
    try:
        gpus = min(1, ray.cluster_resources().get("GPU", 0))
        # a worker is used once: the next run starts in a fresh process, and memory goes back to the system
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES, max_calls=1)(train_one)
        places = {task.remote(config.to_json(), str(store.absolute())): default_workdir(config, store) for config in configs}
        waiting = list(places)
        while waiting:
            (done,), waiting = ray.wait(waiting, num_returns=1)
            try:
                report([json.loads(ray.get(done))])
            except ray.exceptions.WorkerCrashedError:
                print(f"{places[done]}: its worker died {RETRIES + 1} times; out of memory?", file=sys.stderr)
            except ray.exceptions.RayTaskError as error:  # what the run itself has raised
                print(f"{places[done]}: {_last_line(error.cause or error)}", file=sys.stderr)
            except ray.exceptions.RayError as error:  # its machine went away, or had too little memory, too often
                print(f"{places[done]}: {type(error).__name__}", file=sys.stderr)
    finally:
        ray.shutdown()


def check_cluster(address: str | None) -> None:
    """Joins the cluster at the address for `run_on_ray`, or with None only looks whether one could be started.

    Raises:
      UserError: as `run_on_ray`.
    """
    if _import_ray() and address:
        _connect(address, None)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UserError("--executor=ray needs the extra: pip install -e '.[ray]'") from error
    return ray


def _connect(address: str | None, workers: int | None) -> None:
    ray = _import_ray()
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray forks this process only to start others
    warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
    if address and address != "auto":
        _check_answers(address)
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(num_cpus=workers, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"--ray_address={address!r}: no Ray cluster answers there ({reason})") from error


def _last_line(error: BaseException) -> str:
    text = str(error) if isinstance(error, UserError) else "".join(traceback.format_exception_only(error))
    return next(reversed(text.strip().splitlines()), "")


def _check_answers(address: str) -> None:
    """Ray itself waits for half a minute, and says so in many lines."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10.0).close()
    except (OSError, ValueError) as error:
        raise UserError(f"--ray_address={address!r}: nobody answers there ({error})") from error


def train_one(config: str, store: str) -> str:
    """Trains one run in a worker; configs and results travel as JSON."""
    from lrnn_jax.sweeps.packs import train_pack
    from lrnn_jax.training.program import make_program

    try:
        (result,) = train_pack(make_program(ConfigDict(json.loads(config))), Path(store))
    except Interrupted:
        os._exit(1)  # as if killed: Ray tries again elsewhere what has died, but not what has raised
    return json.dumps(result)
