"""The summary table of a page: what its columns hold, how cells read and by what they sort."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from cml_bench.metrics.retention import mean_defined
from cml_bench.report.formats import heading
from cml_bench.report.section import Section
from cml_bench.report.statistics import Estimate, estimates

ALL_LABELS: Final = "all"
_COSTS: Final = {
    "training_seconds": "training (s)",
    "peak_memory_mb": "peak memory (MiB)",
    "stored_images": "stored images",
    "trainable_parameters": "trained parameters",
}
_COUNTS: Final = ("dropped_labels", "undefined_forgetting", "undefined_experiences")
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
        best: Whether it is the best of its column among complete rows.
    """

    text: str
    interval: str
    value: str
    best: bool = False


@dataclass(frozen=True)
class Summary:
    """The columns and rows of a table.

    Attributes:
        texts: Names of text columns that are not empty.
        columns: Columns of numbers.
        groups: Groups of labels that can be chosen, ``ALL_LABELS`` first; one if the benchmark declares none.
        rows: For each row of the table its texts, in the order of ``texts``.
        cells: For each row a cell a column.
    """

    texts: tuple[str, ...]
    columns: tuple[Column, ...]
    groups: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    cells: tuple[tuple[Cell, ...], ...]


def summarize(section: Section) -> Summary:
    """Return the summary table of a section, its rows in the order of the section's table."""
    table, jobs = section.table, section.jobs
    columns: list[Column] = []
    cells: list[list[Cell]] = []

    def add(column: Column, values: pd.Series[float], scale: float, best: str) -> None:
        columns.append(column)
        cells.append(_cells(section, values * scale, best, percent=scale != 1))

    for metric in table.metrics:
        values = jobs[metric] if metric in jobs else pd.Series(math.nan, index=jobs.index)
        counted = metric in _COUNTS
        add(Column(heading(metric), ALL_LABELS), values, 1 if counted else 100, _best(metric))
    groups = sorted({name for run in section.runs for name in run.history.label_groups})
    for group in groups:
        members = [run.history.group_map(run.history.label_groups.get(group, ())) for run in section.runs]
        add(Column(f"last mAP, {group}", group), pd.Series([row[-1] for row in members], dtype="float64"), 100, "max")
        averages = pd.Series([mean_defined(row) for row in members], dtype="float64")
        add(Column(f"avg mAP, {group}", group), averages, 100, "max")
    for column, title in _COSTS.items():
        if column in jobs and jobs[column].notna().any():
            add(Column(title), jobs[column], 1, "")
    rows = table.rows
    texts = tuple(name for name in _TEXTS if rows[name].notna().any())
    return Summary(
        texts=texts,
        columns=tuple(columns),
        groups=(ALL_LABELS, *groups),
        rows=tuple(tuple(row) for row in rows[list(texts)].fillna("").to_numpy()),
        cells=tuple(zip(*cells, strict=True)),
    )


def _cells(section: Section, values: pd.Series[float], best: str, *, percent: bool) -> list[Cell]:
    rows = section.table.rows
    found = estimates([values[section.jobs["method"] == method].to_numpy() for method in rows["method"]])
    # Sought as printed, so that equal figures look equal.
    printed = np.array([each.mean for each in found]).round(1)
    printed[~section.table.complete.to_numpy()] = np.nan
    top = _extreme(printed, best)
    return [_cell(each, bool(value == top), percent=percent) for each, value in zip(found, printed, strict=True)]


def _best(metric: str) -> str:
    return "min" if metric.startswith("forgetting") or metric in _COUNTS else "max"


def _extreme(printed: npt.NDArray[np.float64], best: str) -> float:
    defined = printed[~np.isnan(printed)]
    return float(getattr(defined, best)()) if best and defined.size else math.nan


def _cell(found: Estimate, best: bool, *, percent: bool) -> Cell:
    if math.isnan(found.mean):
        return Cell("–", "", "")
    number = _percent if percent else _plain
    text, interval = number(found.mean), ""
    if found.n > 1 and (percent or found.deviation):
        text += f" ± {number(found.deviation)}"
    if found.n > 1 and percent:
        interval = f"{number(found.low)} to {number(found.high)}"
    return Cell(text, interval, repr(found.mean), best)


def _percent(value: float) -> str:
    return f"{value:.1f}"


def _plain(value: float) -> str:
    return f"{value:,.1f}" if value < 100 and value != round(value) else f"{value:,.0f}"
