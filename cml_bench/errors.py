"""The one exception that a user of the suite is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CmlBenchError(Exception):
    """Bad input, said in one sentence: the offending value and the mend.

    The command line prints the sentence alone; a traceback only with ``--debug``.
    """


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known name, else the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known names: {', '.join(names) or 'none'}"
