"""From sums and weights to means: per member, per evaluation set, and over the headline lengths."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.tasks.base import EvaluationSet, Length, Sums, Task


class Measured(NamedTuple):
    """One member's evaluation.

    Attributes:
      metrics: means by name, per evaluation set and over the headline lengths.
      curves: means by position of each evaluation set, of what the task has curves of; None where nothing was weighed.
    """

    metrics: dict[str, float]
    curves: dict[str, list[float | None]]


def add_sums(before: Sums, new: Sums) -> Sums:
    """Returns the new sums with those before. A name that was not there before, such as `log.grad_norms` adds, begins here."""
    return {name: jax.tree.map(jnp.add, before[name], pair) if name in before else pair for name, pair in new.items()}


def member_means(task: Task, sums: Sums, members: int) -> list[dict[str, Any]]:
    """Returns each member's means: a float of every metric, and of curves a list, where None stands for no weight.

    Several members are stacked. A metric whose sums are a vector is the mean over the entries that have weight.
    """
    host = {name: [np.asarray(x) for x in pair] for name, pair in sums.items()}
    if members == 1:
        host = {name: [x[None] for x in pair] for name, pair in host.items()}
    return [
        {name: _mean(total[i], weight[i], curve=name not in task.METRICS) for name, (total, weight) in host.items()}
        for i in range(members)
    ]


def average(task: Task, sums: Mapping[EvaluationSet, Sums], members: int, headline: Length) -> list[Measured]:
    """Returns each member's metrics per set (``accuracy/40-64``) and over the sets within the headline lengths (``accuracy``).

    The headline weighs each set by the lengths it spans: lengths are uniform over the whole range.
    """
    measured = [Measured({}, {}) for _ in range(members)]
    parts: list[dict[str, list[tuple[float, int]]]] = [{} for _ in range(members)]
    for each, own in sums.items():
        shortest, longest = each.length
        within = headline[0] <= shortest and longest <= headline[1]
        for member, means in enumerate(member_means(task, own, members)):
            for name, value in {**means, **task.derive(means)}.items():
                kind = measured[member].curves if isinstance(value, list) else measured[member].metrics
                kind[f"{name}/{each.name}"] = value
                if within and name in means and not isinstance(value, list):
                    parts[member].setdefault(name, []).append((value, longest - shortest + 1))
    for (metrics, _), found in zip(measured, parts, strict=True):
        own_means = {
            name: sum(value * span for value, span in pairs) / sum(span for _, span in pairs) for name, pairs in found.items()
        }
        metrics.update({**own_means, **task.derive(own_means)})
    return measured


def _mean(total: np.ndarray, weight: np.ndarray, *, curve: bool) -> Any:
    mean = total / np.maximum(weight, 1e-30)
    if curve and weight.ndim:
        return [value if some else None for value, some in zip(mean.tolist(), weight, strict=True)]
    if weight.ndim:
        return float(np.mean(mean[weight > 0])) if (weight > 0).any() else float("nan")
    return mean.tolist()
