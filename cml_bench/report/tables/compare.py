"""From jobs to comparison tables: methods (or what they are made of) by metrics (or benchmarks ...)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pandas as pd

from cml_bench.errors import CmlBenchError, suggest
from cml_bench.report.statistics.verdict import Verdict, few_seeds, rank_verdict, verdict
from cml_bench.report.tables import remarks
from cml_bench.report.tables.averages import average, row_notes
from cml_bench.report.tables.baseline import with_baseline
from cml_bench.report.tables.blocks import by_images, comparable, even_cells, find_competitors, make_blocks
from cml_bench.report.tables.job_metrics import full_name, known_groups, with_metrics
from cml_bench.report.tables.keys import RANKED, benchmark_heading, check_keys, job_keys, shared_settings
from cml_bench.report.tables.quantities import COSTS, heading, quantity
from cml_bench.report.tables.repeats import CONFIGURATION, finished_once, without_mended
from cml_bench.report.tables.same_methods import by_shortest_name
from cml_bench.report.tables.table import BOUND, BenchmarkTable, Column, ComparisonTable

DEFAULT_METRICS: Final = (
    "last_map",
    "avg_map",
    "last_cf1_macro@0.5",
    "last_cf1_harmonic@0.5",
    "last_of1@0.5",
    "forgetting",
)
"""Both definitions of class F1 stand side by side, because papers print either under the same name."""

_SEVERAL: Final = {"benchmark": "", "version": None, "benchmark_options": "", "data": None}
_SETTINGS: Final = ["benchmark", "benchmark_options"]


def compare(
    frame: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    *,
    rows: str = "method",
    columns: str = "metric",
    baseline: str | None = None,
    sort: str | None = None,
    cost: bool = False,
) -> ComparisonTable:
    """Average jobs, and test what differs between them on the same seeds and class orders.

    A job that was run twice (same configuration, method, class order and seed) counts once, by its newest result; a
    method that was named with its defaults and without is one, called by its shortest name.
    Failed jobs are counted and never averaged. Where rows are a part of methods (``head``), a row averages whole
    methods, so only jobs count that differ from one of another row in that part alone; the others are named. Cells of
    parts by parts average the jobs that all of them have (see ``even_cells``).

    Args:
        frame: What ``collect`` returned, or some of its rows.
        metrics: Keys of the metrics summary, or costs; None for the usual ones (where columns are no metrics, for the
            first of them). A decision metric at a threshold that was not stored
            (``last_cf1_macro@0.6``; ``cf1_macro@0.6`` for short) is computed from the predictions beside the result.
        rows: ``method``, or ``strategy``, ``head``, ``loss``, ``benchmark``, ``class_order``.
        columns: ``metric`` for one table a benchmark configuration; else one of the others, for one table a metric.
        baseline: Method (or value of what competes) that all others are compared with in the first metric.
        sort: Column to sort by, best first, or ``rows`` itself for alphabetical order; by default the first metric.
        cost: Whether to add ``quantities.COSTS``, as far as the results have them.

    Raises:
        CmlBenchError: If a metric, key, baseline or column is unknown, or predictions that are needed cannot be read.
    """
    check_keys(rows, columns)
    unreadable = frame[frame["status"] == "unreadable"]
    jobs = by_shortest_name(with_versions(frame[frame["status"] != "unreadable"].reset_index(drop=True)))
    jobs = without_mended(jobs)
    if not metrics:
        metrics = DEFAULT_METRICS if columns == "metric" else DEFAULT_METRICS[:1]
    costs = [name for name in COSTS if cost and name in jobs and jobs[name].notna().any()]
    known = known_groups(jobs)
    names = tuple(dict.fromkeys([*(full_name(metric, known) for metric in metrics), *costs]))
    jobs = with_metrics(jobs, names)
    keys = job_keys(jobs)
    groups = [jobs]
    if "benchmark" not in (rows, columns):
        groups = [group for _, group in jobs.groupby(CONFIGURATION, dropna=False, sort=True)]
    shown = [names] if columns == "metric" else [(name,) for name in names]
    tables = [
        _table(group, keys.loc[group.index], each, rows, columns) for group in groups if len(group) for each in shown
    ]
    if baseline is not None:
        tables = with_baseline(tables, _name_here(baseline, jobs))
    return ComparisonTable(
        benchmarks=tuple(_sorted(table, sort, known) for table in tables),
        unreadable=tuple(f"{row.path}: {row.error}" for row in unreadable.itertuples()),
        notes=remarks.benchmarks_remarks(keys, one_table_each=len(groups) > 1),
    )


def _name_here(method: str, jobs: pd.DataFrame) -> str:
    """Return what rows call a method that may have been named with its defaults."""
    found = jobs.loc[jobs["named"] == method, "method"]
    return str(found.iloc[0]) if found.nunique() == 1 else method


def with_versions(jobs: pd.DataFrame) -> pd.DataFrame:
    """Put jobs that failed before version and weights were known beside those of the same data, if these agree.

    One that failed before its data were known goes with all others of its benchmark, if these agree.
    """
    homeless = jobs["sources"].isna()
    for column, keys, rows in (
        ("version", _SETTINGS, slice(None)),
        ("data", [*_SETTINGS, "sources"], slice(None)),
        ("data", _SETTINGS, homeless),
    ):
        told = jobs.groupby(keys)[column]
        agreed = told.transform("first").where(told.transform("nunique") == 1)
        jobs.loc[rows, column] = jobs.loc[rows, column].fillna(agreed)
    return jobs


def _table(jobs: pd.DataFrame, keys: pd.DataFrame, metrics: tuple[str, ...], row: str, across: str) -> BenchmarkTable:
    finished = finished_once(jobs)
    jobs = jobs.assign(repeated=(jobs["status"] == "ok") & ~jobs.index.isin(finished.index))
    where = keys.loc[finished.index]
    ranked = next((key for key in (row, across) if key in RANKED), None)
    by = ranked or row
    even, uneven = (where.index, False) if across == "metric" else even_cells(where, row, across, by)
    left, where = where.drop(index=even), where.loc[even]
    fair, alone = comparable(where, by)
    unpaired = where.drop(index=fair)
    without = {*left["method"]} - {*where["method"]}
    if across == "metric":
        # A row averages whole methods; one that this row alone has would speak for it.
        where, without = where.loc[fair], {*alone}
    jobs = jobs[~keys.loc[jobs.index, "method"].isin(without)]
    columns = _columns(metrics, where, across)
    shown = {column.key: where.index for column in columns}
    if across != "metric":
        shown = {key: where.index[where[across] == key] for key in shown}
    figures = {column.key: jobs.loc[shown[column.key], column.metric] for column in columns}
    if across == "metric":
        figures.setdefault("seconds", jobs.loc[where.index, "seconds"])
    rows = average(jobs, keys.loc[jobs.index], where.index, row, figures)
    defined = [column.key for column in columns if across == "metric"]
    rows["notes"] = [row_notes(each, defined) for each in rows.to_dict("records")]
    bounds = _bounds(jobs["family"], keys[by]) if by in ("method", "strategy") else frozenset()
    # Other weights make no other images.
    images = finished["sources"].fillna(finished["benchmark"])
    table = BenchmarkTable(
        **(_SEVERAL if "benchmark" in (row, across) else _configuration(jobs)),
        heading=_heading(jobs, row, across, metrics),
        row=row,
        metrics=metrics,
        columns=columns,
        rows=rows,
        blocks=by_images(
            make_blocks(keys.loc[fair], finished.loc[fair, metrics[0]], by),
            dict(zip(keys.loc[finished.index, "benchmark"], images, strict=True)),
        ),
        competitors=find_competitors(keys.loc[fair], by, bounds) if ranked else (),
        bounds=bounds,
    )
    found = _verdict(table) if ranked and len({*table.blocks} - bounds) > 1 else None
    notes = (
        str(found or ""),
        few_seeds(table.blocks),
        remarks.bounds_remark(bounds),
        remarks.named_remark(jobs),
        remarks.averaged_remark(where, row, across),
        remarks.orders_remark(where, row, across),
        *(f"The same in all of {line}." for line in (shared_settings(jobs) if "benchmark" in (row, across) else ())),
        remarks.unlike_remark(table.blocks, by) or remarks.fewer_jobs_remark(where, by, across if by == row else row),
        remarks.edited_remark(jobs[jobs["repeated"]], finished),
        remarks.unpaired_remark(unpaired, alone, by, shown=across != "metric"),
        remarks.cells_remark(left, uneven=uneven),
        remarks.dropped_remark(finished),
        remarks.versions_remark(finished["code_version"]),
    )
    return replace(table, verdict=found, notes=tuple(filter(None, notes)))


def _columns(metrics: tuple[str, ...], keys: pd.DataFrame, across: str) -> tuple[Column, ...]:
    if across == "metric":
        return tuple(Column(name, heading(name), name) for name in metrics)
    return tuple(Column(label, label, metrics[0]) for label in sorted(keys[across].unique()))


def _configuration(jobs: pd.DataFrame) -> dict[str, Any]:
    first = jobs.iloc[0]
    return {name: None if pd.isna(first[name]) else str(first[name]) for name in CONFIGURATION}


def _heading(jobs: pd.DataFrame, row: str, across: str, metrics: tuple[str, ...]) -> str:
    what = "" if across == "metric" else f"{heading(metrics[0])} by {row} and {across}".replace("_", " ")
    if "benchmark" in (row, across):
        return what or "Benchmarks"
    return ": ".join(filter(None, (what, benchmark_heading(jobs))))


def _bounds(families: pd.Series[str], labels: pd.Series[str]) -> frozenset[str]:
    """Return the labels all of whose jobs are of bounds, as far as these say what they are."""
    bound = (families.dropna() == BOUND).groupby(labels).all()
    return frozenset(bound.index[bound])


def _verdict(table: BenchmarkTable) -> Verdict:
    """Judge by ranks over several data sets, whose figures have no common scale, else by paired differences."""
    known = quantity(table.metrics[0])
    levels = table.rivals.index.to_frame()
    several = "benchmark" in levels and levels["benchmark"].nunique() > 1
    judge = rank_verdict if several else verdict
    return judge(table.rivals, known.heading, lower_is_better=known.lower_is_better, scale=known.scale)


def _sorted(table: BenchmarkTable, sort: str | None, groups: Sequence[str]) -> BenchmarkTable:
    """Sort the rows, best first; by default by the first metric (over all columns), or by name if none competes.

    Raises:
        CmlBenchError: If there is no such column.
    """
    names = {table.row, *(name.removesuffix("_mean") for name in map(str, table.rows) if name.endswith("_mean"))}
    by = None if sort is None else sort if sort in names else full_name(sort, groups)
    if by is not None and by not in names:
        raise CmlBenchError(f"sort={sort!r} is no column of the table; {suggest(str(sort), names)}")
    if by is None and (table.row not in RANKED or not table.columns):
        by = table.row
    rows = table.rows.sort_values(table.row, kind="stable")
    notes = table.notes
    if by != table.row:
        keys = [column.key for column in table.columns if column.metric == table.metrics[0]] if by is None else [by]
        metric = next((column.metric for column in table.columns if column.key == keys[0]), keys[0])
        means = rows[[f"{key}_mean" for key in keys]]
        if len(keys) > 1:
            told = "Rows are in order of their mean distance from the means of the columns."
            notes = (*notes[:1], told, *notes[1:])
        # Of several columns the easy ones must not lift the rows that have only these.
        order = means.sub(means.mean()).mean(axis=1)
        ascending = quantity(metric).lower_is_better
        rows = rows.loc[order.sort_values(ascending=ascending, kind="stable", na_position="last").index]
    return replace(table, rows=rows.reset_index(drop=True), notes=notes)
