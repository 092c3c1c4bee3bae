"""Methods: a strategy with a head, a criterion, perhaps a wrapper, and options, as one line of text."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import PurePath

from cml_bench.errors import CmlBenchError
from cml_bench.options import Pairs, fold, parse_pairs, split_words


@dataclass(frozen=True)
class Method:
    """A parsed method specification, one row of a result table.

    Attributes:
        strategy: Strategy name or path.
        head: Head name; None for the strategy's own.
        loss: Criterion name; None for the strategy's own.
        head_options: Options written ``head.NAME=VALUE``.
        loss_options: Options written ``loss.NAME=VALUE``.
        options: All others: the strategy's own, or training settings.
        wrap: Name of a wrapper of the model; None for none.
        wrap_options: Options written ``wrap.NAME=VALUE``.
    """

    strategy: str
    head: str | None
    loss: str | None
    head_options: Pairs
    loss_options: Pairs
    options: Pairs
    wrap: str | None = None
    wrap_options: Pairs = ()

    @property
    def spec(self) -> str:
        """The canonical text: name first, then head, loss, wrapper and options in alphabetical order."""
        pairs = [("head", self.head), ("loss", self.loss), ("wrap", self.wrap)]
        pairs += [(f"head.{key}", value) for key, value in self.head_options]
        pairs += [(f"loss.{key}", value) for key, value in self.loss_options]
        pairs += [(f"wrap.{key}", value) for key, value in self.wrap_options]
        pairs += list(self.options)
        return " ".join([self.strategy, *(f"{key}={_quoted(value)}" for key, value in pairs if value is not None)])

    @property
    def all_options(self) -> Pairs:
        """The options of strategy, training, head, criterion and wrapper."""
        return (*self.options, *self.head_options, *self.loss_options, *self.wrap_options)

    @property
    def losses(self) -> list[str]:
        """Names of the criteria, each put on the next; empty for the strategy's own."""
        found: list[str] = []
        name, options = self.loss, dict(self.loss_options)
        while name:
            found.append(name)
            written, *words = split_words(options.get("base", "")) or [""]
            name, options = fold(written, dict(parse_pairs(words)))
        return found


def parse_method(spec: str) -> Method:
    """Parse ``"er head=dlfl loss=asl memory_size=500 head.steps=2"``; ``loss=clml+asl`` puts one loss on another.

    Raises:
        CmlBenchError: If the text is empty, a word is no ``key=value``, or there are options of no wrapper.
    """
    words = split_words(spec)
    if not words or "=" in words[0]:
        raise CmlBenchError(f"method {spec!r} names no strategy: begin with its name, as in 'er memory_size=500'")
    own: dict[str, str] = {}
    nested: dict[str, dict[str, str]] = {"head": {}, "loss": {}, "wrap": {}}
    for key, value in parse_pairs(words[1:]):
        part, dot, option = key.partition(".")
        if dot and part in nested:
            nested[part][option] = value
        else:
            own[key] = value
    head, loss, wrap = (own.pop(part, None) for part in nested)
    loss_options = nested["loss"]
    if nested["wrap"] and not wrap:
        option, value = next(iter(nested["wrap"].items()))
        raise CmlBenchError(f"wrap.{option}={value} is an option of no wrapper: say which one, as in wrap=pat")
    if loss:
        loss, loss_options = fold(loss, loss_options)
    return Method(
        strategy=_plain(words[0]),
        head=head and _plain(head),
        loss=loss and _plain(loss),
        head_options=tuple(sorted(nested["head"].items())),
        loss_options=tuple(sorted(loss_options.items())),
        options=tuple(sorted(own.items())),
        wrap=wrap and _plain(wrap),
        wrap_options=tuple(sorted(nested["wrap"].items())),
    )


def _plain(name: str) -> str:
    """Return a name in snake_case, and a file below here as ``./file.py:Class``: however it is typed, it is one row."""
    where, colon, attribute = name.rpartition(":")
    if not colon:
        return name.replace("-", "_")
    path = PurePath(where)
    if path.suffix != ".py" or path.is_absolute() or path.parts[0] == "..":
        return name
    return f"./{path}:{attribute}"


def _quoted(value: str) -> str:
    # Not shlex.quote for all: it quotes harmless letters, too, and the text is part of a job's identity.
    try:
        plain = shlex.split(value) == [value]
    except ValueError:
        plain = False
    return value if plain else shlex.quote(value)
