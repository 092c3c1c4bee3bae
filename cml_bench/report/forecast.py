"""What a sweep would run, and how long that would take."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cml_bench.errors import CmlBenchError
from cml_bench.report.stored.collect import collect
from cml_bench.runs.freshness import judge
from cml_bench.runs.job import Job
from cml_bench.runs.results import result_path


def forecast(jobs: Sequence[Job], results: Path, retry_failed: bool = True) -> pd.DataFrame:
    """Return what would become of each job.

    Args:
        jobs: The sweep.
        results: Results folder; finished jobs there are what estimates are made of.
        retry_failed: Whether failed jobs run again.

    Returns:
        One row a job: ``benchmark``, ``method``, ``class_order``, ``seed``, ``options``, ``status`` (as
        ``judge`` says), ``runs`` (whether it would run) and ``seconds``: the mean of finished jobs of the
        same benchmark, options and method, else of the same benchmark and options, else NaN.
    """
    judged = judge(jobs, results)
    runs = set(judged.to_run(retry_failed))
    rows = pd.DataFrame(
        [
            {
                "benchmark": job.benchmark,
                "method": job.method,
                "class_order": job.class_order,
                "seed": job.seed,
                "options": " ".join(f"{key}={value}" for key, value in job.options),
                "status": judged.status[job],
                "runs": job in runs,
                "path": str(result_path(results, job)),
            }
            for job in jobs
        ]
    )
    try:
        frame = collect(results)
    except CmlBenchError:
        frame = pd.DataFrame(columns=["path", "status", "seconds"])
    measured = frame.loc[frame["status"] == "ok", ["path", "seconds"]].astype({"path": str})
    known = rows[["path", "benchmark", "options", "method"]].merge(measured, on="path")
    for keys in (["benchmark", "options", "method"], ["benchmark", "options"]):
        means = known.groupby(keys)["seconds"].mean().rename("mean")
        estimate = rows.join(means, on=keys)["mean"]
        rows["seconds"] = estimate if "seconds" not in rows else rows["seconds"].fillna(estimate)
    return rows.drop(columns="path")


def to_terminal(rows: pd.DataFrame, workers: int | None) -> Group:
    """Return the options that all jobs share, the grid, a line a method, and the sum below it.

    Args:
        rows: What ``forecast`` returned.
        workers: Jobs at once; None for one a core.
    """
    from joblib import cpu_count

    options = rows["options"].str.split()
    shared = [option for option in options.iloc[0] if all(option in own for own in options)]
    own = options.map(lambda own: " ".join(option for option in own if option not in shared))
    rows = rows.assign(options=own)
    keys = ["benchmark", *(["options"] if own.any() else []), "method"]
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in keys:
        grid.add_column(name, overflow="fold")
    for name in ("jobs", "done", "to run", "time a job"):
        grid.add_column(name, justify="right")
    for names, group in rows.groupby(keys, sort=False):
        seconds = group["seconds"].mean()
        cells = [
            *map(str, names),
            str(len(group)),
            str((group["status"] == "done").sum()),
            str(group["runs"].sum()),
            "not known" if pd.isna(seconds) else str(timedelta(seconds=round(seconds))),
        ]
        grid.add_row(*map(Text, cells))
    runs = rows[rows["runs"]]
    unknown = int(runs["seconds"].isna().sum())
    at_once = max(1, min(workers or cpu_count(), len(runs)))
    total = timedelta(seconds=round(runs["seconds"].sum() / at_once))
    told = f"about {total} with {at_once} at once" if unknown < len(runs) else "how long cannot be told"
    beside = f", and {unknown} of which no like has been run" if 0 < unknown < len(runs) else ""
    done, failed, changed = (int((rows["status"] == status).sum()) for status in ("done", "failed", "changed"))
    return Group(
        *([Text(f"All jobs: {' '.join(shared)}")] if shared else []),
        grid,
        Text(
            f"{len(rows)} job{'s' if len(rows) > 1 else ''}: {done} done, "
            + (f"{changed} done with data that have changed since, " if changed else "")
            + f"{failed} failed, {len(runs)} to run"
            + (f" ({told}{beside})" if len(runs) else "")
        ),
    )
