"""What names a run: the hash of its config, what two configs differ in, and which runs can share a program.

A field's neutral value is the one that it had, in effect, before it existed: the default at its introduction. Only what differs
from it counts, at any depth, so that a new field renames no run, and a run that is older than a field is read with its neutral
value. Where a default changes later, the neutral value stays: in `NEUTRAL` here, or in the mapping ``NEUTRAL`` (field -> value)
of the layer's or task's class.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from lrnn_jax.config.fields import COMPONENTS, base_fields, flatten, own_fields
from lrnn_jax.errors import UserError
from lrnn_jax.registry import load_layer, load_task

# Sections that change what is written down, not what is computed.
UNHASHED_SECTIONS = ("checkpoint", "log")
# Dotted path -> neutral value, of common fields whose default is another by now.
NEUTRAL: dict[str, Any] = {}
MOST_SEEDS = 100_000
_TRACED = ("optim.lr", "optim.final_lr", "optim.recurrent_lr", "optim.weight_decay")


def config_hash(config: Mapping[str, Any]) -> str:
    """Returns 12 hexadecimal digits that name the run of a resolved config: of what differs from the neutral values.

    The names of layer and task always count; logging and checkpointing never do.
    """
    return name_fields(named_fields(config))


def named_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a run's name is the hash of: the fields that differ from the neutral values, by dotted path."""
    values, neutral = _full_fields(config), neutral_fields(config)
    return {path: value for path, value in values.items() if path not in neutral or value != neutral[path]}


def name_fields(fields: Mapping[str, Any]) -> str:
    """Returns the name of the run whose `named_fields` these are."""
    return hashlib.sha256(json.dumps(dict(fields), sort_keys=True).encode()).hexdigest()[:12]


def neutral_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the neutral value of every field of the config's sections, its layer and its task, by dotted path.

    A layer or task that cannot be found has none: all its fields count.
    """
    fields = base_fields() | NEUTRAL
    values = dict(flatten(config))
    for section, load in zip(COMPONENTS, (load_task, load_layer), strict=True):
        try:
            cls = load(str(values.get(f"{section}.name")))
        except UserError:
            continue
        own = own_fields(cls) | getattr(cls, "NEUTRAL", {})
        own |= {"revision": 0} if "revision" in own else {}
        fields |= {f"{section}.{name}": value for name, value in own.items()}
    return fields


def differing_fields(config: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Returns ``path: ours -> theirs`` for every hashed field in which two configs differ."""
    ours, theirs = _full_fields(config), _full_fields(other)

    def show(fields: Mapping[str, Any], path: str) -> Any:
        return fields.get(path, "(absent)")

    paths = sorted({*ours, *theirs})
    return [f"{path}: {show(ours, path)} -> {show(theirs, path)}" for path in paths if show(ours, path) != show(theirs, path)]


def _full_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every hashed field by dotted path, absent ones at their neutral values, as JSON keeps them."""
    neutral = neutral_fields(config)
    fields = {**neutral, **dict(flatten(config))}
    for path, value in fields.items():
        if type(value) is int and isinstance(neutral.get(path), float):
            fields[path] = float(value)
    return json.loads(json.dumps({path: v for path, v in fields.items() if path.split(".")[0] not in UNHASHED_SECTIONS}))


def restore_config(fields: Mapping[str, Any]) -> ConfigDict:
    """Returns a stored run's config, with the fields that are younger than it at their neutral values."""
    config = ConfigDict(fields)
    for path, value in neutral_fields(fields).items():
        section_path, _, name = path.rpartition(".")
        section: Any = config
        for part in filter(None, section_path.split(".")):
            section = section.get(part) if isinstance(section, ConfigDict) else None
        if isinstance(section, ConfigDict) and name not in section:
            section[name] = value
    return config


def traced_values(config: ConfigDict) -> dict[str, Any]:
    """Returns the fields that compiled programs take as arguments, so that runs which differ in them can share one.

    These are the seed, the learning rates, the weight decay and the layer's own float fields, which by contract are values
    and never structure.
    """
    own = {f"model.layer.{name}": value for name, value in config.model.layer.items() if isinstance(value, float)}
    return {"seed": config.seed, **{path: config.optim[path.partition(".")[2]] for path in _TRACED}, **own}


def structure(config: ConfigDict) -> dict[str, Any]:
    """Returns every field but the traced ones: what two runs of one program must have in common."""
    traced = traced_values(config)
    return {path: value for path, value in flatten(config) if path not in traced and path != "seeds"}


def structure_key(config: ConfigDict) -> str:
    """Returns `structure` as text: runs with the same text can share a program."""
    return json.dumps(structure(config), sort_keys=True)


def split_seeds(config: ConfigDict) -> list[ConfigDict]:
    """Returns one config for each of the ``seeds`` seeds from ``seed`` on, as a run of its own would have it.

    Raises:
      UserError: no seeds, or more than can be meant.
    """
    if not 1 <= config.seeds <= MOST_SEEDS:
        raise UserError(f"seeds={config.seeds} must be between 1 and {MOST_SEEDS}")
    members = []
    for i in range(config.seeds):
        member = ConfigDict(config)
        member.seed, member.seeds = config.seed + i, 1
        members.append(member)
    return members
