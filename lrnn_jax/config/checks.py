"""What a config may not say: refused before anything is compiled."""

import importlib.util
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ml_collections import ConfigDict

from lrnn_jax.config.durations import interval_steps, train_steps
from lrnn_jax.config.fields import COMPONENTS, LARGEST, base_fields, flatten, own_fields, show_value
from lrnn_jax.errors import UserError, name_fields, suggest
from lrnn_jax.registry import build_task, check_model, load_layer, load_task

DTYPES = ("float32", "bfloat16")
_ABSENT = object()


def validate_config(config: ConfigDict) -> None:
    """Refuses what cannot run, before anything is compiled.

    Raises:
      UserError: one line that names the field, the rule and the nearest right value.
    """
    check_fields(config)
    layer = load_layer(config.model.layer.name)
    _check_sizes(config)
    task = build_task(config.task)
    _check_layer(config, layer)
    _check_choices(config, layer)
    _check_ranges(config)
    _check_recurrent_lr(config, layer)
    _check_lengths(config, task)
    check_model(config.model, task, longest=max(longest for _, longest in (config.train.length, *config.eval.lengths)))
    _check_durations(config)
    _check_batches(config)
    if config.log.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise UserError("log.tensorboard=True needs the extra: pip install -e '.[tensorboard]'")
    if config.eval.patience and not config.eval.best_metric:
        raise UserError(f"eval.patience={config.eval.patience} needs eval.best_metric")


def check_fields(config: ConfigDict) -> None:
    """Refuses what is no config: fields that are missing or too many, for its layer and task too, or of another type.

    Raises:
      UserError: one line that names the field.
    """
    check_types(config)
    _check_sections(config)
    _check_component("model.layer", config.model.layer, load_layer(config.model.layer.name))
    _check_component("task", config.task, load_task(config.task.name))


def _check_layer(config: ConfigDict, layer: Any) -> None:
    """A layer speaks of its arguments; here they are fields."""
    paths = {"width": "model.width", **{name: f"model.layer.{name}" for name in config.model.layer}}
    try:
        layer.check({"width": config.model.width, **config.model.layer})
    except ValueError as error:
        raise UserError(name_fields(str(error), paths)) from error


# The upper ends are far above what any machine trains: they catch a slip of the keyboard, before it asks for the memory.
_RANGES = (
    ("seed", 0, 2**32 - 1),
    ("seeds", 1, 100_000),
    ("model.width", 1, 2**20),
    ("model.depth", 1, 512),
    ("model.mixer_hidden", 0, 2**22),
    ("model.norm_eps", 1e-30, 1.0),
    ("model.norm_momentum", 0.0, 0.9999999),
    ("model.dropout", 0.0, 0.999),
    ("model.max_length", 0, 2**24),
    ("optim.lr", 0.0, 1e6),
    ("optim.final_lr", 0.0, 1e6),
    ("optim.recurrent_lr", -1.0, 1e6),
    ("optim.weight_decay", 0.0, 1e6),
    ("optim.beta1", 0.0, 0.9999999),
    ("optim.beta2", 0.0, 0.9999999),
    ("optim.eps", 1e-30, 1.0),
    ("optim.clip_norm", 0.0, 1e30),
    ("train.batch_size", 1, 2**24),
    ("train.microbatches", 1, 2**24),
    ("train.steps_per_dispatch", 1, 10**6),
    ("eval.examples", 0, 2**24),
    ("eval.batch_size", 1, 2**24),
    ("eval.patience", 0, 10**6),
    ("checkpoint.keep", 1, 10**6),
)


def _check_ranges(config: ConfigDict) -> None:
    fields = dict(flatten(config))
    for path, low, high in _RANGES:
        if not low <= fields[path] <= high:
            raise UserError(f"{path}={fields[path]} must be between {low:.10g} and {high:.10g}")


# As above, of integers of layers and tasks. A convolution and the writes of a position are compiled one by one.
_SIZES = {"conv_width": 256, "householders": 64, "train_examples": 2**31 - 1, "map_seed": 2**32 - 1}
_SIZE = 2**24


def _check_sizes(config: ConfigDict) -> None:
    for section, own in (("task", config.task), ("model.layer", config.model.layer)):
        for name, value in own.items():
            most = _SIZES.get(name, _SIZE)
            if type(value) is int and value > most:
                raise UserError(f"{section}.{name}={value} must be at most {most}")


def _check_recurrent_lr(config: ConfigDict, layer: Any) -> None:
    factor = config.optim.recurrent_lr
    if factor >= 0.0 and not any(multipliers.get("recurrent") for multipliers in layer.PARAM_GROUPS.values()):
        name = config.model.layer.name
        raise UserError(f"optim.recurrent_lr={factor} has no effect on {name!r}, which sets none apart; leave it at -1")


def check_types(config: ConfigDict) -> None:
    """Refuses a value of another type than its field's, and numbers that no field is meant for.

    Raises:
      UserError: names the field, its type and what it holds.
    """
    names = {f"{section}.name": "" for section in COMPONENTS}
    _compare_types(config, {**base_fields(), **names})
    own: dict[str, Any] = {}
    for section, load in zip(COMPONENTS, (load_task, load_layer), strict=True):
        name = _find(config, f"{section}.name")
        if name is not _ABSENT:
            with suppress(UserError):  # said where the name is used
                own |= {f"{section}.{field}": value for field, value in own_fields(load(name)).items()}
    _compare_types(config, own)


