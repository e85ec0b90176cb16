"""The command ``lrnn completion``: a script that makes the shell ask ``lrnn completion words`` on every tab.

An answer may take a fraction of a second, so nothing here imports jax; variants and fields of layers and tasks are left out.
"""

import contextlib
import io
import runpy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from absl import flags

from lrnn_jax.cli.bench import KINDS
from lrnn_jax.cli.data import ACTIONS
from lrnn_jax.cli.flags import split_config
from lrnn_jax.cli.list import LISTS
from lrnn_jax.errors import UserError, suggest
from lrnn_jax.registry import LAYERS

# Where there is no candidate, the shell completes files. No space follows a word that goes on.
SCRIPTS = {
    "bash": r"""_lrnn() {
  local line=${COMP_LINE:0:COMP_POINT} found; local -a words
  read -ra words <<< "$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  COMPREPLY=()
  while IFS= read -r found; do  # bash completes $2 alone, what follows the last = or :
    local typed=${words[${#words[@]}-1]}
    COMPREPLY+=("${found#"${typed%"$2"}"}")
    [[ $found == *[=/:,.] ]] && compopt -o nospace 2>/dev/null
  done < <("$1" completion words -- "${words[@]:1}" 2>/dev/null)
}
complete -o default -F _lrnn lrnn""",
    "zsh": r"""_lrnn() {
  local -a found
  found=(${(f)"$("$words[1]" completion words -- "${(@)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)"})
  if (( ! $#found )); then compset -P '*='; _files; return; fi
  compset -P '*[=:,]'
  found=("${(@)found#$IPREFIX}")
  compadd -S '' -- ${(M)found:#*[=/:,.]}
  compadd -- ${found:#*[=/:,.]}
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
compdef _lrnn lrnn""",
    "fish": r"""function __lrnn_ask
  set -l words (commandline -opc)
  set -l typed (commandline -ct)
  set -g __lrnn_found ($words[1] completion words -- $words[2..-1] "$typed" 2>/dev/null)
  test (count $__lrnn_found) -gt 0
end
complete -c lrnn -f -n __lrnn_ask -a '$__lrnn_found'""",
}


def define_completion(values: flags.FlagValues) -> None:
    """Adds the command's flags, of which there are none."""


def run_completion(values: flags.FlagValues, positional: list[str]) -> int:
    """Prints a shell's script; or, after ``words --``, the candidates for the last word, and nothing if anything is wrong."""
    if positional[:1] == ["words"]:
        found: list[str] = []
        silence = io.StringIO()  # a config file runs here, and may say and do anything
        with (
            contextlib.redirect_stdout(silence),
            contextlib.redirect_stderr(silence),
            contextlib.suppress(Exception, SystemExit),
        ):
            found = complete(positional[1:])
        print("".join(f"{word}\n" for word in found), end="")
        return 0
    what = " ".join(positional)
    if what not in SCRIPTS:
        raise UserError(f"lrnn completion needs one of {', '.join(SCRIPTS)}, not {what!r}{suggest(what, SCRIPTS)}")
    print(SCRIPTS[what])
    return 0


def complete(words: list[str]) -> list[str]:
    """Returns what the last of the words after ``lrnn`` may become."""
    from lrnn_jax.cli.main import COMMANDS

    *given, word = words
    if not given:
        return _starting(word, [*COMMANDS, "--help", "--version"])
    verb, *given = given
    if verb == "config" and not word.startswith("-") and not given:
        return _complete_config(word)
    if verb == "config" and given and not given[0].startswith("-"):
        given[0] = f"--config={given[0]}"
    values = flags.FlagValues()
    COMMANDS[verb].define(values)
    before = given[-1][2:] if given and given[-1].startswith("--") else ""
    if before in values and not values[before].boolean:  # its value stands after a space
        start = f"--{before}="
        return [each.removeprefix(start) for each in complete([verb, *given[:-1], start + word])]
    names: list[str] = []
    if not word.startswith("-"):
        names += _positional(verb, [each for each in given if not each.startswith("-")])
        if names or word or verb in ("runs", "report"):
            return _starting(word, names)
    name, equals, text = word[2:].partition("=")
    if equals:
        names = _complete_config(text) if name == "config" else _flag_values(values[name], given, text)
        return _starting(word, [f"--{name}={each}" for each in names])
    has_fields = verb in ("train", "sweep", "config")
    if has_fields and name.startswith("config."):
        from lrnn_jax.config.fields import base_fields

        return _starting(word, [f"--config.{path}=" for path in base_fields()])
    names = [each if values[each].boolean else f"{each}=" for each in values] + ["help"] + ["config."] * has_fields
    names += [f"no{each}" for each in values if values[each].boolean and name.startswith("no")]
    return _starting(word, [f"--{each}" for each in names])


def _starting(word: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(word)]


def _positional(verb: str, before: list[str]) -> Iterable[str]:
    """Returns the words that a verb takes after those before; folders are left to the shell."""
    if verb == "reproduce" and not before:
        from lrnn_jax.config.files import data_folder

        return sorted(file.stem for file in data_folder("experiments").glob("*.py"))
    if verb == "data" and len(before) == 1 and before != ["list"]:
        from lrnn_jax.data.catalogue import DATA_SETS

        return DATA_SETS
    first: dict[str, Iterable[str]] = {"data": ACTIONS, "bench": KINDS, "list": LISTS, "completion": SCRIPTS}
    return () if before else first.get(verb, ())


def _flag_values(flag: Any, given: list[str], text: str) -> list[str]:
    """Returns the values that a flag may have, as far as they are known; of one with commas, those of its last part."""
    if isinstance(flag.parser, flags.EnumParser):
        return [*flag.parser.enum_values]
    done = text[: text.rfind(",") + 1] if isinstance(flag.parser, flags.ListParser) else ""
    names: Iterable[str] = ()
    if flag.name == "layer":
        names = LAYERS
    elif flag.name == "sweep":
        defined = _run_config((split_config(given)[0] or "").partition(":")[0])
        names = [each.removeprefix("sweep_") for each in defined if each.startswith("sweep_")]
    elif flag.name == "setting":
        from lrnn_jax.tables.declaring import load_experiment

        names = load_experiment(next(each for each in given if not each.startswith("-"))).settings
    return [f"{done}{name}" for name in names]


def _complete_config(text: str) -> list[str]:
    """Returns what ``FILE[:ARG]`` may become. Files that are not among the project's configs are left to the shell."""
    from lrnn_jax.config.files import data_folder

    path, colon, arg = text.partition(":")
    if not colon:
        folders = (data_folder("configs"), Path("configs"))
        return _starting(text, sorted({f"configs/{file.name}" for folder in folders for file in folder.glob("*.py")}))
    choices = _run_config(path)["get_config"]
    done, comma, word = arg.rpartition(",")
    left = {"layer": [*LAYERS], "setting": [*choices.settings]}
    left |= {option: [*values] for option, values in choices.options.items()}
    for each in filter(None, done.split(",")):
        option, equals, _ = each.rpartition("=")
        left.pop(option if equals else next(name for name in left if each.partition("/")[0] in left[name]))
    # the values of options, which may be numbers, once one is begun
    names = [name for option in left if word or option in ("layer", "setting") for name in left[option]]
    names += [f"{option}={name}" for option in left for name in (left[option] if "=" in word else [""])]
    return _starting(text, [f"{path}:{done}{comma}{name}" for name in names])


def _run_config(path: str) -> dict[str, Any]:
    """Returns what a config file defines. Its rules are not checked, which would import every layer."""
    from lrnn_jax.config.files import find_config

    return runpy.run_path(str(find_config(path)))
