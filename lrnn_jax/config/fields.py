"""Configs: their fields with defaults, and setting one by its dotted path."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import RequiredValueError

from lrnn_jax.errors import UserError, suggest
from lrnn_jax.registry import load_layer, load_task

# The sections that belong to one layer or task: a new name there means other fields.
COMPONENTS = ("task", "model.layer")
# No field is meant for an integer beyond this.
LARGEST = 2**63 - 1
_GIVEN = ("width", "depth", "index", "dtype", "parent", "name")


def base_config() -> ConfigDict:
    """Returns every field that all experiments share, with its default. A config file changes what differs."""
    c = ConfigDict()
    c.seed = 0  # integer; fixes initialisation, data and dropout
    c.seeds = 1  # runs with seed, seed + 1, ... trained side by side in one compiled program

    c.task = ConfigDict()  # see `task_config`

    c.model = ConfigDict()
    c.model.layer = ConfigDict()  # see `layer_config`
    c.model.width = 64  # D, features between blocks
    c.model.depth = 2  # L, blocks
    c.model.norm = "layernorm"  # layernorm | rmsnorm | batchnorm | none
    c.model.norm_eps = 1e-5  # added to the variance or the mean square
    c.model.norm_momentum = 0.95  # share of batchnorm's running statistics that a step keeps
    c.model.norm_bias = True  # layernorm and batchnorm have offsets
    c.model.norm_padding = True  # batchnorm's statistics count padding, as the code of S5 and LRU does
    c.model.norm_position = "pre"  # pre | post
    c.model.final_norm = True  # with pre, one more norm before the head
    c.model.mixer = "none"  # none | glu | half_glu1 | half_glu2 | mlp | swiglu | geglu
    c.model.mixer_hidden = 0  # hidden features of mlp, swiglu and geglu
    c.model.residual = True  # add each branch to its input
    c.model.dropout = 0.0  # probability
    c.model.positions = "none"  # vectors added to the encoded inputs: none | learned | sinusoidal
    c.model.max_length = 0  # longest sequence of the positions and of the head autoencoder; 0: any
    c.model.head = "last"  # last | mean | pair | regression: one answer per example; token | autoencoder: one per position
    c.model.head_bias = True  # the head's last linear map has a bias
    c.model.initial_values = "default"  # of all matrices outside the layer: default | released (normal, deviation 0.02)
    c.model.remat = False  # compute a block's activations again in the backward pass: less memory, more time
    c.model.scan_blocks = False  # run the blocks as a loop that is compiled once
    c.model.dtype = "float32"  # compute dtype: float32 | bfloat16; parameters and states are float32
    c.model.scan = "auto"  # how recurrences run: auto | sequential | associative | chunked | pallas

    c.optim = ConfigDict()  # AdamW
    c.optim.lr = 1e-3  # peak learning rate
    c.optim.final_lr = 1e-6  # learning rate at the end of the cosine
    c.optim.recurrent_lr = -1.0  # multiplies it for eigenvalues and input matrices of the recurrence; below 0: the layer's own
    c.optim.warmup = "10%"  # duration of the linear warm-up from 0; % of the training
    c.optim.schedule = "cosine"  # after the warm-up: cosine | constant
    c.optim.weight_decay = 0.0  # decoupled, multiplied with the learning rate
    c.optim.beta1 = 0.9  # decay of the first moment, per step
    c.optim.beta2 = 0.999  # decay of the second moment, per step
    c.optim.eps = 1e-8  # added to the root of the second moment
    c.optim.clip_norm = 0.0  # largest global gradient norm; 0 turns clipping off
    c.optim.groups = []  # [[regex on the parameter path, lr multiplier, weight-decay multiplier], ...] before the layer's

    c.train = ConfigDict()
    c.train.duration = "1000 steps"  # number and one of steps, examples, tokens, epochs
    c.train.batch_size = 64  # examples per step
    c.train.microbatches = 1  # equal parts of a batch, one after the other, for less memory: but for dropout, the same step
    c.train.length = [3, 40]  # shortest and longest training sequence, positions
    c.train.init_from = ""  # folder of a run, or of `lrnn export`, whose parameters it begins with; empty: the initial values
    c.train.steps_per_dispatch = 50  # optimiser steps inside one compiled call

    c.eval = ConfigDict()
    c.eval.every = "10%"  # duration between validations
    c.eval.lengths = [[40, 64]]  # length buckets [shortest, longest], positions
    c.eval.headline = [40, 256]  # buckets within these lengths make the metrics without a bucket in their name
    c.eval.examples = 1024  # examples of an evaluation set; 0: all that the files hold
    c.eval.batch_size = 128  # examples that are evaluated at a time
    c.eval.best_metric = ""  # validation metric whose best parameters (ties: lowest loss) are kept and tested too; empty: none
    c.eval.patience = 0  # validations without a better best_metric after which a run stops; 0: never

    c.checkpoint = ConfigDict()
    c.checkpoint.every = "10%"  # duration between checkpoints
    c.checkpoint.keep = 2  # newest checkpoints kept

    c.log = ConfigDict()
    c.log.every = "2%"  # duration between lines of metrics.jsonl
    c.log.profile = ""  # FIRST:LAST, steps that JAX's profiler traces into the folder "profile"; empty: none
    c.log.grad_norms = False  # also log the norm of each parameter group's gradients, as grad_norm/GROUP
    c.log.wandb = "off"  # off | offline | online
    c.log.wandb_project = "lrnn_jax"  # project name
    c.log.tensorboard = False  # also write TensorBoard events (extra: tensorboard)
    return c


def layer_config(name: str, **fields: Any) -> ConfigDict:
    """Returns the section ``model.layer``: the layer's own fields at their defaults, but for ``fields``."""
    return _component_config(load_layer(name), name, fields)


