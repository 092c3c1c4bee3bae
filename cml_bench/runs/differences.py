"""Where two results differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from cml_bench.runs.schema import Result

_ABSENT = object()


_OF_THE_RUN: dict[str, Any] = {
    **dict.fromkeys(("finished", "cost", "environment"), True),
    "job": {"files": True},
    "data": {"__all__": {"content": True}},
}
"""What two runs of a job need not share: when and where it ran, what it took, and what older versions did not keep."""


def conflict(one: Result, other: Result) -> str | None:
    """Return the first difference of two results of a job that two runs of it cannot have; None if there is none."""
    trees = [result.model_dump(mode="json", exclude=_OF_THE_RUN) for result in (one, other)]
    return difference(*trees, first=("status", "job", "metrics", "predictions"))


def difference(one: Any, other: Any, *, tolerance: float = 0.0, first: Sequence[str] = ()) -> str | None:
    """Return the first difference of two JSON trees as ``field: value against value``; None if there is none.

    Args:
        one: Dicts, lists, texts, numbers, None.
        other: Likewise.
        tolerance: How far numbers may be apart.
        first: Fields of the top that are looked at before others.
    """
    return next(_differences(one, other, tolerance, "", first), None)


def _differences(one: Any, other: Any, tolerance: float, field: str, first: Sequence[str] = ()) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in dict.fromkeys((*(name for name in first if name in one or name in other), *one, *other)):
            deeper = f"{field}.{name}" if field else str(name)
            yield from _differences(one.get(name, _ABSENT), other.get(name, _ABSENT), tolerance, deeper)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            yield from _differences(mine, theirs, tolerance, f"{field}[{number}]")
    elif not _same(one, other, tolerance):
        yield f"{field or 'the whole'}: {_shown(one)} against {_shown(other)}"


def _same(one: Any, other: Any, tolerance: float) -> bool:
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (one, other))
    if numbers and tolerance:
        return math.isclose(one, other, rel_tol=0, abs_tol=tolerance)
    return type(one) is type(other) and bool(one == other)


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    if isinstance(value, list):
        return f"{len(value)} items"
    return "an object" if isinstance(value, dict) else f"{value!r:.80}"
