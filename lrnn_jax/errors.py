"""What ends a command early: a user's mistake, in one line that says what to do; failed training; a signal."""

import difflib
import re
from collections.abc import Iterable, Mapping


class UserError(ValueError):
    """A mistake in a config, a flag or a folder. The command line prints its one line and exits with code 2.

    A `ValueError`, so that who calls from Python need not know it; what turns other errors into one lets it through first.
    """


class CannotImport(UserError):
    """A layer's or a task's own module, which does not lie where Python looks, or fails as it is read."""


class TrainingFailed(Exception):
    """Training stopped because a number was not finite. The last good checkpoint is kept."""


class Interrupted(Exception):
    """A signal asked for an end. Everything is saved."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


class Terminated(KeyboardInterrupt):
    """SIGTERM where no training is under way that could save something: what Ctrl-C raises there."""


def suggest(word: str, names: Iterable[str]) -> str:
    """Returns ``"; did you mean 'NAME'?"`` for the nearest of ``names``, or nothing if none is near."""
    names = list(names)
    near = [name for name in names if str(name).endswith(f".{word}")] or difflib.get_close_matches(
        str(word), names, n=1, cutoff=0.5
    )
    return f"; did you mean {near[0]!r}?" if near else ""


def name_fields(message: str, paths: Mapping[str, str]) -> str:
    """Returns what is said of arguments as said of the config fields or flags behind them: ``paths`` maps one to the other."""
    arguments = rf"(?<![\w.])({'|'.join(paths)})(?= ?=|: )"
    return re.sub(arguments, lambda found: paths[found[0]], message)
