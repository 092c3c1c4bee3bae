"""One job after another, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cml_bench.runs.engines.engine import Engine, warn
from cml_bench.runs.events import CheckpointEvery, Report
from cml_bench.runs.job import Job


@dataclass(frozen=True)
class Serial(Engine):
    """One job after another, in this process."""

    def execute(
        self, jobs: Sequence[Job], results: Path, report: Report, workers: int | None, checkpoint_every: CheckpointEvery
    ) -> None:
        """Run jobs in order; there is one worker, whatever is asked for."""
        from cml_bench.runs.run import run_and_store

        warn(report, self.check(jobs))
        for index, job in enumerate(jobs):
            run_and_store(job, results, index=index, report=report, checkpoint_every=checkpoint_every)
