"""A comparison table: its rows, its columns, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pandas as pd

from cml_bench.report.published.rows import PublishedPart
from cml_bench.report.statistics.verdict import Verdict
from cml_bench.report.tables.repeats import CONFIGURATION

BOUND: Final = "bound"
"""Family of methods that see what a learner of the stream may not: they lead no table."""


@dataclass(frozen=True)
class Column:
    """One column of figures.

    Attributes:
        key: Prefix of its statistics in ``rows``: a metric, or a value of what the columns are.
        heading: How it is headed.
        metric: What its figures are.
    """

    key: str
    heading: str
    metric: str


@dataclass(frozen=True)
class BenchmarkTable:
    """One table: jobs of one benchmark configuration, or of several where rows or columns are benchmarks.

    Attributes:
        benchmark: Name; empty for several configurations.
        version: Version, or None if no job got far enough to tell.
        benchmark_options: Canonical JSON; empty for several configurations.
        data: Digest of images, labels and weights, or None if no job got far enough to tell.
        heading: One line that tells the table from others.
        row: What a row is: ``method``, ``head`` ...
        metrics: Metrics and costs shown; the first is the one that verdict and differences are about.
        columns: The columns of figures.
        rows: One row a value of ``row``. Columns: ``row`` itself; for methods ``method_title``, ``family``, ``head``,
            ``loss``, ``wrap`` (None for none) and ``replay_labels``; ``n`` (jobs averaged), ``n_expected`` (jobs that
            any row has), ``failed``, ``duplicates``, ``missing_images`` (most in any job), ``notes``; and for each
            column of figures, and for ``seconds``, ``<key>_mean``, ``_std`` (sample deviation, NaN for one job),
            ``_low``, ``_high``, ``_level`` (interval of the mean and what it holds, see ``statistics.estimates``) and
            ``_n`` (jobs that define it).
        blocks: Figures of the first metric, one row a block (what pairs have in common; benchmarks of the same images
            by these), one column a competitor: a value of ``row``, or of the columns where these compete and rows do
            not.
        competitors: Those that may be marked best: they have every block, and are no bounds.
        bounds: Methods or strategies that see what a continual learner may not, where these compete.
        verdict: Whether the lead is real; None where no two compete.
        baseline: The competitor that others are compared with; None for none.
        differences: ``differences.differences_from`` the baseline; None without one.
        notes: Lines that belong under the table: the verdict, warnings, what was left out.
        published: Numbers of the literature on the same data set and protocol, where they were asked for.
    """

    benchmark: str
    version: str | None
    benchmark_options: str
    data: str | None
    heading: str
    row: str
    metrics: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: pd.DataFrame
    blocks: pd.DataFrame
    competitors: tuple[str, ...]
    bounds: frozenset[str] = frozenset()
    verdict: Verdict | None = None
    baseline: str | None = None
    differences: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()
    published: PublishedPart | None = None

    @property
    def rivals(self) -> pd.DataFrame:
        """The blocks of those that compete: all but bounds."""
        return self.blocks.drop(columns=[*self.bounds], errors="ignore")

    @property
    def complete(self) -> pd.Series[bool]:
        """Whether a row competes for the best: it averages the same jobs as the others, more than one, and no bound.

        One job has no spread to compare with, so among single jobs nothing is called the best.
        """
        return self.rows[self.row].isin(self.competitors)

    def jobs_in(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a frame of ``collect`` that are jobs of its configuration."""
        own = pd.Series(True, frame.index)
        for column in CONFIGURATION:
            value = getattr(self, column)
            own &= frame[column].isna() if value is None else frame[column] == value
        return frame[own]


@dataclass(frozen=True)
class ComparisonTable:
    """All tables of some results folders, and the files that could not be read.

    Attributes:
        benchmarks: The tables: one a benchmark configuration, or one a metric across configurations.
        unreadable: ``path: reason`` for each file that is no result.
        notes: Lines about all tables: how many there are, and methods that some benchmarks lack.
    """

    benchmarks: tuple[BenchmarkTable, ...]
    unreadable: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the tables as Markdown."""
        # Formats stand on this module.
        from cml_bench.report.formats.markdown import to_markdown

        return to_markdown(self)
