"""A table as it is printed: cells of text, and which of them are the best of their column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pandas as pd

from cml_bench.report.statistics.estimates import CONFIDENCE
from cml_bench.report.statistics.rivals import fair_part
from cml_bench.report.statistics.verdict import p_cell
from cml_bench.report.tables.averages import estimates_in
from cml_bench.report.tables.quantities import COSTS, Quantity, heading, quantity
from cml_bench.report.tables.remarks import interval_remark
from cml_bench.report.tables.table import BenchmarkTable

BEST: Final = "best"
SECOND: Final = "second"

_HEADS: Final = {"class_order": "class order"}
_PARTS: Final = ("head", "loss", "wrap")
_COSTS: Final = frozenset(heading(name) for name in COSTS)


@dataclass(frozen=True)
class Grid:
    """What every format writes.

    Attributes:
        heading: Title of the table.
        cells: Text of each cell; columns are headed as printed.
        marks: Of the same shape: ``BEST``, ``SECOND`` or nothing.
        names: Headings of columns of text rather than figures.
        spare: Headings of figures that may be left out where there is no room, the last first.
        notes: Lines under the table.
    """

    heading: str
    cells: pd.DataFrame
    marks: pd.DataFrame
    names: tuple[str, ...]
    spare: tuple[str, ...]
    notes: tuple[str, ...]

    def lines(self) -> Iterator[list[tuple[str, str, str]]]:
        """Yield each row as triples of heading, text and mark."""
        for texts, marks in zip(self.cells.to_numpy(), self.marks.to_numpy(), strict=True):
            yield list(zip(self.cells.columns, texts, marks, strict=True))


def make_grid(table: BenchmarkTable, *, intervals: bool = False) -> Grid:
    """Print a table's figures: x 100 where they are fractions, mean ± sample deviation over jobs.

    The best and the second of a column are sought among what competes, and as printed, so that equal figures look
    equal: several may be the best, and there is a second only after a single best of at least three. Where the columns
    compete (rows are benchmarks, say), they are sought in each row.

    Args:
        table: What to print.
        intervals: Whether intervals stand in the place of deviations.
    """
    rows = table.rows
    label = _HEADS.get(table.row, table.row)
    texts: dict[str, pd.Series[str]] = {label: rows[table.row]}
    if table.row == "method":
        texts |= {part: rows[part].fillna("") for part in _PARTS if part != "wrap" or rows[part].notna().any()}
    figures = {
        column.heading: _figures(rows, column.key, quantity(column.metric), intervals) for column in table.columns
    }
    beside = _differences(table)
    tail: dict[str, pd.Series[str] | list[str]] = {}
    if "seconds_mean" in rows and "seconds" not in table.metrics:
        tail[heading("seconds")] = _figures(rows, "seconds", quantity("seconds"), intervals)
    tail |= {"n": rows["n"].astype(str), "notes": rows["notes"]}
    cells = pd.DataFrame({**texts, **figures, **beside, **tail}).astype(object)
    if not rows["notes"].any():
        cells = cells.drop(columns="notes")
    notes = list(table.notes)
    if intervals:
        keys = [column.key for column in table.columns]
        notes.append(interval_remark(rows, keys, table.blocks))
    return Grid(
        heading=table.heading,
        cells=cells,
        marks=_marks(table).reindex(columns=cells.columns, fill_value=""),
        names=(*texts, "notes"),
        # What was asked for by name of the option, its cost, goes last.
        spare=tuple(sorted(list(figures)[1:], key=lambda name: name not in _COSTS)),
        notes=tuple(filter(None, notes)),
    )


def without_parts(grid: Grid) -> Grid:
    """Return the grid with methods named without the head and the criterion that columns of their own show.

    Where that would make two rows alike, both keep their names.
    """
    shown = [part for part in _PARTS if part in grid.cells]
    if "method" not in grid.cells or not shown:
        return grid
    bare = grid.cells["method"].map(lambda name: _without(name, shown))
    alike = grid.cells[shown].assign(method=bare).duplicated(keep=False)
    return replace(grid, cells=grid.cells.assign(method=bare.where(~alike, grid.cells["method"])))


def _without(method: str, parts: list[str]) -> str:
    return " ".join(word for word in method.split() if word.partition("=")[0] not in parts)


def _figures(rows: pd.DataFrame, key: str, known: Quantity, intervals: bool) -> list[str]:
    return [known.cell(each, interval=intervals) for each in estimates_in(rows, key)]


def _differences(table: BenchmarkTable) -> dict[str, list[str]]:
    """Return the columns that compare with the baseline: signed difference with its interval, corrected p."""
    if table.differences is None:
        return {}
    known = quantity(table.metrics[0])
    differences, tests = [], []
    for label in table.rows[table.row]:
        if label not in table.differences.index:
            differences.append("baseline" if label == table.baseline else "-")
            tests.append("")
            continue
        found = table.differences.loc[label]
        differences.append(_signed(known, found))
        tests.append(p_cell(float(found["p_holm"])))
    return {f"{known.heading} vs {table.baseline}": differences, "p (Holm)": tests}


def _signed(known: Quantity, found: pd.Series[float]) -> str:
    if pd.isna(found["difference"]):
        return "-"
    text = f"{found['difference'] * known.scale:+,.{known.decimals}f}"
    if pd.isna(found["low"]):
        return text
    # Rows with few pairs stand beside others, and the same brackets would say more than they hold.
    level = f"; {100 * found['level']:.0f} %" if found["level"] < CONFIDENCE else ""
    return f"{text} [{known.printed(found['low'])}, {known.printed(found['high'])}{level}]"


def _marks(table: BenchmarkTable) -> pd.DataFrame:
    marks = pd.DataFrame("", index=table.rows.index, columns=[column.heading for column in table.columns])
    if not table.competitors:
        return marks
    if table.blocks.columns.name == table.row:
        for column in table.columns:
            known = quantity(column.metric)
            if known.ranked:
                # A figure that is undefined in a hard job makes the mean of the others look good.
                defined = table.rows[f"{column.key}_n"].where(table.complete)
                means = table.rows[f"{column.key}_mean"].where(defined == defined.max())
                marks[column.heading] = _placed(means, known)
        return marks
    whole, _ = fair_part(table.blocks)
    rivals = [column for column in table.columns if column.key in table.competitors and column.key in whole]
    known = quantity(table.metrics[0])
    if known.ranked:
        each = table.rows[[f"{column.key}_mean" for column in rivals]]
        marks[[column.heading for column in rivals]] = each.apply(_placed, axis=1, known=known).to_numpy()
    return marks


def _placed(means: pd.Series[float], known: Quantity) -> pd.Series[str]:
    """Return which of the figures are first and second as printed."""
    printed = (means * known.scale).map(f"{{:.{known.decimals}f}}".format).astype(np.float64)
    places = printed.rank(method="min", ascending=known.lower_is_better)
    marks = {1.0: BEST if places.count() > 1 else "", 2.0: SECOND if places.count() > 2 else ""}
    return places.map(marks).fillna("")
