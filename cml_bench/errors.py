"""What a user of the suite is meant to read: one exception, one warning."""

from __future__ import annotations

import difflib
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_LONGEST_NAME = 80


class CmlBenchError(Exception):
    """Bad input, said in one sentence: the offending value and the mend.

    The command line prints the sentence alone; a traceback only with ``--debug``.
    """


class CmlBenchWarning(UserWarning):
    """Something that a user should know of, though everything goes on: said in one sentence."""


@contextmanager
def own_warnings(hear: Callable[[str], object]) -> Iterator[None]:
    """Hand on the suite's own warnings. Avalanche and torch warn of what is not ours to change, and are not heard.

    Ignoring theirs would not do: Avalanche turns warnings on again.
    """

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if issubclass(category, CmlBenchWarning):
            hear(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("default", CmlBenchWarning)
        warnings.showwarning = show
        yield


def in_one_line(error: BaseException, own_file: str | None = None) -> str:
    """Return an unexpected error as one line: its type, its text, and the file and line that raised it.

    Args:
        error: What was raised.
        own_file: If the error passed through this file, its last line there is named instead.
    """
    every = list(traceback.extract_tb(error.__traceback__))
    frames = [frame for frame in every if frame.filename == own_file] or every
    file, line = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (None, None)
    if file is None and frames:
        file, line = frames[-1].filename, frames[-1].lineno
    text = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    where = f" ({Path(file).name}, line {line})" if file else ""
    return f"{type(error).__name__}: {text}{where}"


_ALIKE, _SHORT_ALIKE = 0.7, 0.6
"""Less alike are names of other things (``image_size`` for ``memory_size``); of three letters a slip leaves less."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is probably meant, whatever its case; None if none is much alike."""
    names = sorted(known)
    least = _ALIKE if len(name) > 3 else _SHORT_ALIKE
    lower = {each.lower(): each for each in names}
    whole = [each for each in names if each.endswith(f".{name}")]
    alike = difflib.get_close_matches(name.lower(), lower, 1, least)
    # As lr is learning_rate.
    initials = "".join(word[:1] for word in name.lower().split("_")) if "_" in name else ""
    return next(iter(whole), None) or lower.get(alike[0] if alike else initials)


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``"did you mean 'x'?"`` for the nearest known name, else the list of known names.

    Nearest of all is what bears the name behind a dot: ``loss.scope`` for ``scope``.
    """
    names = sorted(known)
    close = nearest(name, names)
    if close:
        return f"did you mean {_short(close)!r}?"
    return f"known names: {textwrap.shorten(', '.join(map(_short, names)), 1500, placeholder=' ...') or 'none'}"


def some(names: Sequence[object], most: int = 3) -> str:
    """Return the first names of many, with an ellipsis if there are more."""
    return ", ".join(map(str, names[:most])) + (", ..." if len(names) > most else "")


def _short(name: str) -> str:
    # Names come from files, too.
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."
