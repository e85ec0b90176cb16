"""AdamW with regex parameter groups whose coverage is checked, and the learning-rate schedule."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lrnn_jax.errors import UserError
from lrnn_jax.runs.parameters import parameter_paths

Tree = Any


@dataclasses.dataclass(frozen=True)
class Group:
    """Parameters that share multipliers.

    Attributes:
      source: who asks for it: "config", a layer's class name or "backbone".
      pattern: regex on the parameter's path: the whole path for config and backbone, the path within for a layer.
      lr: multiplies the learning rate.
      wd: multiplies the weight decay.
      paths: the parameters.
      sizes: their numbers of elements.
    """

    source: str
    pattern: str
    lr: float
    wd: float
    paths: tuple[str, ...]
    sizes: tuple[int, ...]


def assign_groups(
    params: Tree,
    *,
    config_rules: Sequence[Sequence[Any]],
    layer_name: str,
    layer_rules: Mapping[str, Mapping[str, float]],
    backbone_rules: Mapping[str, Mapping[str, float]],
) -> list[Group]:
    """Puts every parameter into exactly one group; the config's rules win over the layer's and the backbone's.

    Args:
      params: the model's parameters (arrays or shapes).
      config_rules: [[regex, lr multiplier, weight-decay multiplier], ...] on whole paths.
      layer_name: name of the layer for messages and tables.
      layer_rules: the layer's PARAM_GROUPS, matched on what follows ``/layer/``.
      backbone_rules: for everything else, matched on whole paths.

    Raises:
      UserError: a parameter that no rule or two rules of one source match, or a config rule that matches nothing.
    """
    try:
        own = {str(pattern): {"lr": float(lr), "wd": float(wd)} for pattern, lr, wd in config_rules}
        for pattern, multipliers in own.items():
            re.compile(pattern)
            if not all(math.isfinite(m) and m >= 0.0 for m in multipliers.values()):
                raise ValueError(f"the multipliers of {pattern!r} must be finite and not negative")
        patterns = [str(rule[0]) for rule in config_rules]
        if len(own) < len(patterns):
            raise ValueError(f"{next(p for p in patterns if patterns.count(p) > 1)!r} stands there twice")
    except (TypeError, ValueError, re.error) as error:
        raise UserError(f"optim.groups must be [[regex, lr multiplier, wd multiplier], ...]: {error}") from error
    members: dict[tuple[str, str], list[tuple[str, int]]] = {("config", pattern): [] for pattern in own}
    rules = {"config": own, layer_name: layer_rules, "backbone": backbone_rules}
    for path, leaf in zip(parameter_paths(params), jax.tree.leaves(params), strict=True):
        key = _find_rule(path, layer_name, rules)
        members.setdefault(key, []).append((path, int(np.prod(leaf.shape))))
    for (source, pattern), found in members.items():
        if not found:
            raise UserError(f"optim.groups: {pattern!r} matches no parameter ({source} rule; paths look like {path!r})")
    return [
        Group(
            source,
            pattern,
            float(rules[source][pattern]["lr"]),
            float(rules[source][pattern]["wd"]),
            tuple(path for path, _ in found),
            tuple(size for _, size in found),
        )
        for (source, pattern), found in members.items()
    ]


def _find_rule(path: str, layer_name: str, rules: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    inside = path.partition("/layer/")[2]
    for source, subject in (("config", path), (layer_name, inside) if inside else ("backbone", path)):
        found = [pattern for pattern in rules[source] if re.search(pattern, subject)]
        if len(found) > 1:
            raise UserError(f"parameter {path!r} matches {len(found)} groups of {source}: {', '.join(found)}")
        if found:
            return source, found[0]
    raise UserError(f"parameter {path!r} matches no group of {layer_name if inside else 'backbone'}")


def format_groups(groups: Sequence[Group]) -> str:
    """Returns the groups as a table for people."""
    rows = [("group", "parameters", "elements", "lr x", "wd x")]
    for group in groups:
        name = f"{group.source}: {group.pattern}"
        rows.append((name, str(len(group.paths)), f"{sum(group.sizes):,}", f"{group.lr:g}", f"{group.wd:g}"))
    rows.append(("total", str(sum(len(g.paths) for g in groups)), f"{sum(sum(g.sizes) for g in groups):,}", "", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def make_schedule(optim: Any, *, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Returns learning rate of step: linear from 0 over the warm-up, then cosine to ``final_lr``, or constant."""
    if optim.schedule == "cosine":
        decay_steps = max(1, total_steps - warmup_steps)
        part = optax.cosine_decay_schedule(1.0, decay_steps)

        def after(step: Any) -> Any:
            return optim.final_lr + (optim.lr - optim.final_lr) * part(step)
    else:
        after = optax.constant_schedule(optim.lr)
    return optax.join_schedules([optax.linear_schedule(0.0, optim.lr, warmup_steps), after], [warmup_steps])


def make_optimizer(optim: Any, params: Tree, groups: Sequence[Group], schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns clipped AdamW: ``p -= lr(t) m_lr (adam(g) + weight_decay m_wd p)`` with each group's multipliers m.

    Args:
      optim: the config's section.
      params: parameters, for the tree's structure.
      groups: from `assign_groups`.
      schedule: from `make_schedule`.
    """
    multipliers = {path: (group.lr, group.wd) for group in groups for path in group.paths}
    treedef = jax.tree.structure(params)
    paths = parameter_paths(params)
    lr_tree = jax.tree.unflatten(treedef, [multipliers[path][0] for path in paths])
    wd_tree = jax.tree.unflatten(treedef, [multipliers[path][1] * optim.weight_decay for path in paths])

    def decay_and_scale(updates: Tree, params: Tree) -> Tree:
        return jax.tree.map(lambda u, p, m, wd: m * (u + wd * p), updates, params, lr_tree, wd_tree)

    return optax.chain(
        optax.clip_by_global_norm(optim.clip_norm) if optim.clip_norm else optax.identity(),
        optax.scale_by_adam(b1=optim.beta1, b2=optim.beta2, eps=optim.eps, mu_dtype=jnp.float32),
        optax.stateless(decay_and_scale),
        optax.scale_by_learning_rate(schedule),
    )
