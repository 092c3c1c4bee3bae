"""Criteria written as text: ``"asl reduction=sum"``, and one put on another: ``"clml+asl reduction=sum"``."""

from __future__ import annotations

from cml_bench.losses.criterion import Criterion
from cml_bench.options import convert, fold, parse_pairs, split_words
from cml_bench.registry import load_class


def as_criterion(specification: str | Criterion) -> Criterion:
    """Build the criterion that ``"name option=value ..."`` describes; a criterion is returned as it is.

    Raises:
        CmlBenchError: If the name or an option is unknown, or it is the name of something else.
    """
    if isinstance(specification, Criterion):
        return specification
    written, *words = split_words(specification) or [""]
    name, options = fold(written, dict(parse_pairs(words)))
    kind = load_class("criteria", name, Criterion)
    return kind(**convert(kind, options, owner=f"criterion {name!r}"))
