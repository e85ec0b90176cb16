"""What is wrong with a config file's rules as a whole, over all layers, variants, settings and task options."""

import itertools
from collections.abc import Iterator

from lrnn_jax.config.settings import Choices, Chosen, Rule
from lrnn_jax.errors import UserError
from lrnn_jax.registry import LAYERS, load_layer

OURS = ("cpu", "smoke")  # all other settings are named after a paper


def check_rules(choices: Choices, file: str) -> None:
    """Refuses rules that say nothing, or do not say where they come from.

    Every layer, variant and setting is resolved with the options' first values, and with the others until each rule has had
    an effect: every command that reads a config checks all of its rules, also those of settings that are not chosen.

    Args:
      choices: the file's ``get_config``.
      file: its name; rules that it takes over from another file are checked there.

    Raises:
      UserError: a layer, a variant or a field that there is not, a rule without effect, a paper's rule without a source, or
        a rule for single layers without a reason; says where the rule stands.
    """
    idle = {id(rule) for setting in choices.settings.values() for rule in setting.rules if rule.place.startswith(f"{file}:")}
    for number, chosen in enumerate(combinations(choices)):
        if not idle and number >= _layers_and_settings(choices):
            break
        fields, origins = choices.resolve(chosen)
        idle -= {id(o.rule) for path, o in origins.items() if o.rule is not None and fields[path] != o.before}
    for name, setting in choices.settings.items():
        for rule in setting.rules:
            if not rule.place.startswith(f"{file}:"):
                continue
            if id(rule) in idle:
                raise UserError(f"{rule.place}: a rule without effect, whatever the layer, the setting and the task's options")
            if name not in OURS and not rule.source:
                raise UserError(f"{rule.place}: a rule of {name!r} that names no source")
            if (rule.layers or rule.variants or rule.when) and not (rule.why or rule.source):
                raise UserError(f"{rule.place}: a rule for some configs that does not say why")
            _check_variants(rule)


def combinations(choices: Choices) -> Iterator[Chosen]:
    """Yields everything that can stand after the colon: all layers and settings with the first options, then with others."""
    options = [[(option, value) for value in values] for option, values in choices.options.items()]
    for values, layer, setting in itertools.product(itertools.product(*options), LAYERS, choices.settings):
        for variant in load_layer(layer).VARIANTS or ("",):
            yield Chosen(layer, variant, setting, dict(values))


def _layers_and_settings(choices: Choices) -> int:
    """Returns how many of the `combinations` have the options' first values."""
    return len(choices.settings) * sum(len(load_layer(layer).VARIANTS) or 1 for layer in LAYERS)


def _check_variants(rule: Rule) -> None:
    layers = [name for name in LAYERS if rule.names(name)]
    for variant in rule.variants:
        if not any(variant in load_layer(layer).VARIANTS for layer in layers):
            raise UserError(f"{rule.place}: a rule for the variant {variant!r}, which none of its layers has")
