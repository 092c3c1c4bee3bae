"""Regimes one after the other, as a text names them."""

from __future__ import annotations

from cml_bench.errors import CmlBenchError
from cml_bench.options import convert, parse_pairs, split_words
from cml_bench.regimes.regime import Regime
from cml_bench.registry import load_class


def parse_regimes(text: str) -> tuple[Regime, ...]:
    """Return the regimes that a text names: ``"full"`` for none, else ``"NAME key=value + NAME ..."``.

    Within quotes, ``+`` is a letter like others, as in ``hapi root="/data/c++"``.

    Raises:
        CmlBenchError: If a name or an option is unknown.
    """
    parts: list[list[str]] = [[]]
    for word in split_words(text, apart="+"):
        if set(word) == {"+"}:
            parts += [[] for _ in word]
        else:
            parts[-1].append(word)
    regimes = []
    for words in parts:
        if not words:
            raise CmlBenchError(f"regime {text!r} names nothing between two '+': write NAME key=value + NAME key=value")
        kind = load_class("regimes", words[0], Regime)  # type: ignore[type-abstract]
        options = convert(kind, dict(parse_pairs(words[1:])), owner=f"regime {words[0]}")
        regimes.append(kind(**options))
    return tuple(regimes)
