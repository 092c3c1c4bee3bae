"""Comparison tables as terminal output, Markdown, CSV and LaTeX."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cml_bench.report.formats.csv_text import csv_text
from cml_bench.report.formats.grid import BEST, SECOND, Grid, without_parts
from cml_bench.report.formats.published import all_grids
from cml_bench.report.formats.published import sheet as published_sheet
from cml_bench.report.tables.compare import BenchmarkTable, ComparisonTable

_TERMINAL: Final = {BEST: "bold", SECOND: "underline", "": ""}
_MARKDOWN: Final = {BEST: ("**", "**"), SECOND: ("<ins>", "</ins>"), "": ("", "")}
_LATEX: Final = {BEST: "textbf:--rwrap;", SECOND: "underline:--rwrap;", "": ""}
_LATEX_LETTERS: Final = str.maketrans(
    {
        **{letter: f"\\{letter}" for letter in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
    }
)


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
            grid.add_row(*(Text(value, style=_TERMINAL[mark]) for value, mark in zip(values, styles, strict=True)))
        parts.append(grid)
        parts += [Text(note) for note in made.notes]
        if hidden:
            parts.append(Text(f"Left out for lack of width: {', '.join(hidden)}."))
        parts.append(Text())
    return parts


def to_markdown(table: ComparisonTable, *, intervals: bool = False) -> str:
    """Return Markdown: each table under its heading, values x 100, best bold, second underlined."""
    parts = []
    for made in all_grids(table, intervals=intervals):
        cells = made.cells.apply(lambda column: column.map(_code if column.name == "method" else _plain))
        for mark, (before, after) in _MARKDOWN.items():
            cells = cells.where(made.marks != mark, before + cells + after)
        sides = ["left" if column in made.names else "right" for column in cells]
        body = cells.rename(columns=_plain).to_markdown(index=False, disable_numparse=True, colalign=sides)
        notes = "".join(f"\n{_plain(note)}\n" for note in made.notes)
        parts.append(f"### {_plain(made.heading)}\n\n{body}\n{notes}")
    parts += [f"{_plain(note)}\n" for note in table.notes]
    if table.unreadable:
        parts.append("Unreadable:\n\n" + "".join(f"- {_plain(line)}\n" for line in table.unreadable))
    return "\n".join(parts)


def to_csv(table: ComparisonTable) -> str:
    """Return CSV: all tables in one sheet, fractions in full precision, every statistic in a column of its own.

    Beside the columns of ``BenchmarkTable.rows`` there are those of the differences, and ``remarks``: what is said
    under the table, and about all tables. Published numbers are rows of their own, known by their ``source``, with
    columns of their own; so are files that could not be read, known by ``unreadable``.
    A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    sheets = [sheet for part in table.benchmarks for sheet in _sheets(part, table.notes)]
    if table.unreadable:
        sheets.append(pd.DataFrame({"unreadable": table.unreadable}))
    if not sheets:
        return ""
    sheet = pd.concat(sheets, ignore_index=True)
    last = [column for column in ("notes", "remarks", "unreadable") if column in sheet]
    return csv_text(sheet[[*(column for column in sheet if column not in last), *last]])


def to_latex(table: ComparisonTable, *, intervals: bool = False) -> str:
    """Return LaTeX ``tabular`` environments for booktabs, names escaped, best bold, second underlined, notes below.

    Methods go without what the columns of head and loss say, and a table that is wider than the text is made smaller.
    """
    parts = []
    for made in map(without_parts, all_grids(table, intervals=intervals)):
        style = made.cells.style.hide(axis="index").format(_latex)
        style = style.format_index(_latex, axis="columns")
        style = style.apply(_latex_styles, axis=None, marks=made.marks)
        align = "".join("l" if column in made.names else "r" for column in made.cells.columns)
        body = style.to_latex(hrules=True, column_format=align)
        notes = "".join(map(_latex_note, made.notes))
        parts.append(
            f"% {_one_line(made.heading)} (needs the packages booktabs and graphicx)\n"
            f"\\noindent\\resizebox{{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}}{{!}}{{%\n{body}}}\n{notes}"
        )
    parts += map(_latex_note, table.notes)
    parts += [f"% unreadable: {_one_line(line)}\n" for line in table.unreadable]
    return "\n".join(parts)


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


def _sheets(part: BenchmarkTable, remarks: Iterable[str]) -> list[pd.DataFrame]:
    settings = {name: getattr(part, name) for name in ("benchmark", "version", "benchmark_options", "data")}
    sheet = part.rows.rename(columns={"benchmark": "benchmark_title"})
    if any(column.key != column.metric for column in part.columns):
        # Such a table is about one metric, and its columns do not say which.
        settings["metric"] = part.metrics[0]
    for place, (name, value) in enumerate(settings.items()):
        sheet.insert(place, name, value)
    if part.differences is not None:
        beside = part.differences.reindex(part.rows[part.row]).reset_index(drop=True)
        sheet = pd.concat(
            [sheet.assign(baseline=part.baseline), beside.add_prefix(f"{part.metrics[0]}_vs_baseline_")], axis=1
        )
    sheets = [sheet.assign(remarks=" ".join((*part.notes, *remarks)))]
    if part.published is not None and len(part.published.numbers):
        sheets.append(published_sheet(part.published).assign(**settings))
    return sheets


def _latex(text: object) -> str:
    """Return text that LaTeX shows as it is; a minus sign is one, hyphens stay hyphens."""
    plain = str(text).translate(_LATEX_LETTERS).replace("--", "-{}-")
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", plain)


def _latex_note(note: str) -> str:
    return f"{{\\par\\smallskip\\footnotesize {_latex(note)}\\par}}\n"


def _latex_styles(cells: pd.DataFrame, marks: pd.DataFrame) -> npt.NDArray[np.str_]:
    """Return the pandas style of each cell."""
    return marks.reindex_like(cells).replace(_LATEX).to_numpy(dtype=np.str_)


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
