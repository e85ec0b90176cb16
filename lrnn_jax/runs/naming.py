"""Runs as people tell them apart: by the fields that differ between them, and averaged over their seeds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
HEADLINES = ("accuracy", "bits_per_byte", "loss", "perplexity", "scaled_accuracy")


def differing_fields(rows: Sequence[Row]) -> list[str]:
    """Returns the fields, by dotted path, that differ between runs and that task and layer alone do not decide."""
    values: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        for path in (path for path in row if "." in path):
            chosen = () if path.startswith("optim.") else (str(row.get("task.name")), str(row.get("model.layer.name")))
            values.setdefault((path, *chosen), set()).add(repr(row[path]))
    return sorted({path for (path, *_), found in values.items() if len(found) > 1})


def name_runs(rows: Sequence[Row], *, seeds: bool = True) -> list[str]:
    """Returns a name for each run, such as ``mamba,lr=0.01,seed=1``: its layer, and what it differs in from the others.

    Args:
      rows: the runs' fields by dotted path.
      seeds: whether the seed is part of it, where there are several.
    """
    paths = differing_fields(rows)
    last = [path.rpartition(".")[2] for path in paths]
    short = [name if last.count(name) == 1 else path for name, path in zip(last, paths, strict=True)]
    several = {name: len({repr(row.get(name)) for row in rows}) > 1 for name in ("task.name", "seed")}
    names = []
    for row in rows:
        parts = [str(row["task.name"])] if several["task.name"] and "task.name" in row else []
        parts.append(str(row.get("model.layer.name", row.get("run", "?"))))
        parts += [f"{name}={_show(row[path])}" for name, path in zip(short, paths, strict=True) if path in row]
        parts += [f"seed={row['seed']}"] if seeds and several["seed"] and "seed" in row else []
        names.append(",".join(parts))
    return names


def average_runs(rows: Sequence[Row], by: Sequence[str], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Returns one row for all runs that are equal in some fields, in the order in which they come.

    Args:
      rows: as `lrnn_jax.runs.store.read_rows` returns them.
      by: the fields.
      metrics: what is averaged over the finished runs among them.

    Returns:
      The fields; ``runs`` and ``finished``, how many there are; and of each metric the mean by its name, the sample's standard
      deviation as ``NAME_sd`` (None of a single run), and ``NAME_min`` and ``NAME_max``.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(repr([row.get(path) for path in by]), []).append(row)
    found = []
    for group in groups.values():
        finished = [row for row in group if row.get("status") == "finished"]
        means: dict[str, Any] = {path: group[0].get(path) for path in by}
        means |= {"runs": len(group), "finished": len(finished)}
        for name in metrics:
            numbers = [row[name] for row in finished if isinstance(row.get(name), (int, float))]
            means |= _describe(name, numbers) if numbers else {}
        found.append(means)
    return found


def _describe(name: str, numbers: Sequence[float]) -> dict[str, float | None]:
    count, mean = len(numbers), math.fsum(numbers) / len(numbers)
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in numbers) / (count - 1)) if count > 1 else None
    return {name: mean, f"{name}_sd": spread, f"{name}_min": min(numbers), f"{name}_max": max(numbers)}


def _show(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace(" ", "")
