"""Comparison tables in a terminal, as far as its width goes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cml_bench.report.formats.grid import BEST, SECOND, Grid
from cml_bench.report.formats.published import all_grids
from cml_bench.report.tables.table import ComparisonTable

_STYLES: Final = {BEST: "bold", SECOND: "underline", "": ""}


def to_terminal(table: ComparisonTable, width: int = 200, *, intervals: bool = False) -> Group:
    """Return a Rich renderable: the best of each column bold, the second underlined; unreadable files below.

    Args:
        table: What to show.
        width: Columns of the terminal. Figures that do not fit are left out from the right, and named.
        intervals: Whether intervals stand in the place of deviations.
    """
    parts = show_grids(all_grids(table, intervals=intervals), width)
    parts += [Text(note) for note in table.notes]
    return Group(*parts, *(Text(f"unreadable: {line}") for line in table.unreadable))


def show_grids(grids: Iterable[Grid], width: int) -> list[Table | Text]:
    """Return what a terminal of some width shows of grids."""
    parts: list[Table | Text] = []
    for made in grids:
        hidden = _too_wide(made, width)
        cells, marks = made.cells.drop(columns=hidden), made.marks.drop(columns=hidden)
        # Names are Text throughout: brackets in a plain string would be read as markup.
        grid = Table(title=Text(made.heading), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for column in cells.columns:
            if column in made.names:
                grid.add_column(Text(column), overflow="fold")
            else:
                # Narrow heads keep figures on one line in a narrow terminal.
                grid.add_column(Text(column.replace(" ", "\n")), justify="right", no_wrap=True)
        for values, styles in zip(cells.to_numpy(), marks.to_numpy(), strict=True):
            grid.add_row(*(Text(value, style=_STYLES[mark]) for value, mark in zip(values, styles, strict=True)))
        parts.append(grid)
        parts += [Text(note) for note in made.notes]
        if hidden:
            parts.append(Text(f"Left out for lack of width: {', '.join(hidden)}."))
        parts.append(Text())
    return parts


def _too_wide(made: Grid, width: int) -> list[str]:
    """Return the figures, from the right, without which the table fits; the first column always stays."""
    widths = {name: max(made.cells[name].str.len().max(), *map(len, str(name).split())) + 2 for name in made.cells}
    hidden: list[str] = []
    for name in reversed(made.spare):
        if sum(widths.values()) <= width:
            break
        del widths[name]
        hidden.insert(0, name)
    return hidden
