"""A plug-in under test: found by its name and options, or given as a class."""

from __future__ import annotations

import dataclasses
import sys
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from cml_bench.options import arguments, as_text, convert, fold, parse_pairs, split_words
from cml_bench.runs.method import Method, parse_method
from cml_bench.testing.outcome import require


class PlugInCase(ABC):
    """A plug-in under test.

    Args:
        plug_in: A name with options, or a class.

    Attributes:
        noun: What plug-ins of its kind are called.
        name: What it goes by.
        kind: Its class.
        given: Its options, as typed.
        file: Where it is written; None if it was typed into an interpreter.

    Raises:
        CmlBenchError: If nothing bears the name.
    """

    noun: ClassVar[str]

    def __init__(self, plug_in: str | type) -> None:
        self.given: dict[str, str] = {}
        self.kind: Any = plug_in
        if isinstance(plug_in, str):
            written, *words = split_words(plug_in) or [""]
            self.name, self.given = fold(written, dict(parse_pairs(words)))
            self.kind = self.look_up(self.name)
        else:
            self.name = f"{plug_in.__module__}:{plug_in.__qualname__}"
        self.file = written_in(self.kind)

    @abstractmethod
    def look_up(self, name: str) -> type:
        """Return the class behind a name."""

    @property
    def subject(self) -> str:
        """How sentences call it."""
        return f"{self.noun} {self.name}"

    @property
    def listed_name(self) -> str | None:
        """The name that lists show; None if it goes by an import name or a path."""
        return None if ":" in self.name else self.name

    @property
    def exemptions(self) -> dict[str, str]:
        """Checks that it declares to be inapplicable, with its reasons."""
        return dict(getattr(getattr(self.kind, "meta", None), "exemptions", {}))


class PartCase(PlugInCase):
    """A part of a method under test: a head or a criterion.

    Attributes:
        place: Where a method names it.
        skipped: Arguments that are not the user's to set.
        options: Typed options.

    Raises:
        CmlBenchError: If nothing bears the name, or an option is wrong.
    """

    place: ClassVar[Literal["head", "loss"]]
    skipped: ClassVar[tuple[str, ...]] = ()

    def __init__(self, plug_in: str | type) -> None:
        super().__init__(plug_in)
        self.options = self.typed(self.given)

    def typed(self, options: dict[str, str]) -> dict[str, Any]:
        """Return options as typed arguments."""
        return convert(self.kind, options, owner=self.subject, skip=self.skipped)

    def require_round_trip(self) -> str:
        """Demand that options written into a method and read again are the same; return how they are written."""
        defaults = {name: parameter.default for name, parameter in arguments(self.kind, self.skipped).items()}
        options = {**defaults, **self.options}
        written = tuple(sorted((name, as_text(value)) for name, value in options.items()))
        part: dict[str, Any] = {self.place: self.name, f"{self.place}_options": written}
        spec = dataclasses.replace(Method("naive", None, None, (), (), ()), **part).spec
        again = self.typed(dict(getattr(parse_method(spec), f"{self.place}_options")))
        require(again == options, f"{options} written as {spec!r} is read as {again}")
        return spec.removeprefix("naive ")


def written_in(kind: Any) -> str | None:
    """Return the file that a class or function is written in; None if it was typed into an interpreter."""
    return getattr(sys.modules.get(kind.__module__), "__file__", None)
