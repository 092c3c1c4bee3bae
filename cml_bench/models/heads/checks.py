"""Refusals that heads share."""

from __future__ import annotations

from cml_bench.errors import CmlBenchError


def check_least(head: str, option: str, value: int, least: int = 1) -> None:
    """Refuse a width or a number that is too small.

    Raises:
        CmlBenchError: If it is below ``least``.
    """
    if value < least:
        raise CmlBenchError(f"{option}={value} of the {head} head is too small; take at least {least}")


def check_dropout(head: str, dropout: float) -> None:
    """Refuse what is no probability of dropping something.

    Raises:
        CmlBenchError: If it is not at least 0 and below 1.
    """
    if not 0 <= dropout < 1:
        raise CmlBenchError(f"dropout={dropout} of the {head} head is not a probability; take 0 <= dropout < 1")
