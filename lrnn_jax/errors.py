"""What a user's mistake becomes: one line that says what was wrong, where, and what to do."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a config, a flag or a folder. The command line prints its one line and exits with code 2."""


def suggest(word: str, names: Iterable[str]) -> str:
    """Returns ``"; did you mean 'NAME'?"`` for the nearest of ``names``, or nothing if none is near."""
    near = difflib.get_close_matches(str(word), list(names), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
