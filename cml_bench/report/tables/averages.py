"""The rows of a table: means over jobs, and everything that is missing behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from cml_bench.report.statistics.estimates import Estimate, estimates
from cml_bench.report.statistics.units import one_an_order
from cml_bench.report.tables.keys import BLOCK

SHOWN: Final = ("method_title", "family", "head", "loss", "wrap", "replay_labels")
"""What is said of a row that is a method."""

_STATISTICS: Final = ("mean", "std", "low", "high", "level", "n")


def average(
    jobs: pd.DataFrame,
    keys: pd.DataFrame,
    done: pd.Index[int],
    row: str,
    figures: dict[str, pd.Series[float]],
) -> pd.DataFrame:
    """Return one row a value of ``row``; see ``BenchmarkTable.rows``. Statistics are over ``one_an_order``.

    Args:
        jobs: All jobs of the table, failed and repeated ones as well.
        keys: Their keys.
        done: The jobs to average.
        row: One of ``KEYS``.
        figures: For each column of figures, its prefix and the figures of the jobs that it is about.
    """
    where = keys.loc[done]
    expected = len(where[list(BLOCK[row])].drop_duplicates())
    groups = {str(label): group for label, group in jobs.groupby(keys[row], sort=True)}
    counted = {str(label): group for label, group in where.groupby(row)}
    rows = pd.DataFrame(
        [
            {
                row: label,
                **({name: next(iter(group[name].dropna()), None) for name in SHOWN} if row == "method" else {}),
                "n": len(counted[label][list(BLOCK[row])].drop_duplicates()) if label in counted else 0,
                "n_expected": expected,
                "failed": int((group["status"] == "failed").sum()),
                "duplicates": int(group["repeated"].sum()),
                "missing_images": int(group["missing_images"].max()),
            }
            for label, group in groups.items()
        ]
    )
    orders = where["class_order"]
    cells = where.groupby([key for key in (row, *BLOCK[row]) if key != "seed"], dropna=False).ngroup()
    statistics = {}
    for key, values in figures.items():
        chosen = values.loc[values.index.intersection(done)]
        jobs_of = {str(label): sample for label, sample in chosen.groupby(keys.loc[chosen.index, row])}
        samples = [jobs_of.get(label, chosen[:0]) for label in rows[row]]
        found = estimates([one_an_order(each, [*orders[each.index]], cells[each.index]) for each in samples])
        each = [
            (one.mean, one.deviation, one.low, one.high, one.level, sample.count())
            for one, sample in zip(found, samples, strict=True)
        ]
        for name, column in zip(_STATISTICS, zip(*each, strict=True), strict=True):
            statistics[f"{key}_{name}"] = column
    return pd.concat([rows, pd.DataFrame(statistics, index=rows.index)], axis=1)


def estimates_in(rows: pd.DataFrame, key: str) -> list[Estimate]:
    """Return what ``average`` found of one column of figures, row by row."""
    columns = [f"{key}_{name}" for name in _STATISTICS]
    return [Estimate(*values) for values in rows[columns].itertuples(index=False, name=None)]


def row_notes(row: dict[Any, Any], metrics: Sequence[str]) -> str:
    """Say beside the numbers of one row everything that is missing behind them.

    Args:
        row: The row as a dictionary.
        metrics: Columns that each job of the row should have a figure for.
    """
    notes = []
    if row["n"] < row["n_expected"]:
        notes.append(f"incomplete: {row['n']} of {row['n_expected']} jobs")
    if row["failed"]:
        notes.append(f"{row['failed']} failed")
    if row["duplicates"]:
        older = "result" if row["duplicates"] == 1 else "results"
        notes.append(f"{row['duplicates']} older {older} left out")
    if row["missing_images"]:
        notes.append(f"{row['missing_images']} images missing")
    if isinstance(row.get("replay_labels"), str) and row["replay_labels"] != "as_stored":
        notes.append(f"replays {row['replay_labels']} labels")
    notes += [
        f"{name} undefined in {row['n'] - row[f'{name}_n']} of {row['n']} jobs"
        for name in metrics
        if row[f"{name}_n"] < row["n"]
    ]
    return "; ".join(notes)
