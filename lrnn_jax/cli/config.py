"""The command ``lrnn config``."""

from absl import flags

from lrnn_jax.cli.flags import config_flag, define_config, refuse_positional
from lrnn_jax.cli.text import align
from lrnn_jax.errors import UserError


def define_show(values: flags.FlagValues) -> None:
    """Adds the command\'s flags."""
    define_config(values)
    flags.DEFINE_boolean("changed", False, "only the fields that differ from their defaults", values)


def run_show(values: flags.FlagValues, positional: list[str]) -> int:
    """Prints every field of a config with its value and what set it, and refuses rules that say nothing."""
    refuse_positional(positional)
    if values.config is None:
        raise UserError("lrnn config needs a config, such as configs/parity.py:mamba/negative,smoke")
    from lrnn_jax.config.checks import validate_config
    from lrnn_jax.config.fields import flatten
    from lrnn_jax.config.files import explain_config

    flag = config_flag(values)
    origins = explain_config(flag.spec, flag.overrides)
    rows: list[tuple[str, ...]] = [("field", "value", "set by", "source", "why")]
    for path, value in flatten(values.config):
        origin = origins[path]
        if origin.by == "default" and values.changed:
            continue
        rows.append((path, repr(value), origin.by, *((origin.rule.source, origin.rule.why) if origin.rule else ("", ""))))
    print(align(rows))
    validate_config(values.config)
    return 0
