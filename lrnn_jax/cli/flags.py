"""The flags of one command: ``--config=FILE[:ARG]`` with its overrides, and help texts."""

import ast
from typing import Any

from absl import flags

from lrnn_jax.errors import UserError


def describe_flags(values: flags.FlagValues) -> str:
    """Returns one line per flag, for ``lrnn COMMAND --help``."""
    rows = []
    for name in values:
        flag = values[name]
        default = "" if flag.default in (None, "", []) else f" (default: {flag.default})"
        # absl adds a second line to those that can be repeated, whose help says so already
        text = flag.help.partition(";\n")[0]
        rows.append(f"  --{name}: {text}{default}")
    return "\n".join(rows)


def refuse_positional(positional: list[str]) -> None:
    """Refuses arguments that are no flags.

    Raises:
      UserError: there is one.
    """
    if positional:
        raise UserError(f"unexpected argument {positional[0]!r}; flags start with --")


def define_config_flags(verb: str, rest: list[str], values: flags.FlagValues) -> list[str]:
    """Finds the config file, checks every override against it, and defines the flags of ml_collections.

    Raises:
      UserError: no such file or field.
    """
    from ml_collections import config_flags

    from lrnn_jax.config.fields import base_config, check_field
    from lrnn_jax.config.files import find_config, load_config

    rest = list(rest)
    spec, where = _flag_value(rest, "config")
    if spec is not None:
        path, colon, arg = spec.partition(":")
        rest[where : where + 1] = [f"--config={find_config(path)}{colon}{arg}"]
        config = load_config(spec)
        for word in rest:
            name = word.lstrip("-").partition("=")[0]
            if word.startswith("-") and name.removeprefix("no").startswith("config."):
                check_field(config, name.removeprefix("no").removeprefix("config."))
    for word in rest if spec is None else ():
        if word.lstrip("-").startswith("config."):
            check_field(base_config(), word.lstrip("-").split(".")[1].partition("=")[0])
            raise UserError("--config.FIELD needs --config=FILE first")
    config_flags.register_flag_parser_for_type(list, _ListParser())
    config_flags.DEFINE_config_file("config", None, "config FILE[:ARG]", values, sys_argv=[f"lrnn {verb}", *rest])
    return rest


class _ListParser(flags.ArgumentParser):
    """Reads a Python list, such as ``[3,40]``; ml_collections itself has no parser for lists."""

    syntactic_help = "a list, such as [3,40]"

    def parse(self, argument: Any) -> list[Any]:
        try:
            value = ast.literal_eval(argument) if isinstance(argument, str) else argument
        except (ValueError, SyntaxError):
            value = None
        if not isinstance(value, list):
            raise ValueError(f"{argument!r} is not {self.syntactic_help}")
        return value

    def flag_type(self) -> str:
        return "list"


def _flag_value(arguments: list[str], name: str) -> tuple[str | None, int]:
    """Finds ``--name=value`` or ``--name value``; the second form is rewritten as the first."""
    for i, word in enumerate(arguments):
        if word.lstrip("-") == name and word.startswith("-") and i + 1 < len(arguments):
            arguments[i : i + 2] = [f"--{name}={arguments[i + 1]}"]
        if arguments[i].startswith((f"--{name}=", f"-{name}=")):
            return arguments[i].partition("=")[2], i
    return None, -1


def define_config(values: flags.FlagValues) -> None:
    """Adds --config where no config file has brought it along."""
    if "config" not in values:
        flags.DEFINE_string("config", None, "config FILE[:ARG]; --config.SECTION.FIELD=VALUE overrides a field", values)


def define_ray(values: flags.FlagValues) -> None:
    """Adds the flags of the executor ray."""
    flags.DEFINE_string("ray_address", None, "Ray cluster to run on (default: one on this machine)", values)
    flags.DEFINE_integer("workers", None, "runs at a time on this machine's Ray (default: cores)", 1, flag_values=values)
