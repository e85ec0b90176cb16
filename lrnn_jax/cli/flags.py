"""The flags of one command: ``--config=FILE[:ARG]`` with its overrides, and help texts."""

import ast
from pathlib import Path
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


class _PathParser(flags.ArgumentParser[str]):
    """A path as the shell would have it: ``--workdir=~/x`` reaches a program as it stands."""

    def parse(self, argument: str) -> str:
        return str(expand_path(argument)) if argument else argument


def expand_path(text: str) -> Path:
    """Returns a path with the home that ``~`` stands for.

    Raises:
      UserError: there is no such home.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{text}: there is no home for {text.partition('/')[0]!r}; give the path itself") from error


def define_path(name: str, default: str | None, text: str, values: flags.FlagValues) -> None:
    """Adds a flag that holds a file or a folder."""
    flags.DEFINE(_PathParser(), name, default, text, values)


CONFIG_HELP = "config FILE[:ARG]; --config.SECTION.FIELD=VALUE overrides a field"


class ConfigFlag(flags.Flag):
    """``--config=FILE[:ARG]`` with its overrides; its value is the resolved config.

    Attributes:
      spec: ``FILE[:ARG]``.
      overrides: dotted path -> value.
    """

    def __init__(self, spec: str, overrides: dict[str, Any], config: Any) -> None:
        """Takes what `define_config_flags` has read."""
        super().__init__(flags.ArgumentParser(), None, "config", None, CONFIG_HELP)
        self.spec, self.overrides, self.value = spec, overrides, config


def config_flag(values: flags.FlagValues) -> ConfigFlag:
    """Returns the flag --config of a command that was given one."""
    flag = values["config"]
    assert isinstance(flag, ConfigFlag)
    return flag


def define_config_flags(rest: list[str], values: flags.FlagValues) -> list[str]:
    """Reads ``--config`` and its overrides, defines the flag --config, and returns the other arguments.

    Raises:
      UserError: no such file or field, or a value that the field does not hold.
    """
    from lrnn_jax.config.fields import COMPONENTS, base_config, check_field, find_section, set_field
    from lrnn_jax.config.files import load_config

    spec, words, others = split_config(rest)
    if spec is None:
        for path, _ in words:
            check_field(base_config(), path.partition(".")[0])
            raise UserError(f"--config.{path} needs --config=FILE")
        return others
    config = load_config(spec, {path: text for path, text in words if path.removesuffix(".name") in COMPONENTS})
    overrides: dict[str, Any] = {}
    for path, text in words:
        check_field(config, path)
        section, name = find_section(config, path)
        overrides[path] = _read_value(path, section[name], text)
        set_field(config, path, overrides[path])
    values["config"] = ConfigFlag(spec, overrides, config)
    return others


def split_config(rest: list[str]) -> tuple[str | None, list[tuple[str, str]], list[str]]:
    """Returns what --config says, (path, text) of each override, and the other arguments."""
    spec, words, others = None, [], []
    left = list(rest)
    while left:
        word = left.pop(0)
        name, equals, text = word.lstrip("-").partition("=")
        if not word.startswith("-") or name.removeprefix("no").split(".")[0] != "config":
            others.append(word)
            continue
        # as with any flag: a value may come after a space, and one that is true or false needs none
        negated = name.startswith("no")
        if not equals:
            takes_next = not negated and left and not left[0].startswith("--")
            text = left.pop(0) if takes_next else "" if name == "config" else str(not negated).lower()
        if name == "config":
            spec = text
        else:
            words.append((name.partition(".")[2], text))
    return spec, words, others


def _read_value(path: str, old: Any, text: str) -> Any:
    """Reads an override's text as the type that the field holds."""
    from lrnn_jax.config.fields import check_type, show_value

    try:
        if isinstance(old, bool):
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        if isinstance(old, (int, float)):
            return type(old)(text)
        value = ast.literal_eval(text) if isinstance(old, list) else text
        return check_type(path, value, old)
    except (ValueError, KeyError, SyntaxError, MemoryError, RecursionError) as error:
        kind = "a list, such as [3,40]" if isinstance(old, list) else type(old).__name__
        raise UserError(f"config field {path!r}={show_value(text)}: it holds {kind}") from error


def define_config(values: flags.FlagValues) -> None:
    """Adds --config where no config file has brought it along."""
    if "config" not in values:
        flags.DEFINE_string("config", None, CONFIG_HELP, values)


def define_ray(values: flags.FlagValues) -> None:
    """Adds the flags of the executor ray."""
    flags.DEFINE_string("ray_address", None, "Ray cluster to run on (default: one on this machine)", values)
    flags.DEFINE_integer("workers", None, "runs at a time on this machine's Ray (default: cores)", 1, flag_values=values)
