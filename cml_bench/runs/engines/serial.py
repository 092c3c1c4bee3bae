"""One job after another, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cml_bench.runs.events import CheckpointEvery, Report
from cml_bench.runs.job import Job


def execute(
    jobs: Sequence[Job], results: Path, report: Report, checkpoint_every: CheckpointEvery = "experience"
) -> None:
    """Run jobs in order; each result is written as soon as it is there."""
    from cml_bench.runs.check import check_jobs
    from cml_bench.runs.run import run_and_store

    check_jobs(jobs)
    for index, job in enumerate(jobs):
        run_and_store(job, results, index=index, report=report, checkpoint_every=checkpoint_every)
