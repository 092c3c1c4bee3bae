"""Comparison tables as terminal output, Markdown, CSV and LaTeX."""

from __future__ import annotations

import math
import re
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cml_bench.report.tables import BenchmarkTable, ComparisonTable

_TITLES: Final = {
    "map": "mAP",
    "cp": "CP",
    "cr": "CR",
    "cf1_macro": "CF1 macro",
    "cf1_harmonic": "CF1 harmonic",
    "op": "OP",
    "or": "OR",
    "of1": "OF1",
}
_COUNTS: Final = ("dropped_labels", "undefined_forgetting", "undefined_experiences")
_LOWER_IS_BETTER: Final = (
    "forgetting",
    "forgetting_relative",
    "forgetting_diagonal",
    "forgetting_diagonal_relative",
    *_COUNTS,
)
_TEXT_COLUMNS: Final = {"method": "method", "head": "head", "loss": "loss", "wrap": "wrap"}


def heading(metric: str) -> str:
    """Return how a column is headed: ``last_cf1_macro@0.5`` as ``last CF1 macro @0.5``."""
    match = re.fullmatch(r"(last|avg)_([a-z0-9_]+?)(@.+)?", metric)
    if match is None or match[2] not in _TITLES:
        return metric.replace("_", " ")
    return " ".join(filter(None, (match[1], _TITLES[match[2]], match[3])))


def to_terminal(table: ComparisonTable, width: int = 200) -> Group:
    """Return a Rich renderable: one table a benchmark, the best of each column bold, unreadable files below.

    Args:
        table: What to show.
        width: Columns of the terminal. Metrics that do not fit are left out from the right, and named.
    """
    parts: list[Table | Text] = []
    for part in table.benchmarks:
        cells, best = _cells(part)
        if not cells["notes"].any():
            cells, best = cells.drop(columns="notes"), best.drop(columns="notes")
        hidden = _too_wide(cells, [heading(metric) for metric in part.metrics], width)
        cells, best = cells.drop(columns=hidden), best.drop(columns=hidden)
        # Names are Text throughout: brackets in a plain string would be read as markup.
        grid = Table(title=Text(part.heading), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for column in cells.columns:
            if column in (*_TEXT_COLUMNS.values(), "notes"):
                grid.add_column(Text(column), overflow="fold")
            else:
                # Narrow heads keep figures on one line in a narrow terminal.
                grid.add_column(Text(column.replace(" ", "\n")), justify="right", no_wrap=True)
        for values, bold in zip(cells.to_numpy(), best.to_numpy(), strict=True):
            grid.add_row(*(Text(value, style="bold" if top else "") for value, top in zip(values, bold, strict=True)))
        parts.append(grid)
        if hidden:
            parts.append(Text(f"Left out for lack of width: {', '.join(hidden)}."))
    return Group(*parts, *(Text(f"unreadable: {line}") for line in table.unreadable))


def to_markdown(table: ComparisonTable) -> str:
    """Return Markdown: one table a benchmark under its heading, values x 100, the best of each column bold."""
    parts = []
    for part in table.benchmarks:
        cells, best = _cells(part)
        cells = cells.apply(lambda column: column.str.replace("|", "\\|", regex=False))
        cells["method"] = "`" + cells["method"] + "`"
        cells = cells.where(~best, "**" + cells + "**")
        body = cells.to_markdown(index=False, disable_numparse=True)
        parts.append(f"### {part.heading}\n\n{body}\n")
    if table.unreadable:
        parts.append("Unreadable:\n\n" + "".join(f"- `{line}`\n" for line in table.unreadable))
    return "\n".join(parts)


def to_csv(table: ComparisonTable) -> str:
    """Return CSV: all benchmarks in one sheet, fractions in full precision, mean, deviation and count apart."""
    sheets = [
        part.rows.assign(
            benchmark=part.benchmark,
            version=part.version,
            benchmark_options=part.benchmark_options,
            data=part.data,
        )
        for part in table.benchmarks
    ]
    if not sheets:
        return ""
    sheet = pd.concat(sheets, ignore_index=True)
    first = ["benchmark", "version", "benchmark_options", "data"]
    return sheet[[*first, *(column for column in sheet.columns if column not in first)]].to_csv(index=False)


def to_latex(table: ComparisonTable) -> str:
    """Return LaTeX ``tabular`` environments for booktabs, names escaped, the best of each column bold."""
    parts = []
    for part in table.benchmarks:
        cells, best = _cells(part)
        style = cells.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
        style = style.apply(_bold, axis=None, best=best)
        align = "".join("l" if column in (*_TEXT_COLUMNS.values(), "notes") else "r" for column in cells.columns)
        comment = " ".join(part.heading.split())
        parts.append(f"% {comment} (needs the booktabs package)\n{style.to_latex(hrules=True, column_format=align)}")
    parts += [f"% unreadable: {' '.join(line.split())}\n" for line in table.unreadable]
    return "\n".join(parts).replace("±", r"$\pm$")


def _bold(cells: pd.DataFrame, best: pd.DataFrame) -> npt.NDArray[np.str_]:
    """Return the pandas style of each cell."""
    return np.where(best, "textbf:--rwrap;", "")


def _cells(part: BenchmarkTable) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the printed cells of a table, and which of them are the best of their column.

    The best is sought among complete rows and as printed, so that equal figures look equal.
    """
    rows = part.rows
    cells = rows[list(_TEXT_COLUMNS)].fillna("").rename(columns=_TEXT_COLUMNS)
    if not cells["wrap"].any():
        cells = cells.drop(columns="wrap")
    best = pd.DataFrame(False, index=cells.index, columns=cells.columns)
    for metric in part.metrics:
        scale = 1 if metric in _COUNTS else 100
        means, deviations = rows[f"{metric}_mean"] * scale, rows[f"{metric}_std"] * scale
        cells[heading(metric)] = [_number(*pair) for pair in zip(means, deviations, strict=True)]
        printed = means.where(part.complete).round(1)
        best[heading(metric)] = printed == (printed.min() if metric in _LOWER_IS_BETTER else printed.max())
    cells["seconds"] = [_number(*pair) for pair in zip(rows["seconds_mean"], rows["seconds_std"], strict=True)]
    cells["n"] = rows["n"].astype(str)
    cells["notes"] = rows["notes"]
    return cells, best.reindex(columns=cells.columns, fill_value=False)


def _too_wide(cells: pd.DataFrame, metrics: list[str], width: int) -> list[str]:
    """Return the metrics, from the right, without which the table fits; the first one always stays."""
    widths = {name: max(cells[name].str.len().max(), *map(len, str(name).split())) + 2 for name in cells}
    shown = len(metrics)
    while shown > 1 and sum(widths.values()) - sum(widths[name] for name in metrics[shown:]) > width:
        shown -= 1
    return metrics[shown:]


def _number(mean: float, deviation: float) -> str:
    if math.isnan(mean):
        return "-"
    return f"{mean:.1f}" if math.isnan(deviation) else f"{mean:.1f} ± {deviation:.1f}"
