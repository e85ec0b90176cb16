"""Where a result comes from."""

import os
import platform
import subprocess
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from lrnn_jax.config.identity import config_hash


def describe_origin(config: ConfigDict) -> dict[str, Any]:
    """Returns where a result comes from: config hash, commit, versions, device."""
    return {"config_hash": config_hash(config), **describe_machine()}


def describe_machine() -> dict[str, Any]:
    """Returns what made a result, but for its config: commit, versions, device."""
    packages = ("lrnn-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "x64": jax.numpy.zeros(()).dtype == "float64",
        "device": f"{device_name()} ({jax.default_backend()}, {os.cpu_count()} cores)",
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def device_name() -> str:
    """The accelerator's name, or the processor's where there is none: results do not come back bit by bit on another."""
    if jax.default_backend() == "cpu":
        with suppress(OSError):
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "cpu")
        return platform.processor() or "cpu"
    return jax.devices()[0].device_kind


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


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
