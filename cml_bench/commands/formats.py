"""How a command prints its table."""

from __future__ import annotations

from enum import Enum


class TableFormat(str, Enum):
    """Formats that every table has."""

    terminal = "terminal"
    markdown = "markdown"
    csv = "csv"
