"""Comparison tables as one sheet of CSV, in full precision."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from cml_bench.report.formats.csv_text import csv_text
from cml_bench.report.formats.published import sheet as published_sheet
from cml_bench.report.tables.table import BenchmarkTable, ComparisonTable


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
