"""One benchmark configuration as a report shows it: its table, its finished jobs and what they did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from cml_bench.report.figures.style import Look, make_looks
from cml_bench.report.stored.history import History, read_history
from cml_bench.report.tables.repeats import finished_once
from cml_bench.report.tables.table import BenchmarkTable


@dataclass(frozen=True, eq=False)
class Run:
    """A finished job and what it did."""

    method: str
    class_order: str
    seed: int
    path: Path
    history: History


@dataclass(frozen=True, eq=False)
class Section:
    """The methods of one benchmark configuration.

    Attributes:
        table: Its table, best method first.
        jobs: Its finished jobs, each once, as ``collect`` describes them.
        runs: What they did, in the same order.
    """

    table: BenchmarkTable
    jobs: pd.DataFrame
    runs: tuple[Run, ...]

    @cached_property
    def looks(self) -> dict[str, Look]:
        """How each method with a finished job is drawn, in the order of the table."""
        rows = self.table.rows[self.table.rows["n"] > 0]
        return make_looks(rows["method"], rows["loss"].fillna(""))

    @cached_property
    def legend(self) -> dict[str, Look]:
        """Looks for means over all jobs: where others have jobs that a method lacks, its name says so."""
        rows = self.table.rows[self.table.rows["n"] < self.table.rows["n_expected"]]
        fewer = {row.method: f" ({row.n} of {row.n_expected} jobs)" for row in rows.itertuples()}
        return {method: replace(look, name=look.name + fewer.get(method, "")) for method, look in self.looks.items()}

    @property
    def n_orders(self) -> int:
        """Number of class orders."""
        return len({run.class_order for run in self.runs})

    def runs_of(self, method: str) -> list[Run]:
        """Return the finished jobs of a method."""
        return [run for run in self.runs if run.method == method]


def make_section(table: BenchmarkTable, frame: pd.DataFrame) -> Section:
    """Return the section of a table made from a frame of ``collect``."""
    jobs = finished_once(table.jobs_in(frame)).reset_index(drop=True)
    runs = [
        Run(str(job["method"]), str(job["class_order"]), int(job["seed"]), Path(job["path"]), read_history(job["path"]))
        for job in jobs.to_dict("records")
    ]
    return Section(table, jobs, tuple(runs))


def first_order(runs: Sequence[Run]) -> str:
    """Return the class order that most jobs have; ``default`` where as many have another."""
    counts = pd.Series([run.class_order for run in runs]).value_counts()
    most = sorted(str(order) for order in counts.index[counts == counts.max()])
    return "default" if "default" in most else most[0]
