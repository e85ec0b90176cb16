"""Where a result comes from, and what has changed since."""

import functools
import hashlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from lrnn_jax.config.identity import config_hash
from lrnn_jax.errors import UserError
from lrnn_jax.registry import load_layer, load_task

# What JAX reads from the environment and what changes the numbers of the same config, seed and code.
SETTINGS = ("jax_enable_x64", "jax_default_prng_impl", "jax_threefry_partitionable", "jax_default_matmul_precision")
# The rooms whose code decides a run's numbers.
_ROOMS = ("scans", "parts", "layers", "models", "data", "tasks", "training")


def describe_origin(config: ConfigDict) -> dict[str, Any]:
    """Returns where a result comes from: config hash, digest of the code, JAX's settings, commit, versions, device."""
    classes = load_layer(config.model.layer.name), load_task(config.task.name)
    outside = sorted({cls.__module__ for cls in classes if not cls.__module__.startswith("lrnn_jax.")})
    settings = {name: getattr(jax.config, name) for name in SETTINGS}
    return {"config_hash": config_hash(config), "code": _hash_code(*outside), "settings": settings, **describe_machine()}


def find_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Returns in words what has changed between two origins that may change numbers; an empty string where nothing has.

    Args:
      old: what `describe_origin` returned then, or as much of it as was kept.
      new: what it returns now.
    """
    changes = []
    commits = [_shorten(origin.get("git_commit")) for origin in (old, new)]
    same_code = old.get("code") == new["code"]
    if "git_commit" in old and commits[0] != commits[1]:
        changes.append(f"commit {commits[0]} -> {commits[1]}" + (" (the code of layers and training is the same)" * same_code))
    elif (not same_code) if "code" in old else commits[0].endswith("+"):
        changes.append(f"the code (commit {commits[1]})")
    for part in ("versions", "settings"):
        before = old.get(part, {})
        changes += [f"{k} {before[k]} -> {v}" for k, v in new[part].items() if k in before and before[k] != v]
    # on a CPU XLA divides its work, and with it the sums, by cores
    devices = [name if "(cpu" in name else name.partition(" (")[0] for name in (old.get("device", ""), new["device"])]
    if devices[0] and devices[0] != devices[1]:
        changes.append(f"device {devices[0]} -> {devices[1]}")
    return ", ".join(changes)


def check_settings(old: Mapping[str, Any], new: Mapping[str, Any], place: str) -> None:
    """Refuses to go on with a run under other settings of JAX than it began with.

    Raises:
      UserError: names the setting and both values.
    """
    before = old.get("settings", {})
    for name, value in new["settings"].items():
        if name in before and before[name] != value:
            raise UserError(
                f"{place} was trained with {name}={before[name]}, and here it is {value}, which gives other numbers: set "
                f"{name.upper()}={before[name]}, or choose another --workdir"
            )


def describe_machine() -> dict[str, Any]:
    """Returns what made a result, but for its config: commit, versions, device."""
    packages = ("lrnn-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "x64": jax.numpy.zeros(()).dtype == "float64",
        "device": describe_device(),
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def describe_device() -> str:
    """Device, platform and how many cores this process may use, as ``AMD EPYC (cpu, 2 cores)``."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{device_name()} ({jax.default_backend()}, {cores} cores)"


def device_name() -> str:
    """The accelerator's name, or the processor's where there is none: results do not come back bit by bit on another."""
    if jax.default_backend() == "cpu":
        with suppress(OSError):
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "cpu")
        return platform.processor() or "cpu"
    return jax.devices()[0].device_kind


@functools.cache
def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


@functools.cache
def _hash_code(*outside: str) -> str:
    """The SHA-256 of the package's source that computes, and of the modules from outside that are named."""
    root = Path(__file__).resolve().parents[1]
    files = [file for room in _ROOMS for file in sorted((root / room).rglob("*.py"))]
    files += [Path(file) for name in outside if (file := getattr(sys.modules.get(name), "__file__", None))]
    digest = hashlib.sha256()
    for file in files:
        with suppress(OSError):
            digest.update(f"{file.name} ".encode() + file.read_bytes())
    return digest.hexdigest()


def _shorten(commit: str | None) -> str:
    return "unknown" if commit is None else commit[:9] + "+" * commit.endswith("+")


@functools.cache  # asked first when a run starts: a commit made while it runs is not what it runs
def _git_commit() -> str | None:
    """The checkout's commit, with ``+`` where tracked files were changed; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout.strip()

    if not (root / ".git").exists():
        return None
    try:
        # results are written while a table is under way: they are not the code that made them
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)experiments/results")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
