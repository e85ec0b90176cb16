"""What names a run: the hash of its config, what two configs differ in, and which runs can share a program."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from lrnn_jax.config.fields import flatten
from lrnn_jax.errors import UserError

# Sections that change what is written down, not what is computed.
UNHASHED_SECTIONS = ("checkpoint", "log")
# Fields younger than the committed records, each with the value at which it changes nothing: there it does not count.
ADDED = {"train.microbatches": 1}
MOST_SEEDS = 100_000
_TRACED = ("optim.lr", "optim.final_lr", "optim.weight_decay")


def config_hash(config: ConfigDict) -> str:
    """Returns 12 hexadecimal digits that name the resolved config's run; logging and checkpointing do not count."""
    return hashlib.sha256(json.dumps(_hashed_fields(config), sort_keys=True).encode()).hexdigest()[:12]


def differing_fields(config: ConfigDict, other: Mapping[str, Any]) -> list[str]:
    """Returns ``path: ours -> theirs`` for every hashed field in which two configs differ."""
    ours, theirs = (json.loads(json.dumps(_hashed_fields(fields))) for fields in (config, other))

    def show(fields: Mapping[str, Any], path: str) -> Any:
        return fields.get(path, ADDED.get(path, "(absent)"))

    paths = sorted({*ours, *theirs})
    return [f"{path}: {show(ours, path)} -> {show(theirs, path)}" for path in paths if show(ours, path) != show(theirs, path)]


def _hashed_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        path: value
        for path, value in flatten(config)
        if path.split(".")[0] not in UNHASHED_SECTIONS and (path not in ADDED or value != ADDED[path])
    }


def restore_config(fields: Mapping[str, Any]) -> ConfigDict:
    """Returns a stored run's config, with the fields that are younger than it at the values that change nothing."""
    config = ConfigDict(fields)
    for path, value in ADDED.items():
        section, name = path.split(".")
        if isinstance(config.get(section), ConfigDict) and name not in config[section]:
            config[section][name] = value
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