def task_config(name: str, **fields: Any) -> ConfigDict:
    """Returns the section ``task``: the task's own fields at their defaults, but for ``fields``."""
    return _component_config(load_task(name), name, fields)


def own_fields(cls: type) -> dict[str, Any]:
    """Returns a component's fields and defaults, without those that the backbone and the module system set.

    A task whose data have changed has one more, ``revision``, which names the runs by the data that they were trained on.

    Raises:
      UserError: a field without a default, or with one that no config can hold.
    """
    fields = {}
    for field in dataclasses.fields(cls):
        if field.name in _GIVEN:
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if not isinstance(default, (bool, int, float, str, list)):
            said = "no default" if default is dataclasses.MISSING else f"the default {default!r}"
            where = f"{cls.__module__}:{cls.__qualname__}"
            raise UserError(f"field {field.name!r} of {where} has {said}; a config holds bool, int, float, str and list")
        fields[field.name] = default
    revision = getattr(cls, "REVISION", 0)
    return fields | ({"revision": revision} if revision else {})


def default_fields(task: str, layer: str) -> dict[str, Any]:
    """Returns every field of a config of this task and this layer at its default, by dotted path."""
    fields = base_fields()
    for section, name, cls in (("task", task, load_task(task)), ("model.layer", layer, load_layer(layer))):
        fields |= {f"{section}.name": name, **{f"{section}.{field}": value for field, value in own_fields(cls).items()}}
    return fields


def base_fields() -> dict[str, Any]:
    """Returns every common field at its default, by dotted path."""
    return dict(_flat_base())


@functools.cache
def _flat_base() -> tuple[tuple[str, Any], ...]:
    return tuple(flatten(base_config()))


def _component_config(cls: type, name: str, fields: Mapping[str, Any]) -> ConfigDict:
    defaults = own_fields(cls)
    for key in fields:
        if key not in defaults:
            raise UserError(f"{name!r} has no field {key!r}{suggest(key, defaults)} (it has {', '.join(defaults) or 'none'})")
    return ConfigDict(
        {"name": name, **defaults, **{key: check_type(key, value, defaults[key]) for key, value in fields.items()}}
    )


def set_field(config: ConfigDict, path: str, value: Any) -> None:
    """Sets one field by its dotted path. Another name of a layer or a task brings that one's own fields along.

    Raises:
      UserError: no such field, layer or task, or a value of another type.
    """
    check_field(config, path)
    section, name = find_section(config, path)
    value = check_type(path, value, section[name])
    component = path.removesuffix(".name")
    if component in COMPONENTS and value != section[name]:
        renamed = (task_config if component == "task" else layer_config)(value)
        section, name = find_section(config, component)
        value = renamed.lock() if config.is_locked else renamed
    section[name] = value


def check_type(path: str, value: Any, old: Any) -> Any:
    """Returns a field's new value as it is kept: of the old one's type, an integer for a float as that float.

    Raises:
      UserError: another type; names the field at ``path``.
    """
    if isinstance(old, float) and type(value) is int and abs(value) <= LARGEST:
        return float(value)
    if isinstance(old, list) and isinstance(value, tuple):
        return list(value)
    if isinstance(old, ConfigDict) or not isinstance(value, type(old)) or isinstance(value, bool) != isinstance(old, bool):
        raise UserError(f"config field {path!r}={show_value(value)}: it holds {type(old).__name__}")
    return value


def show_value(value: Any) -> str:
    """Returns a value as Python writes it, on one line, however large it is."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no integer of more than 4300 digits
        text = "an integer of thousands of digits"
    return text if len(text) <= 100 else f"{text[:97]}..."


def find_section(config: ConfigDict, path: str) -> tuple[ConfigDict, str]:
    """Returns the section that holds a dotted path's field, and the field's own name."""
    *sections, name = path.split(".")
    for section in sections:
        config = config[section]
    return config, name


def check_field(config: ConfigDict, path: str) -> None:
    """Refuses a dotted path that the config lacks.

    Raises:
      UserError: names the nearest field at the level where the path leaves the config.
    """
    level: Any = config
    parts = path.split(".")
    for i, part in enumerate(parts):
        if not isinstance(level, ConfigDict) or part not in level:
            here = ".".join(parts[:i])
            prefix = f"{here}." if here else ""
            if not isinstance(level, ConfigDict):
                raise UserError(f"config field {here!r} holds a value, not a section: {path!r} does not exist")
            nearest = suggest(part, level)
            # a guess is enough of fields that all configs share
            rest = "" if nearest and here not in COMPONENTS else f" ({here or 'config'} has {', '.join(level)})"
            raise UserError(f"unknown config field {prefix + part!r}{nearest}{rest}")
        level = level[part]


def thaw(config: ConfigDict) -> ConfigDict:
    """Returns a copy of plain sections and values, whatever frozen sections, references or placeholders a config is made of.

    A placeholder without a value holds None.

    Raises:
      UserError: it is no config at all.
    """
    if not isinstance(config, ConfigDict):
        raise UserError(f"config: {type(config).__name__} {config!r:.80} is no config; lrnn_jax.get_config(FILE) reads one")
    copy = ConfigDict()
    for key, value in config.items(preserve_field_references=True):
        try:
            value = value.get() if isinstance(value, FieldReference) else value
        except RequiredValueError:
            value = None
        copy[key] = thaw(value) if isinstance(value, ConfigDict) else _as_lists(value)
    return copy


def _as_lists(value: Any) -> Any:
    """Frozen sections hold tuples for lists."""
    return [_as_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted path, value) of every field."""
    for key, value in config.items():
        if isinstance(value, (ConfigDict, dict)):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
