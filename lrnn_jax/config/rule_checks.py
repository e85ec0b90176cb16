"""What is wrong with a config file's rules as a whole, over all layers, variants, settings and task options."""

import itertools
from collections.abc import Iterator

from lrnn_jax.config.settings import Choices, Chosen, Rule
from lrnn_jax.errors import UserError
from lrnn_jax.registry import LAYERS, load_layer

OURS = ("cpu", "smoke")  # all other settings are named after a paper


def check_rules(choices: Choices, file: str) -> None:
    """Refuses rules that say nothing, or do not say where they come from.

    Args:
      choices: the file's ``get_config``.
      file: its name; rules that it takes over from another file are checked there.

    Raises:
      UserError: a layer, a variant or a field that there is not, a rule without effect, a paper's rule without a source, or
        a rule for single layers without a reason; says where the rule stands.
    """
    effective = set()
    for chosen in combinations(choices):
        fields, origins = choices.resolve(chosen)
        effective |= {id(o.rule) for path, o in origins.items() if o.rule is not None and fields[path] != o.before}
    for name, setting in choices.settings.items():
        for rule in setting.rules:
            if not rule.place.startswith(f"{file}:"):
                continue
            if id(rule) not in effective:
                raise UserError(f"{rule.place}: a rule without effect, whatever the layer, the setting and the task's options")
            if name not in OURS and not rule.source:
                raise UserError(f"{rule.place}: a rule of {name!r} that names no source")
            if (rule.layers or rule.variants or rule.when) and not (rule.why or rule.source):
                raise UserError(f"{rule.place}: a rule for some configs that does not say why")
            _check_variants(rule)


def combinations(choices: Choices) -> Iterator[Chosen]:
    """Returns everything that can stand after the colon."""
    options = [[(option, value) for value in values] for option, values in choices.options.items()]
    for layer, setting, values in itertools.product(LAYERS, choices.settings, itertools.product(*options)):
        for variant in load_layer(layer).VARIANTS or ("",):
            yield Chosen(layer, variant, setting, dict(values))


def _check_variants(rule: Rule) -> None:
    layers = [name for name in LAYERS if rule.names(name)]
    for variant in rule.variants:
        if not any(variant in load_layer(layer).VARIANTS for layer in layers):
            raise UserError(f"{rule.place}: a rule for the variant {variant!r}, which none of its layers has")
