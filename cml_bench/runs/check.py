"""Bad input is found before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from cml_bench.runs.benchmark import load_sources
from cml_bench.runs.job import Job
from cml_bench.runs.setup import make_backbone, make_model, plan, stream_order


def check_jobs(jobs: Sequence[Job]) -> None:
    """Resolve every job and build, once each, the benchmarks, streams and models they name.

    Raises:
        CmlBenchError: The first sentence that a job would have failed with.
    """
    streams, models = set(), set()
    for job in jobs:
        resolved = plan(job)
        sources = load_sources(resolved.benchmark)
        stream = (resolved.benchmark, job.class_order)
        if stream not in streams:
            resolved.benchmark.build(class_order=stream_order(job))
            streams.add(stream)
        model = (resolved.benchmark, resolved.training, resolved.head, job.method)
        if model not in models:
            make_model(resolved, make_backbone(resolved, sources))
            models.add(model)
