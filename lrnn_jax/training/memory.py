"""How much memory there is, on a device, on this system, in a container, and the least that a run takes of it."""

import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from lrnn_jax.errors import UserError


def free_memory() -> int:
    """Returns the bytes that a program may use: four fifths of what the device, or for a CPU the system, has left."""
    import jax

    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(0.8 * (stats["bytes_limit"] - stats.get("bytes_in_use", 0)))
    try:
        text = Path("/proc/meminfo").read_text()
        available = 1024 * int(re.findall(r"MemAvailable:\s+(\d+) kB", text)[0])
    except (OSError, IndexError):
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return int(0.8 * min(available, _container_memory()))


def refuse_too_large(parts: Mapping[str, int]) -> None:
    """Refuses what certainly does not fit, before it is compiled and anything is written.

    Args:
      parts: fields that ask for memory -> the least that they ask for, in bytes.

    Raises:
      UserError: names the fields that ask for most.
    """
    need, have = sum(parts.values()), free_memory() / 0.8
    if need > have:
        fields = max(parts, key=lambda name: parts[name])
        raise UserError(f"{fields}: at least {need / 2**30:.4g} GiB of memory are needed, and {have / 2**30:.4g} are free")


@contextmanager
def said_if_exhausted() -> Iterator[None]:
    """Turns what Python or XLA says of memory that is not there into one line.

    Raises:
      UserError: there is not enough; says what takes less.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = next(iter(str(error).splitlines()), "")
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in text:
            raise
        advice = "a smaller train.batch_size or eval.batch_size, more train.microbatches or model.remat=True take less"
        raise UserError(f"out of memory: {text[:200] or 'no more is to be had'}; {advice}") from error


def _container_memory(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float:
    """The least that the limits of this process's control groups leave, and of those around them; infinite without any."""
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        lines = []
    rooms = [math.inf]
    for _, controllers, path in lines or [["0", "", "/"]]:
        if controllers and "memory" not in controllers.split(","):
            continue
        names = _CGROUP_1 if controllers else _CGROUP_2
        folder = root / "memory" if controllers else root
        rooms.append(_group_memory(folder, *names))
        # inside a container the path may be the host's, of which nothing is seen there but the root
        for part in (part for part in path.split("/") if part not in ("", "..")):
            folder /= part
            rooms.append(_group_memory(folder, *names))
    return min(rooms)


_CGROUP_2 = ("memory.max", "memory.current", "inactive_file")
_CGROUP_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _group_memory(folder: Path, limit: str, usage: str, cache: str) -> float:
    try:
        used, most = int((folder / usage).read_text()), int((folder / limit).read_text())
    except (OSError, ValueError):
        return math.inf  # the root of all groups has no such files, and no limit is "max"
    with suppress(OSError, IndexError):
        # files that were read and may be forgotten count as used, but go when memory is asked for
        used -= int(re.findall(rf"^{cache} (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)[0])
    return max(0, min(most, most - used))
