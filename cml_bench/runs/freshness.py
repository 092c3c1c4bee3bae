"""Which jobs of a sweep have a result, and whether it still stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cml_bench.errors import CmlBenchError
from cml_bench.options import Pairs
from cml_bench.runs.basis import Data, present_basis, present_data
from cml_bench.runs.job import Job
from cml_bench.runs.results import kept_result

Status = Literal["done", "changed", "failed", "missing"]


@dataclass(frozen=True)
class Judgement:
    """How the jobs of a sweep stand.

    Attributes:
        status: By job, ``changed`` if it is done but what its result stands on has changed since.
        doubt: Why it could not be looked at whether that has changed; None if it could.
    """

    status: dict[Job, Status]
    doubt: CmlBenchError | None = None

    def having(self, status: Status) -> list[Job]:
        """Return the jobs of a status."""
        return [job for job, found in self.status.items() if found == status]

    def to_run(self, retry_failed: bool = True) -> list[Job]:
        """Return the jobs that are to run; failed ones are among them unless they are to be kept."""
        settled = ("done",) if retry_failed else ("done", "failed")
        return [job for job, found in self.status.items() if found not in settled]


def judge(jobs: Sequence[Job], results: Path) -> Judgement:
    """Return how jobs stand.

    Where data cannot be read, results are as good as they were: whoever runs the jobs that are left says what is wrong.

    Raises:
        NewerResultError: If a result is of a newer version of cml_bench, which must not be written over.
    """
    status: dict[Job, Status] = {}
    # Read once for all methods and seeds, and not again if it cannot be read.
    data: dict[tuple[str, Pairs], Data | CmlBenchError] = {}
    doubt = None
    for job in jobs:
        result = kept_result(results, job)
        if result is None or result.status == "failed":
            status[job] = "missing" if result is None else "failed"
            continue
        status[job] = "done"
        where = (job.benchmark, job.options)
        try:
            if where not in data:
                data[where] = present_data(job)
            if isinstance(found := data[where], CmlBenchError):
                continue
            if present_basis(job, found).has_left(result):
                status[job] = "changed"
        except CmlBenchError as error:
            data.setdefault(where, error)
            doubt = doubt or error
    return Judgement(status, doubt)
