"""A row a job: its settings, figures and cost in columns, as statistics of one's own begin."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cml_bench.report.stored.collect import COST_COLUMNS, JOB_COLUMNS, collect
from cml_bench.report.stored.settings import differing
from cml_bench.report.tables.job_metrics import full_name, known_groups, with_metrics
from cml_bench.report.tables.repeats import finished_once, without_mended


def export_jobs(results: Path | str | Sequence[Path | str], metrics: Sequence[str] | str = ()) -> pd.DataFrame:
    """Return one row a job, ordered by benchmark, method, settings, class order and seed.

    As in tables, a job that was run twice is its newest result, failures of jobs that have finished since are left out,
    and so are results of a plug-in file from before it was edited.

    Args:
        results: Result files or folders with result files.
        metrics: Figures to show, as in tables: ``last_map``, ``cf1_macro@0.6``, ``last_map_minor``, or a cost such as
            ``training_seconds``; by default all that are stored. A name without ``last_`` or ``avg_`` is read as
            ``last_``, and the column is headed so.

    Returns:
        Columns ``key`` and ``status`` (``unreadable`` for a file that is no result, its path being the key),
        ``benchmark``, ``method`` as the job named it; a column for each setting of benchmark or training that not all
        jobs were given alike (empty where left at its default); ``class_order``, ``seed``; the figures: fractions,
        counts, seconds, MiB (empty where undefined); and ``error``.

    Raises:
        CmlBenchError: If there is no result, a metric is unknown, or predictions that it needs cannot be read.
    """
    metrics = [metrics] if isinstance(metrics, str) else metrics
    jobs = without_mended(collect(results))
    jobs = jobs[(jobs["status"] != "ok") | jobs.index.isin(finished_once(jobs).index)]
    read = jobs[jobs["status"] != "unreadable"]
    known = known_groups(read)
    stored = [*(str(name) for name in jobs if name not in JOB_COLUMNS), *COST_COLUMNS]
    names = list(dict.fromkeys(full_name(metric, known) for metric in metrics)) if metrics else stored
    taken = {"key", "status", "benchmark", "method", "class_order", "seed", "error", *names}
    # A benchmark may have an option of the same name.
    settings = differing(read["benchmark_options"].map(json.loads)).rename(
        columns=lambda name: f"option {name}" if name in taken else name
    )
    order = ["benchmark", "method", *settings, "class_order", "seed"]
    rows = jobs[["key", "status", "benchmark", "method", "class_order", "seed", "error"]].join(settings)
    rows = rows.join(with_metrics(read, names)[names]).assign(key=rows["key"].fillna(jobs["path"]))
    ordered = rows[["key", "status", *order, *names, "error"]].sort_values(order, ignore_index=True)
    return ordered.astype({"seed": "Int64"})
