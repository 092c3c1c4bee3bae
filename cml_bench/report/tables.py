"""Comparison tables: one a benchmark configuration, one row a method, mean and deviation over jobs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from cml_bench.errors import CmlBenchError, suggest
from cml_bench.metrics.retention import forward_transfer, mean_defined
from cml_bench.report.collect import JOB_COLUMNS

DEFAULT_METRICS: Final = (
    "last_map",
    "avg_map",
    "last_cf1_macro@0.5",
    "last_cf1_harmonic@0.5",
    "last_of1@0.5",
    "forgetting",
)
"""Both definitions of class F1 stand side by side, because papers print either under the same name."""

FRESH: Final = "from_scratch"
"""Method whose runs forward transfer is measured against."""

_AT_THRESHOLD = re.compile(r"(?P<span>last_|avg_)?(?P<name>[a-z0-9_]+)@(?P<threshold>0?\.\d+)")
_SHOWN = ("method_title", "head", "loss", "wrap", "replay_labels")
_SETTINGS = ["benchmark", "benchmark_options"]
_CONFIGURATION = ["benchmark", "version", "benchmark_options", "data"]


@dataclass(frozen=True)
class BenchmarkTable:
    """The methods of one benchmark configuration: same benchmark, version, options and data.

    Attributes:
        benchmark: Name.
        version: Version, or None if no job got far enough to tell.
        benchmark_options: Canonical JSON.
        data: Digest of images, labels and weights, or None if no job got far enough to tell.
        heading: One line that tells the configuration from others.
        metrics: Metric names in column order.
        rows: One row a method, best ``last_map`` first. Columns ``method`` (canonical spec), ``method_title``,
            ``head``, ``loss``, ``wrap`` (None for none), ``replay_labels``, ``n`` (jobs averaged), ``n_expected`` (most
            class orders x seeds that any method here has), ``failed``, ``duplicates``, ``missing_images`` (most in any
            job), ``notes``; and for each metric and for ``seconds`` ``<name>_mean``, ``<name>_std`` (sample deviation,
            NaN for one job), ``<name>_n`` (jobs that define it).
    """

    benchmark: str
    version: str | None
    benchmark_options: str
    data: str | None
    heading: str
    metrics: tuple[str, ...]
    rows: pd.DataFrame

    @property
    def complete(self) -> pd.Series[bool]:
        """Whether a row averages as many jobs as the best-covered method; only such rows compete for the best.

        One job has no spread to compare with, so among single jobs nothing is called the best.
        """
        return (self.rows["n"] > 1) & (self.rows["n"] == self.rows["n_expected"])


@dataclass(frozen=True)
class ComparisonTable:
    """All benchmark configurations of a results folder, and the files that could not be read.

    Attributes:
        benchmarks: One table a configuration.
        unreadable: ``path: reason`` for each file that is no result.
    """

    benchmarks: tuple[BenchmarkTable, ...]
    unreadable: tuple[str, ...]

    def __str__(self) -> str:
        """Return the tables as Markdown."""
        # Formats stand on this module.
        from cml_bench.report.formats import to_markdown

        return to_markdown(self)


def compare(frame: pd.DataFrame, metrics: Sequence[str] = DEFAULT_METRICS) -> ComparisonTable:
    """Average the jobs of each method on each benchmark configuration.

    A job that was run twice (same configuration, method, class order and seed) counts once. Failed jobs are counted
    and never averaged.

    Args:
        frame: What ``collect`` returned, or some of its rows.
        metrics: Keys of the metrics summary; a decision metric at a threshold that was not stored
            (``last_cf1_macro@0.6``; ``cf1_macro@0.6`` for short) is computed from the predictions beside the result.

    Raises:
        CmlBenchError: If a metric is unknown, or predictions that are needed cannot be read.
    """
    unreadable = frame[frame["status"] == "unreadable"]
    jobs = _with_versions(frame[frame["status"] != "unreadable"].reset_index(drop=True))
    names = tuple(_full_name(metric) for metric in metrics)
    for name in names:
        jobs[name] = _values(jobs, name)
    benchmarks = [
        _benchmark_table(configuration, group, names)
        for configuration, group in jobs.groupby(_CONFIGURATION, dropna=False, sort=True)
    ]
    lines = [f"{row.path}: {row.error}" for row in unreadable.itertuples()]
    return ComparisonTable(tuple(benchmarks), tuple(lines))


def _with_versions(jobs: pd.DataFrame) -> pd.DataFrame:
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


def _full_name(metric: str) -> str:
    """Return the summary key that a metric name means; a bare decision metric is that after the last experience."""
    match = _AT_THRESHOLD.fullmatch(metric)
    if match is None:
        return metric
    return f"{match['span'] or 'last_'}{match['name']}@{float(match['threshold']):g}"


def _values(jobs: pd.DataFrame, name: str) -> pd.Series[float]:
    """Return a metric of each job: as stored, else computed; NaN for failed jobs."""
    known = [column for column in jobs.columns if column not in JOB_COLUMNS]
    values = jobs[name] if name in known else pd.Series(float("nan"), index=jobs.index)
    done = jobs["status"] == "ok"
    if name == "forward_transfer":
        return _forward_transfer(jobs, done)
    match = _AT_THRESHOLD.fullmatch(name)
    if match is not None:
        absent = done & values.isna()
        computed = [_from_predictions(Path(path), name, match) for path in jobs.loc[absent, "path"]]
        return values.where(~absent, pd.Series(computed, index=jobs.index[absent], dtype="float64"))
    if name not in known and done.any():
        raise CmlBenchError(f"metric {name!r} is in no result; {suggest(name, known)}")
    return values


def _forward_transfer(jobs: pd.DataFrame, done: pd.Series[bool]) -> pd.Series[float]:
    """Return how much better the labels of later experiences were learnt than by the ``from_scratch`` job beside.

    The reference has the same configuration, head, criterion, wrapper, class order and seed; NaN where it was not run.

    Raises:
        CmlBenchError: If no reference was run at all.
    """
    beside = [*_CONFIGURATION, "head", "loss", "wrap", "class_order", "seed"]
    scratch = jobs[done & (jobs["method"].astype(str).str.split().str[0] == FRESH)].drop_duplicates(beside)
    if scratch.empty:
        raise CmlBenchError(f"metric 'forward_transfer' compares with {FRESH!r}: run that method as well")
    pairs = jobs.merge(scratch[[*beside, "when_learnt"]], on=beside, how="left", suffixes=("", "_fresh"))
    values = [
        mean_defined(forward_transfer(np.diag(own), fresh)) if isinstance(fresh, tuple) and own else float("nan")
        for own, fresh in zip(pairs["when_learnt"], pairs["when_learnt_fresh"], strict=True)
    ]
    return pd.Series(values, index=jobs.index, dtype="float64")


def _from_predictions(path: Path, name: str, match: re.Match[str]) -> float:
    # Imported here because it costs a second and is needed only for thresholds that no run has stored.
    from cml_bench.metrics.decisions import DECISION_METRICS
    from cml_bench.metrics.evaluate import decide, summarize
    from cml_bench.metrics.predictions import Predictions

    if match["name"] not in DECISION_METRICS:
        raise CmlBenchError(f"metric {name!r} is unknown; {suggest(match['name'], DECISION_METRICS)}")
    predictions = Predictions.load(path.with_suffix(".npz"))
    return summarize(decide(predictions, [float(match["threshold"])]))[name]


def _benchmark_table(configuration: Any, jobs: pd.DataFrame, metrics: tuple[str, ...]) -> BenchmarkTable:
    benchmark, version, benchmark_options, data = (None if pd.isna(part) else str(part) for part in configuration)
    done = jobs[jobs["status"] == "ok"].drop_duplicates(["method", "class_order", "seed"], keep="last")
    expected = int(done.groupby("method").size().max()) if len(done) else 0
    rows = pd.DataFrame([_row(str(method), group, done, metrics) for method, group in jobs.groupby("method")])
    rows["n_expected"] = expected
    rows["notes"] = [_notes(row, metrics) for row in rows.to_dict("records")]
    rows = rows.sort_values(["order", "method"], ascending=[False, True], na_position="last").drop(columns="order")
    title = next((str(title) for title in jobs["title"].dropna()), str(benchmark))
    protocol = next((str(protocol) for protocol in jobs["protocol"].dropna() if protocol not in title), "")
    settings = {"version": version, "data": data}
    told = [f"{name} {value}" for name, value in settings.items() if value is not None]
    options = " ".join(f"{key}={value}" for key, value in json.loads(str(benchmark_options)).items())
    heading = ", ".join(filter(None, (title, protocol, *told, options)))
    return BenchmarkTable(
        benchmark=str(benchmark),
        version=version,
        benchmark_options=str(benchmark_options),
        data=data,
        heading=heading,
        metrics=metrics,
        rows=rows.reset_index(drop=True),
    )


def _row(method: str, jobs: pd.DataFrame, all_done: pd.DataFrame, metrics: tuple[str, ...]) -> dict[str, Any]:
    done = all_done[all_done["method"] == method]
    row: dict[str, Any] = {
        "method": method,
        **{name: next(iter(jobs[name].dropna()), None) for name in _SHOWN},
        "n": len(done),
        "n_expected": 0,
        "failed": int((jobs["status"] == "failed").sum()),
        "duplicates": int((jobs["status"] == "ok").sum()) - len(done),
        "missing_images": int(jobs["missing_images"].max()),
        "order": done["last_map"].mean() if "last_map" in done else done[metrics[0]].mean(),
    }
    for name in (*metrics, "seconds"):
        row |= {
            f"{name}_mean": done[name].mean(),
            f"{name}_std": done[name].std(ddof=1),
            f"{name}_n": done[name].count(),
        }
    return row


def _notes(row: dict[Any, Any], metrics: tuple[str, ...]) -> str:
    """Say beside the numbers everything that is missing behind them."""
    notes = []
    if row["n"] < row["n_expected"]:
        notes.append(f"incomplete: {row['n']} of {row['n_expected']} jobs")
    if row["failed"]:
        notes.append(f"{row['failed']} failed")
    if row["duplicates"]:
        notes.append(f"{row['duplicates']} run twice, counted once")
    if row["missing_images"]:
        notes.append(f"{row['missing_images']} images missing")
    if isinstance(row["replay_labels"], str) and row["replay_labels"] != "as_stored":
        notes.append(f"replays {row['replay_labels']} labels")
    notes += [
        f"{name} undefined in {row['n'] - row[f'{name}_n']} of {row['n']} jobs"
        for name in metrics
        if row[f"{name}_n"] < row["n"]
    ]
    return "; ".join(notes)
