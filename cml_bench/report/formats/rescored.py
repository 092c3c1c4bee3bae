"""Rescored metrics as terminal output, Markdown and CSV."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cml_bench.report.formats.csv_text import csv_text
from cml_bench.report.stored.rescore import Rescored
from cml_bench.report.tables.quantities import quantity


def to_terminal(found: Rescored) -> Group:
    """Return a Rich renderable, values x 100."""
    cells = _cells(found)
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in map(str, cells):
        is_text = name in ("benchmark", "method", "class_order", "label", "group")
        # Narrow heads keep figures on one line in a narrow terminal.
        heading = Text(name if is_text else name.replace("_", " ").replace(" ", "\n"))
        grid.add_column(heading, justify="left" if is_text else "right", overflow="fold")
    for row in cells.itertuples(index=False):
        grid.add_row(*map(Text, row))
    return Group(grid)


def to_markdown(found: Rescored) -> str:
    """Return a Markdown table, values x 100."""
    cells = _cells(found).map(lambda cell: cell.replace("|", "\\|"))
    return f"{cells.to_markdown(index=False, disable_numparse=True)}\n"


def to_csv(found: Rescored) -> str:
    """Return CSV with all columns, values as fractions or counts."""
    return csv_text(found.rows)


def _cells(found: Rescored) -> pd.DataFrame:
    """Return the text of each cell, without the key."""
    rows = found.rows.drop(columns="key", errors="ignore")
    return pd.DataFrame({name: [_cell(name, value, found.metrics) for value in rows[name]] for name in map(str, rows)})


def _cell(name: str, value: Any, metrics: tuple[str, ...]) -> str:
    if name in metrics:
        known = quantity(name)
        # A count of one job is whole; that of several, in other tables, is a mean.
        return (known if known.scale > 1 else replace(known, decimals=0)).printed(value)
    if value is None or pd.isna(value):
        return "-" if name == "train_images" else ""
    return f"{value:.0f}" if isinstance(value, float) else str(value)
