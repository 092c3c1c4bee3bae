"""One benchmark configuration as a report shows it: its table, its finished jobs and what they did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from cml_bench.report.figures.style import Look, make_looks
from cml_bench.report.history import History, read_history
from cml_bench.report.tables import BenchmarkTable


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
        rows = self.table.rows
        return make_looks(rows.loc[rows["n"] > 0, "method"])

    @property
    def bounds(self) -> set[str]:
        """Methods that are bounds for others, such as training on everything at once."""
        return set(self.jobs.loc[self.jobs["family"] == "bound", "method"])

    def runs_of(self, method: str) -> list[Run]:
        """Return the finished jobs of a method."""
        return [run for run in self.runs if run.method == method]

    def blocks(self, metric: str) -> pd.DataFrame:
        """Return a metric of each job: one row a class order and seed, one column a method, in the table's order."""
        blocks = self.jobs.pivot(index=["class_order", "seed"], columns="method", values=metric)
        return blocks[list(self.looks)]


def make_section(table: BenchmarkTable, frame: pd.DataFrame) -> Section:
    """Return the section of a table made from a frame of ``collect``."""
    settings = {"benchmark": table.benchmark, "version": table.version, "benchmark_options": table.benchmark_options}
    own = frame["status"] == "ok"
    for column, value in {**settings, "data": table.data}.items():
        own &= frame[column] == value
    jobs = frame[own].drop_duplicates(["method", "class_order", "seed"], keep="last").reset_index(drop=True)
    runs = [
        Run(str(job.method), str(job.class_order), int(job.seed), Path(job.path), read_history(Path(job.path)))
        for job in jobs.itertuples()
    ]
    return Section(table, jobs, tuple(runs))


def first_order(runs: Sequence[Run]) -> str:
    """Return the class order that most jobs have; ``default`` where as many have another."""
    counts = pd.Series([run.class_order for run in runs]).value_counts()
    most = sorted(str(order) for order in counts.index[counts == counts.max()])
    return "default" if "default" in most else most[0]


def all_blocks(sections: Sequence[Section], metric: str = "last_map") -> pd.DataFrame:
    """Return the blocks of several sections below each other, with a level ``benchmark`` before the others."""
    parts = {i: section.blocks(metric) for i, section in enumerate(sections)}
    blocks = pd.concat(parts, names=["benchmark"])
    headings = [sections[i].table.heading for i in blocks.index.get_level_values("benchmark")]
    repeated = len(set(headings)) < len(sections)
    levels = [blocks.index.get_level_values(name) for name in blocks.index.names[1:]]
    first = blocks.index.get_level_values("benchmark").astype(str) if repeated else headings
    blocks.index = pd.MultiIndex.from_arrays([first, *levels], names=blocks.index.names)
    return blocks
