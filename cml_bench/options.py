"""Options typed as text turned into the arguments that a class declares."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
import shlex
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

from cml_bench.errors import CmlBenchError, suggest

Pairs = tuple[tuple[str, str], ...]
"""Options as sorted ``(name, text)`` pairs: plain, hashable, the same on every machine."""


def parse_pairs(words: Iterable[str]) -> Pairs:
    """Parse ``key=value`` words.

    Raises:
        CmlBenchError: If a word has no ``=`` or a key occurs twice.
    """
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise CmlBenchError(f"{word!r} is no option: write key=value, without blanks around the equals sign")
        if key in found:
            raise CmlBenchError(f"option {key!r} is given twice ({found[key]!r} and {value!r}): give it once")
        found[key] = value
    return tuple(sorted(found.items()))


def split_words(text: str, apart: str = "") -> list[str]:
    """Split a specification at blanks; quotes keep a value with blanks together.

    Args:
        text: The specification.
        apart: Letters that stand apart from what is beside them, as words of their own, unless they are quoted.
    """
    words = shlex.shlex(text, posix=True, punctuation_chars=apart)
    words.whitespace_split, words.commenters = True, ""  # As ``shlex.split``, which has no letters apart.
    try:
        return list(words)
    except ValueError as error:
        raise CmlBenchError(f"{text!r} cannot be read ({error}): close the quotes") from None


def names_in(text: str) -> Iterator[str]:
    """Yield all that may be a name in the value of an option: the value, its words, what these set, and so on inwards.

    In ``long_tail + ./mine.py:Mine base="./other.py:Other"`` both files are found; most of the rest names nothing.
    """
    yield text
    try:
        words = split_words(text, apart="+")
    except CmlBenchError:
        return
    for word in words:
        for inner in (word, word.partition("=")[2]):
            if inner not in ("", text):
                yield from names_in(inner)


def fold(name: str, options: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Read ``a+b`` as ``a`` with the option ``base=b``, and ``a+b+c`` as ``a`` with ``base=b+c``.

    Raises:
        CmlBenchError: If a base is given in both ways.
    """
    # A path may hold a plus sign: it is cut behind its class alone.
    cut = re.fullmatch(r"(\w+|.*?:\w+)\+(.+)", name)
    if cut is None:
        return name, dict(options)
    outer, base = cut.groups()
    if "base" in options:
        raise CmlBenchError(f"{name} and base={options['base']} both say what {outer} is put on: give one of them")
    return outer, {**options, "base": base}


def arguments(target: Callable[..., Any], skip: Iterable[str] = ()) -> dict[str, inspect.Parameter]:
    """Return the keyword arguments that a class or function declares, without those in ``skip``."""
    parameters = inspect.signature(target).parameters
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name: p for name, p in parameters.items() if name not in skip and p.kind not in variadic}


def convert(
    target: Callable[..., Any],
    options: Mapping[str, str],
    *,
    owner: str,
    skip: Iterable[str] = (),
    beside: Iterable[str] = (),
    written: Callable[[str], str] = "{}=VALUE".format,
) -> dict[str, Any]:
    """Return ``options`` as typed keyword arguments of ``target``.

    Args:
        target: A class or function with annotated arguments.
        options: Argument names to text, as typed by the user.
        owner: Who has these options, for the error sentence.
        skip: Arguments that are not the user's to set.
        beside: Options that are written in the same place but belong to another; for the suggestion only.
        written: How and where the user writes an option of a name; for the sentence about one that is not given.

    Raises:
        CmlBenchError: If there is no such argument (the nearest is suggested), the text is no value of its type, or an
            argument without a default is not given.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    known = arguments(target, skip)
    # A dataclass's generated __init__ does not know the modules its inherited annotations come from; the class does.
    is_plain_class = inspect.isclass(target) and not dataclasses.is_dataclass(target)
    hints = typing.get_type_hints(target.__init__ if is_plain_class else target, include_extras=True)
    typed: dict[str, Any] = {}
    for name, text in options.items():
        if name not in known:
            raise CmlBenchError(f"{owner} has no option {name!r}: {suggest(name, {*known, *beside})}")
        if name not in hints:
            typed[name] = _guess(text)
            continue
        hint = hints[name]
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
            typed[name] = adapter.validate_python(_literal(text, hint))
        except json.JSONDecodeError as error:
            raise CmlBenchError(
                f"option {name}={text!r} of {owner} is no JSON list or object ({error}): names are quoted, as in "
                '[["a", "b"], ["c"]]'
            ) from None
        except ValidationError as error:
            told = error.errors()[0]["msg"].removeprefix("Value error, ")
            reason = (told[:1].lower() + told[1:]).partition(", unable to parse")[0]
            if error.errors()[0]["type"] in ("tuple_type", "list_type"):
                reason += """; write it as JSON, as in [["a", "b"], ["c"]]"""
            elif text.startswith("["):
                reason += "; a suite runs each of several values that stand under vary"
            raise CmlBenchError(f"option {name}={text!r} of {owner} cannot be used: {reason}") from None
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in typed:
            raise CmlBenchError(f"{owner} needs option {name!r}: add {written(name)}")
    return typed


def beyond_defaults(target: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of some typed options that are not what ``target`` declares as their defaults."""
    known = arguments(target)
    return {name: value for name, value in options.items() if name not in known or value != known[name].default}


def recorded(options: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Return typed options as a result holds them: a path, and a number that is not finite, as it is typed.

    Raises:
        CmlBenchError: If a value is of a type that no result can hold.
    """
    made: dict[str, Any] = {}
    for name, value in options.items():
        try:
            made[name] = _json_ready(value)
        except TypeError as error:
            raise CmlBenchError(
                f"option {name}={value!r:.60} of {owner} is a {error}, which no result can hold: declare it as text, "
                "number, path, or a list or dict of these"
            ) from None
    return made


def _json_ready(value: Any) -> Any:
    if isinstance(value, float):
        # JSON has no infinite numbers.
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_json_ready(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _json_ready(item) for key, item in value.items()}
    raise TypeError(type(value).__name__)


def as_text(value: object) -> str:
    """Return an option's value as ``convert`` reads it: the inverse of typing it."""
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, separators=(",", ":"))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _guess(text: str) -> Any:
    """Return what a text says without an annotation to go by: a number, true, false, none, else the text itself."""
    if text.lower() in {"none", "true", "false"}:
        return {"none": None, "true": True, "false": False}[text.lower()]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _literal(text: str, hint: Any) -> Any:
    """Return None for ``none`` where None is allowed, a JSON list or object where the text is one, else the text."""
    if text.lower() in {"none", "null"} and type(None) in typing.get_args(hint):
        return None
    if text.startswith(("[", "{")):
        return json.loads(text)
    return text
