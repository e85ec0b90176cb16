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
# Dotted paths of config fields, and "seed", to their values: arrays inside a compiled program.
Hyper = Mapping[str, Any]


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
      recurrent: ``optim.recurrent_lr`` stands in for ``lr``, unless it is below 0.
    """

    source: str
    pattern: str
    lr: float
    wd: float
    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    recurrent: bool = False

    def factor(self, recurrent_lr: Any) -> Any:
        """Returns what multiplies the learning rate, with the config's ``optim.recurrent_lr``, which may be traced."""
        return jnp.where(recurrent_lr < 0.0, self.lr, recurrent_lr) if self.recurrent else self.lr


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
            bool(rules[source][pattern].get("recurrent", False)),
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
    if not inside:
        raise UserError(f"parameter {path!r} matches no group of backbone")
    todo = f"add r'^{re.escape(inside)}$': MATRICES, or NO_DECAY, of lrnn_jax.parts.layer to its PARAM_GROUPS"
    raise UserError(f"parameter {path!r} matches no group of {layer_name}; {todo}")


def format_groups(groups: Sequence[Group], recurrent_lrs: Sequence[float] = (-1.0,)) -> str:
    """Returns the groups as a table for people, with the factors of runs that have these ``optim.recurrent_lr``."""
    rows = [("group", "parameters", "elements", "lr x", "wd x")]
    for group in groups:
        name = f"{group.source}: {group.pattern}"
        factors = "/".join(dict.fromkeys(f"{float(group.factor(factor)):g}" for factor in recurrent_lrs))
        rows.append((name, str(len(group.paths)), f"{sum(group.sizes):,}", factors, f"{group.wd:g}"))
    rows.append(("total", str(sum(len(g.paths) for g in groups)), f"{sum(sum(g.sizes) for g in groups):,}", "", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Clipped AdamW: ``p -= lr(t) m_lr (adam(g) + weight_decay m_wd p)`` with each group's multipliers m.

    The learning rate is linear from 0 to ``lr`` over the warm-up, then follows a cosine to ``final_lr`` or stays constant.
    ``lr``, ``final_lr``, ``recurrent_lr`` and ``weight_decay`` are hyper-parameters: arguments of a step and no fields.

    Attributes:
      groups: from `assign_groups`.
      schedule: "cosine" or "constant", after the warm-up.
      warmup_steps: steps of the warm-up.
      total_steps: steps of the training, at whose end the cosine is.
      beta1: decay of the first moment, per step.
      beta2: decay of the second moment, per step.
      eps: added to the root of the second moment.
      clip_norm: largest global norm of the gradients; 0 turns clipping off.
    """

    groups: tuple[Group, ...]
    schedule: str
    warmup_steps: int
    total_steps: int
    beta1: float
    beta2: float
    eps: float
    clip_norm: float

    def learning_rate(self, hyper: Hyper) -> optax.Schedule:
        """Returns the learning rate as a function of the step."""
        lr, final_lr = hyper["optim.lr"], hyper["optim.final_lr"]
        if self.schedule == "cosine":
            part = optax.cosine_decay_schedule(1.0, max(1, self.total_steps - self.warmup_steps))

            def after(step: Any) -> Any:
                return final_lr + (lr - final_lr) * part(step)
        else:
            after = optax.constant_schedule(lr)
        return optax.join_schedules([optax.linear_schedule(0.0, lr, self.warmup_steps), after], [self.warmup_steps])

    def transformation(self, hyper: Hyper) -> optax.GradientTransformation:
        """Returns the optimiser with the hyper-parameters.

        Args:
          hyper: ``optim.lr``, ``optim.final_lr`` and ``optim.weight_decay``; ``optim.recurrent_lr`` where it is not -1.
        """
        recurrent_lr = hyper.get("optim.recurrent_lr", -1.0)
        multipliers = {path: (group.factor(recurrent_lr), group.wd) for group in self.groups for path in group.paths}

        def decay_and_scale(updates: Tree, params: Tree) -> Tree:
            factors = [multipliers[path] for path in parameter_paths(params)]
            lr_tree, wd_tree = (jax.tree.unflatten(jax.tree.structure(params), factor) for factor in zip(*factors, strict=True))
            decay = hyper["optim.weight_decay"]
            return jax.tree.map(lambda u, p, m, wd: m * (u + (wd * decay) * p), updates, params, lr_tree, wd_tree)

        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm) if self.clip_norm else optax.identity(),
            optax.scale_by_adam(b1=self.beta1, b2=self.beta2, eps=self.eps, mu_dtype=jnp.float32),
            optax.stateless(decay_and_scale),
            optax.scale_by_learning_rate(self.learning_rate(hyper)),
        )
