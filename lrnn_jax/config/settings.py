"""Settings of a config file: ordered rules that say which fields differ from their defaults, for which layers, and why.

::

    CPU = Setting(
        on({"model.width": 32, "optim.lr": 1e-2}),
        on({"model.layer.key_activation": "linear"}, layer="deltanet deltaproduct", why="keys of mixed sign"),
    )
    SETTINGS = {"cpu": CPU, "smoke": CPU + on({"train.duration": "100 steps"})}
    get_config = Choices("parity", SETTINGS)

Later rules win. Every value remembers the rule that set it: ``lrnn config FILE`` prints both.
"""

import copy
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lrnn_jax.config.fields import base_config, check_type, default_fields, find_section
from lrnn_jax.errors import UserError, suggest
from lrnn_jax.registry import LAYERS, load_layer

BLOCK: Mapping[str, Any] = {"model": "BLOCK"}  # in place of fields: what the layer's own class says of its surroundings
DEFAULT_LAYER = "deltanet"


@dataclasses.dataclass(frozen=True)
class Rule:
    """Fields, and the configs that have them. `on` makes one.

    Attributes:
      fields: dotted path -> value, or `BLOCK`.
      layers: names of the layers it is for; with a minus before them, of those it is not for; empty for all.
      variants: variants it is for; empty for all.
      when: dotted path or task option -> value, or tuple of values, that the config has before this rule.
      source: where in a paper or in its released files the values stand.
      why: the reason, where a rule is not for all layers.
      place: file and line.
    """

    fields: Mapping[str, Any]
    layers: tuple[str, ...]
    variants: tuple[str, ...]
    when: Mapping[str, Any]
    source: str
    why: str
    place: str

    def names(self, layer: str) -> bool:
        """Says whether the rule is for a layer."""
        only = [name for name in self.layers if not name.startswith("-")]
        return f"-{layer}" not in self.layers and (not only or layer in only)

    def is_for(self, layer: str, variant: str, config: Mapping[str, Any]) -> bool:
        """Says whether the rule is for a layer and a variant of it, in a config of those values so far."""
        holds = (config.get(path) in (value if isinstance(value, tuple) else (value,)) for path, value in self.when.items())
        return self.names(layer) and (not self.variants or variant in self.variants) and all(holds)


def on(
    fields: Mapping[str, Any],
    *,
    layer: str = "",
    variant: str = "",
    when: Mapping[str, Any] | None = None,
    source: str = "",
    why: str = "",
) -> Rule:
    """Returns a rule.

    Args:
      fields: dotted path -> value; or `BLOCK`, the usual surroundings of whichever layer is chosen.
      layer: names of the layers it is for, separated by spaces; ``-name`` for all layers but that one; empty for all.
      variant: names of the variants it is for, likewise.
      when: dotted path or task option -> value, or tuple of values: the rule is for configs in which all of them hold.
      source: where in a paper or in its released files the values stand.
      why: the reason, where a rule is not for all layers.
    """
    if fields is BLOCK:
        source = source or "the layer's own paper: BLOCK of its class"
    caller = sys._getframe(1)
    place = f"{Path(caller.f_code.co_filename).name}:{caller.f_lineno}"
    return Rule(fields, tuple(layer.split()), tuple(variant.split()), dict(when or {}), source, why, place)


class Setting:
    """An ordered list of rules. ``setting + rule`` and ``setting + setting`` have the rules of both; later rules win."""

    def __init__(self, *parts: "Rule | Setting") -> None:
        """Takes rules, and the rules of other settings, in their order."""
        self.rules: tuple[Rule, ...] = ()
        for part in parts:
            self.rules += part.rules if isinstance(part, Setting) else (part,)

    def __add__(self, other: "Rule | Setting") -> "Setting":
        return Setting(self, other)


class Chosen(NamedTuple):
    """What the part after the colon says.

    Attributes:
      layer: registered name, or ``module:Class``.
      variant: one of the layer's VARIANTS; empty where it has none.
      setting: name of the setting.
      options: task option -> its value's name.
    """

    layer: str
    variant: str
    setting: str
    options: Mapping[str, str]


class Origin(NamedTuple):
    """What set a field: "default", a layer's variant, a task option or a setting's rule.

    Attributes:
      by: in words.
      rule: the rule, where it was one.
      before: the value that it replaced.
    """

    by: str
    rule: Rule | None = None
    before: Any = None


