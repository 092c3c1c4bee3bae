"""The drift of services as terminal output, Markdown and CSV."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cml_bench.errors import some
from cml_bench.report.drift.drift import ALL, MEAN, DriftReport
from cml_bench.report.formats.csv_text import csv_text

_PERCENT: Final = ("precision", "recall", "f1", "ap", "agreement")


def to_terminal(report: DriftReport) -> Group:
    """Return Rich tables: the snapshots, what is true of all labels, then each label."""
    overall = report.rows["label"].isin((ALL, MEAN))
    parts = (("snapshots", report.snapshots), ("all labels", report.rows[overall]), ("labels", report.rows[~overall]))
    tables = []
    for title, frame in parts:
        table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD)
        for name in frame:
            table.add_column(_head(str(name)), justify="left" if name in ("service", "date", "label") else "right")
        for row in _cells(frame).itertuples(index=False):
            table.add_row(*map(Text, row))
        tables.append(table)
    notes = [
        Text(f"{split}: images of the truth without an answer: {len(ids)} ({some(ids)})")
        for split, ids in report.missing.items()
        if ids
    ]
    return Group(*tables, *notes)


def to_markdown(report: DriftReport) -> str:
    """Return both tables as Markdown."""
    frames = (_cells(frame).rename(columns=_head) for frame in (report.snapshots, report.rows))
    return "\n\n".join(str(frame.to_markdown(index=False)) for frame in frames)


def to_csv(report: DriftReport) -> str:
    """Return the rows as CSV: fractions, undefined ones empty."""
    return csv_text(report.rows)


def _head(name: str) -> str:
    return {"ap": "AP", "f1": "F1"}.get(name, name.replace("_", " "))


def _cells(frame: pd.DataFrame) -> pd.DataFrame:
    """Return every cell as text: percentages with one decimal, counts, a dash where nothing is defined."""
    return pd.DataFrame({name: [_cell(str(name), value) for value in frame[name]] for name in frame})


def _cell(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return "-"
    return f"{100 * value:.1f}" if name in _PERCENT else f"{int(value):,}"
