"""All figures of results in one long table: a row a job, experience, label and metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from cml_bench.report.stored.collect import costs
from cml_bench.runs.results import ResultError, read_result, result_files
from cml_bench.runs.schema import Result

COLUMNS: Final = (
    *("key", "status", "benchmark", "version", "method", "class_order", "seed"),
    *("experience", "label", "metric", "value", "error"),
)
_JOB: Final = 7

Figure = tuple[int | None, str | None, str | None, float | None]


def export_results(results: Path | str | Sequence[Path | str]) -> pd.DataFrame:
    """Return every stored figure as a row of its own.

    Args:
        results: Result files or folders with result files.

    Returns:
        Columns ``COLUMNS``. ``experience`` counts from 1 and is empty for figures of the whole run; ``label`` is empty
        for figures of all labels; ``metric`` is a key of the metrics summary or of the figures after an experience,
        ``ap`` for a label's average precision, or ``seconds``, ``stored_images`` ... for cost; ``value`` is empty where
        undefined. A failed job and a file that is no result are one row each, with their ``error``;
        ``key`` is the path of the latter.

    Raises:
        CmlBenchError: If there is no result.
    """
    rows: list[tuple[Any, ...]] = []
    for path in result_files(results):
        try:
            result = read_result(path)
        except ResultError as error:
            rows.append((str(path), "unreadable", *[None] * (_JOB - 2), None, None, None, None, error.reason))
            continue
        version = result.benchmark.version if result.benchmark else None
        job = result.job
        about = (result.key, result.status, job.benchmark, version, job.method, job.class_order, job.seed)
        if result.status == "ok":
            rows += [(*about, *figure, None) for figure in _figures(result)]
        else:
            rows.append((*about, None, None, None, None, result.error))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({"experience": "Int64", "seed": "Int64", "value": "float64"})


def _figures(result: Result) -> Iterator[Figure]:
    assert result.metrics is not None
    assert result.cost is not None
    for name, value in result.metrics.summary.items():
        yield None, None, name, value
    for name, value in costs(result.cost).items():
        yield None, None, name, value
    for t, after in enumerate(result.metrics.per_experience, start=1):
        yield t, None, "n_seen", after.n_seen
        yield t, None, "n_images", after.n_images
        yield t, None, "dropped_labels", len(after.dropped_labels)
        for name, value in after.figures.items():
            yield t, None, name, value
    seen = [after.n_seen for after in result.metrics.per_experience]
    for column, (label, series) in enumerate(result.metrics.per_label_ap.items()):
        arrived = sum(column >= width for width in seen)
        for t, value in enumerate(series[arrived:], start=arrived + 1):
            yield t, label, "ap", value
