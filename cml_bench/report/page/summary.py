"""The summary table of a page: what its columns hold, how cells read and by what they sort."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from cml_bench.metrics.retention import mean_defined
from cml_bench.report.figures.section import Section
from cml_bench.report.formats.grid import make_grid
from cml_bench.report.statistics.estimates import Estimate, estimates
from cml_bench.report.statistics.units import one_an_order
from cml_bench.report.tables.averages import estimates_in
from cml_bench.report.tables.quantities import COSTS, Quantity, quantity

ALL_LABELS: Final = "all"
_TEXTS: Final = ("head", "loss", "wrap")


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Attributes:
        title: What heads it.
        group: Group of labels that it speaks of; empty where it speaks of no labels.
    """

    title: str
    group: str = ""


@dataclass(frozen=True)
class Cell:
    """A number as a page shows it.

    Attributes:
        text: Mean, with the sample standard deviation of several jobs.
        interval: Interval of the mean, empty for one job.
        value: What it sorts by; empty for no number.
        mark: ``grid.BEST``, ``grid.SECOND`` or nothing.
    """

    text: str
    interval: str
    value: str
    mark: str = ""


@dataclass(frozen=True)
class Summary:
    """The columns and rows of a table.

    Attributes:
        texts: Names of text columns.
        columns: Columns of numbers.
        groups: Groups of labels that can be chosen, ``ALL_LABELS`` first; it alone if there are no others.
        rows: For each row of the table its texts, in the order of ``texts``.
        cells: For each row a cell a column.
        notes: Lines that belong under the table.
    """

    texts: tuple[str, ...]
    columns: tuple[Column, ...]
    groups: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    cells: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...]


def summarize(section: Section) -> Summary:
    """Return the summary table of a section, its rows in the order of the section's table."""
    rows, grid = section.table.rows, make_grid(section.table, intervals=True)
    columns: list[Column] = []
    cells: list[list[Cell]] = []
    for column in section.table.columns:
        found = estimates_in(rows, column.key)
        columns.append(Column(column.heading, "" if column.metric in COSTS else ALL_LABELS))
        cells.append(_cells(found, quantity(column.metric), grid.marks[column.heading]))
    groups = list(dict.fromkeys(name for run in section.runs for name in run.history.label_groups))
    # One group is all labels.
    groups = groups if len(groups) > 1 else []
    for group in groups:
        for title, values in _group_figures(section, group).items():
            orders = section.jobs["class_order"]
            own = [section.jobs["method"] == method for method in rows["method"]]
            found = estimates([one_an_order(values[which], [*orders[which]]) for which in own])
            columns.append(Column(f"{title}, {group}", group))
            cells.append(_cells(found, quantity("last_map"), [""] * len(found)))
    # What costs come last, whatever labels are chosen.
    order = sorted(range(len(columns)), key=lambda i: columns[i].group == "")
    texts = tuple(name for name in _TEXTS if rows[name].notna().any())
    return Summary(
        texts=texts,
        columns=tuple(columns[i] for i in order),
        groups=(ALL_LABELS, *groups),
        rows=tuple(tuple(row) for row in rows[list(texts)].fillna("").to_numpy()),
        cells=tuple(zip(*(cells[i] for i in order), strict=True)),
        notes=grid.notes,
    )


def _group_figures(section: Section, group: str) -> dict[str, pd.Series[float]]:
    """Return figures of each job over a group of labels, by title."""
    maps = [run.history.group_map(run.history.label_groups.get(group, ())) for run in section.runs]
    last = [float(values[-1]) if len(values) else np.nan for values in maps]
    average = [mean_defined(values) for values in maps]
    index = section.jobs.index
    return {"last mAP": pd.Series(last, index, dtype="float64"), "avg mAP": pd.Series(average, index, dtype="float64")}


def _cells(found: Sequence[Estimate], known: Quantity, marks: Iterable[str]) -> list[Cell]:
    return [_cell(each, known, mark) for each, mark in zip(found, marks, strict=True)]


def _cell(found: Estimate, known: Quantity, mark: str) -> Cell:
    if np.isnan(found.mean):
        return Cell("-", "", "")
    # Costs that vary by the machine's mood need no interval.
    interval = (
        "" if known.scale == 1 or np.isnan(found.low) else f"{known.printed(found.low)} to {known.printed(found.high)}"
    )
    return Cell(known.cell(found), interval, repr(float(found.mean)), mark)
