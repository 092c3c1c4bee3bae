"""Comparison tables as Markdown."""

from __future__ import annotations

import html
import re
from typing import Final

from cml_bench.report.formats.grid import BEST, SECOND
from cml_bench.report.formats.published import all_grids
from cml_bench.report.tables.table import ComparisonTable

_MARKS: Final = {BEST: ("**", "**"), SECOND: ("<ins>", "</ins>"), "": ("", "")}


def to_markdown(table: ComparisonTable, *, intervals: bool = False) -> str:
    """Return Markdown: each table under its heading, values x 100, best bold, second underlined."""
    parts = []
    for made in all_grids(table, intervals=intervals):
        cells = made.cells.apply(lambda column: column.map(_code if column.name == "method" else _plain))
        for mark, (before, after) in _MARKS.items():
            cells = cells.where(made.marks != mark, before + cells + after)
        sides = ["left" if column in made.names else "right" for column in cells]
        body = cells.rename(columns=_plain).to_markdown(index=False, disable_numparse=True, colalign=sides)
        notes = "".join(f"\n{_plain(note)}\n" for note in made.notes)
        parts.append(f"### {_plain(made.heading)}\n\n{body}\n{notes}")
    parts += [f"{_plain(note)}\n" for note in table.notes]
    if table.unreadable:
        parts.append("Unreadable:\n\n" + "".join(f"- {_plain(line)}\n" for line in table.unreadable))
    return "\n".join(parts)


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is, in a table too."""
    return re.sub(r"([*`|\[\]\\])", r"\\\1", html.escape(_one_line(text), quote=False))


def _code(text: str) -> str:
    """Return text that Markdown shows as code, in a table too."""
    fence = "``" if "`" in text else "`"
    space = " " * ("`" in text)
    return f"{fence}{space}{_one_line(text)}{space}{fence}".replace("|", "\\|")


def _one_line(text: str) -> str:
    return " ".join(text.split())
