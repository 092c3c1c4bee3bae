"""Comparison tables as LaTeX."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from cml_bench.report.formats.grid import BEST, SECOND, without_parts
from cml_bench.report.formats.published import all_grids
from cml_bench.report.tables.table import ComparisonTable

_STYLES: Final = {BEST: "textbf:--rwrap;", SECOND: "underline:--rwrap;", "": ""}
_LETTERS: Final = str.maketrans(
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

_ADVICE: Final = re.compile(r"[:;,.] [^:;,.]*(?<= )--[a-z][^.]*(?=\.)")
"""The clause of a sentence, or the sentence, that names an option of the command line."""


def to_latex(table: ComparisonTable, *, intervals: bool = False) -> str:
    """Return LaTeX ``tabular`` environments for booktabs, names escaped, best bold, second underlined, notes below.

    Each stands under its heading: a paragraph, not a caption, so that the file may be put in a text or in a float.
    Methods go without what the columns of head and loss say, and a table that is wider than the text is made smaller.
    """
    parts = ["% Needs the packages booktabs and graphicx.\n"]
    for made in map(without_parts, all_grids(table, intervals=intervals)):
        style = made.cells.style.hide(axis="index").format(_shown)
        style = style.format_index(_shown, axis="columns")
        style = style.apply(_styles, axis=None, marks=made.marks)
        align = "".join("l" if column in made.names else "r" for column in made.cells.columns)
        body = style.to_latex(hrules=True, column_format=align)
        notes = "".join(map(_note, made.notes))
        parts.append(
            f"{{\\par\\medskip\\noindent\\textbf{{{_shown(_line(made.heading))}}}\\par\\nopagebreak\\smallskip}}\n"
            f"\\noindent\\resizebox{{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}}{{!}}{{%\n{body}}}\n{notes}"
        )
    parts += map(_note, table.notes)
    parts += [f"% unreadable: {_line(line)}\n" for line in table.unreadable]
    return "\n".join(parts)


def _shown(text: object) -> str:
    """Return text that LaTeX shows as it is; a minus sign is one, hyphens stay hyphens."""
    # Two hyphens would become a dash.
    plain = re.sub("-(?=-)", "-{}", str(text).translate(_LETTERS))
    # The end of a row and a rule take a star or brackets after them for their own.
    plain = re.sub(r"^[\[*]", r"{\g<0>}", plain)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", plain)


def _note(note: str) -> str:
    """Return a note for readers of a paper, who run no command."""
    told = _ADVICE.sub("", note.removeprefix("Warning: "))
    return f"{{\\par\\smallskip\\footnotesize {_shown(told)}\\par}}\n"


def _styles(cells: pd.DataFrame, marks: pd.DataFrame) -> npt.NDArray[np.str_]:
    """Return the pandas style of each cell."""
    return marks.reindex_like(cells).replace(_STYLES).to_numpy(dtype=np.str_)


def _line(text: str) -> str:
    return " ".join(text.split())
