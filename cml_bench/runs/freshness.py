"""Are results still about the data that lie on the disk?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cml_bench.runs.benchmark import load_sources
from cml_bench.runs.job import Job
from cml_bench.runs.plan import plan
from cml_bench.runs.results import result_path


def fingerprints(job: Job) -> dict[str, str]:
    """Return the fingerprints of the training and the test images of a job, as its result would hold them.

    Raises:
        CmlBenchError: If the job or its data cannot be read, or an image is missing that may not be.
    """
    train, test = load_sources(plan(job).benchmark)
    return {"train": train.fingerprint, "test": test.fingerprint}


def changed_jobs(done: Sequence[Job], results: Path) -> list[Job]:
    """Return those of some finished jobs whose data have changed since.

    Raises:
        CmlBenchError: If the data cannot be read; whether they have changed is not known then.
    """
    now: dict[object, dict[str, str]] = {}
    changed = []
    for job in done:
        where = (job.benchmark, job.options)
        if where not in now:
            now[where] = fingerprints(job)
        data = json.loads(result_path(results, job).read_text(encoding="utf-8"))["data"]
        if any(data[split]["fingerprint"] != found for split, found in now[where].items()):
            changed.append(job)
    return changed