def _compare_types(config: ConfigDict, defaults: Mapping[str, Any]) -> None:
    for path, default in defaults.items():
        value, kind = _find(config, path), type(default)
        if value is _ABSENT:
            continue  # said of the whole section
        if type(value) is not kind and not (kind is list and isinstance(value, tuple)):
            raise UserError(f"{path}={show_value(value)} must be {kind.__name__}, not {type(value).__name__}")
        for number in _numbers(value):
            if isinstance(number, int) and abs(number) > LARGEST:
                raise UserError(f"{path}={show_value(value)} must be between {-LARGEST} and {LARGEST}")
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f"{path}={show_value(value)} must be a finite number")


def _find(config: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(config, (ConfigDict, dict)) or part not in config:
            return _ABSENT
        config = config[part]
    return config


def _numbers(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _numbers(item)
    else:
        yield value


def _check_choices(config: ConfigDict, layer: Any) -> None:
    for path, choices in {
        "model.dtype": DTYPES,
        "model.scan": ("auto", *layer.METHODS),
        "optim.schedule": ("cosine", "constant"),
        "log.wandb": ("off", "offline", "online"),
    }.items():
        _check_choice(config, path, choices)


def _check_durations(config: ConfigDict) -> None:
    total = train_steps(config)
    if total < 1:
        raise UserError(f"train.duration={config.train.duration!r} is no training at all")
    for path in ("eval.every", "checkpoint.every", "log.every"):
        if interval_steps(config, path, least=0) < 1:
            raise UserError(f"{path}={config[path]!r} must be more than nothing")
    profile = config.log.profile
    steps = re.fullmatch(r"([0-9]{1,10}):([0-9]{1,10})", profile)
    if profile and not (steps and int(steps[1]) < int(steps[2]) <= total):
        raise UserError(
            f"log.profile={show_value(profile)} must be FIRST:LAST, steps from 0 to {total}, such as '{total // 2}:{total}'"
        )
    if interval_steps(config, "optim.warmup", least=0) > total:
        raise UserError(f"optim.warmup={config.optim.warmup!r} is longer than train.duration={config.train.duration!r}")


def _check_batches(config: ConfigDict) -> None:
    size = config.train.batch_size
    if size % config.train.microbatches:
        raise UserError(f"train.microbatches={config.train.microbatches} must divide train.batch_size={size}")
    if config.train.microbatches > 1 and config.model.norm == "batchnorm":
        raise UserError("model.norm='batchnorm' takes its statistics over a whole batch: train.microbatches must be 1")
    if 0 < config.task.get("train_examples", 0) < size:
        raise UserError(f"task.train_examples={config.task.train_examples} is less than train.batch_size={size}")
    if config.task.get("train_examples", 0) * size >= 2**31:
        raise UserError(f"task.train_examples={config.task.train_examples} times train.batch_size={size} must be below 2^31")


def _check_sections(config: ConfigDict) -> None:
    """A config file may build its sections by hand, and a run may come from an older version."""
    own = tuple(f"{section}." for section in COMPONENTS)
    expected = {*base_fields(), *(f"{section}name" for section in own)}
    present = {path for path, _ in flatten(config) if not path.startswith(own) or path in expected}
    for path in sorted(expected - present):
        raise UserError(f"the config has no field {path!r}{suggest(path, present - expected)}")
    for path in sorted(present - expected):
        raise UserError(f"unknown config field {path!r}{suggest(path, expected)}")


def _check_component(section: str, config: ConfigDict, cls: type) -> None:
    known, advice = own_fields(cls), f"set_field, or --config.{section}.name=NAME, changes the name and the fields together"
    for key in known:
        if key not in config:
            raise UserError(f"{section}.{key} is missing, which {config.name!r} needs ({advice})")
    for key in config:
        if key != "name" and key not in known:
            raise UserError(f"{section}.{key} is not a field of {config.name!r}{suggest(key, known)} ({advice})")
    if config.get("revision", 0) != known.get("revision", 0):
        raise UserError(f"{section}.revision={config.revision}, but this version makes data of revision {known['revision']}")


def _check_choice(config: ConfigDict, path: str, choices: Sequence[str]) -> None:
    section, name = path.split(".")
    value = config[section][name]
    if value not in choices:
        raise UserError(f"{path}={value!r} is not one of {', '.join(choices)}{suggest(value, choices)}")


def _check_lengths(config: ConfigDict, task: Any) -> None:
    pairs = [("train.length", config.train.length), ("eval.headline", config.eval.headline)]
    pairs += [("eval.lengths", bucket) for bucket in config.eval.lengths]
    for path, pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(type(n) is int for n in pair):
            raise UserError(f"{path}={show_value(pair)} must be [shortest, longest], two integers")
        if max(pair) > _SIZE:
            raise UserError(f"{path}={list(pair)} must be at most {_SIZE} positions")
        if path != "eval.headline":
            task.check_length(path, tuple(pair))
    buckets = sorted(list(bucket) for bucket in config.eval.lengths)
    for one, other in itertools.pairwise(buckets):
        if other[0] <= one[1]:
            raise UserError(
                f"eval.lengths: {one} and {other} overlap; keep them apart, or the headline counts what is in both twice"
            )
    low, high = config.eval.headline
    if not any(low <= shortest and longest <= high for shortest, longest in config.eval.lengths):
        raise UserError(f"eval.headline={[low, high]} contains none of eval.lengths={config.eval.lengths.__repr__()}")