class Choices:
    """The function ``get_config`` of a config file: ``LAYER[/VARIANT],SETTING,OPTION,...`` -> config.

    Attributes:
      task: name of the task.
      settings: name -> setting, the default first.
      options: task option -> name of a value -> fields that it sets; the default first. They come before the setting's rules.
    """

    def __init__(
        self, task: str, settings: Mapping[str, Setting], options: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None
    ) -> None:
        """Takes what a config file declares."""
        self.task, self.settings, self.options = task, dict(settings), dict(options or {})

    def __call__(self, arg: str | None = None, *, layer: str = "") -> ConfigDict:
        """Returns the config; ``layer`` stands in for the layer in ``arg``."""
        fields, _ = self.resolve(self.parse(arg, layer=layer))
        config = base_config()
        with config.unlocked():
            for path, value in fields.items():
                section, name = find_section(config, path)
                section[name] = copy.deepcopy(value)
        return config

    def parse(self, arg: str | None, *, layer: str = "") -> Chosen:
        """Reads the part after the colon: comma-separated values, or ``option=value``.

        Args:
          arg: such as "mamba/positive,smoke,group=A5"; None or empty takes the defaults.
          layer: stands in for the layer that ``arg`` names, if any.

        Raises:
          UserError: a value that no option allows; names the nearest.
        """
        allowed: dict[str, Sequence[str]] = {"layer": tuple(LAYERS), "setting": tuple(self.settings)}
        allowed |= {option: tuple(values) for option, values in self.options.items()}
        given: dict[str, str] = {}
        for word in filter(None, (part.strip() for part in (arg or "").split(","))):
            option, value = _read_word(word, allowed)
            if option in given:
                raise UserError(f"config argument {word!r}: {option} is given twice")
            given[option] = value
        name, _, variant = given.get("layer", DEFAULT_LAYER).partition("/")
        options = {option: given.get(option, values[0]) for option, values in allowed.items() if option in self.options}
        return Chosen(layer or name, variant, given.get("setting", next(iter(self.settings))), options)

    def resolve(self, chosen: Chosen) -> tuple[dict[str, Any], dict[str, Origin]]:
        """Returns every field's value and what set it, by dotted path.

        Raises:
          UserError: a variant that the layer lacks, or a rule with a mistake; says where the rule stands.
        """
        cls = load_layer(chosen.layer)
        variant, variant_fields = _find_variant(cls, chosen)
        of_options = {
            path: (value, f"option {option}={chosen.options[option]}")
            for option, values in self.options.items()
            for path, value in values[chosen.options[option]].items()
        }
        task, _ = of_options.get("task.name", (self.task, ""))
        fields = default_fields(task, chosen.layer)
        origins = dict.fromkeys(fields, Origin("default"))
        origins |= {"task.name": Origin("config file"), "model.layer.name": Origin("layer")}

        def put(path: str, value: Any, by: str, rule: Rule | None = None) -> None:
            if path not in fields:
                raise UserError(f"{by} sets {path!r}, a field that {chosen.layer!r} on {task!r} lacks{suggest(path, fields)}")
            try:
                fields[path], before = check_type(path, value, fields[path]), fields[path]
            except UserError as error:
                raise UserError(f"{by}: {error}") from error
            origins[path] = Origin(by, rule, before)

        for path, (value, by) in of_options.items():
            put(path, value, by)
        for number, rule in enumerate(self.settings[chosen.setting].rules, 1):
            _check_layers(rule)
            if rule.is_for(chosen.layer, variant, {**chosen.options, **fields}):
                for path, value in _fields_of(rule, cls).items():
                    put(path, value, f"{chosen.setting} rule {number} ({rule.place})", rule)
        for path, value in variant_fields.items():
            put(f"model.layer.{path}", value, f"variant {variant}")
        return fields, origins


def _read_word(word: str, allowed: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """Returns the option that a word of the part after the colon is about, and its value."""
    option, _, value = word.rpartition("=")
    if option and option not in allowed:
        raise UserError(f"config argument {word!r}: unknown option {option!r}{suggest(option, allowed)}")
    layer = value.partition("/")[0]
    for name in [option] if option else allowed:
        # a layer may have a variant, and one from outside is in no list
        if value in allowed[name] or (name == "layer" and (layer in allowed[name] or ":" in layer)):
            return name, value
    values = allowed[option] if option else [name for names in allowed.values() for name in names]
    raise UserError(f"config argument {word!r} is not one of {', '.join(values)}{suggest(layer, values)}")


def _find_variant(cls: Any, chosen: Chosen) -> tuple[str, Mapping[str, Any]]:
    """Returns the chosen variant's name, the layer's first where none is, and its fields."""
    variants: Mapping[str, Mapping[str, Any]] = cls.VARIANTS
    name = chosen.variant or next(iter(variants), "")
    if name and name not in variants:
        known = f"its variants are {', '.join(variants)}" if variants else "it has no variants"
        raise UserError(f"config argument '{chosen.layer}/{name}': {known}{suggest(name, variants)}")
    return name, variants.get(name, {})


def _fields_of(rule: Rule, cls: Any) -> Mapping[str, Any]:
    return {f"model.{path}": value for path, value in cls.BLOCK.items()} if rule.fields is BLOCK else rule.fields


def _check_layers(rule: Rule) -> None:
    for name in rule.layers:
        if name.removeprefix("-") not in LAYERS:
            raise UserError(f"{rule.place}: a rule for the layer {name!r}, which there is not{suggest(name, LAYERS)}")
