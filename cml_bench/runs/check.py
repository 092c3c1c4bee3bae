"""Bad input is found before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from cml_bench.models.backbones import Backbone
from cml_bench.runs.benchmark import Benchmark, load_sources
from cml_bench.runs.federated import clients_of
from cml_bench.runs.given_features import GivenFeatures
from cml_bench.runs.isolation import isolated
from cml_bench.runs.job import Job
from cml_bench.runs.setup import make_backbone, make_model, plan, stream_order
from cml_bench.streams.dealing import Rows
from cml_bench.training.config import TrainingConfig


def check_jobs(jobs: Sequence[Job]) -> None:
    """Resolve every job and build, once each, the benchmarks, streams and backbones they name; heads and criteria too.

    The process's global generators are left as they were, although layers are initialised.

    Raises:
        CmlBenchError: The first sentence that a job would have failed with.
    """
    streams: dict[tuple[Benchmark, str], Rows] = {}
    backbones: dict[tuple[Benchmark, TrainingConfig], Backbone | GivenFeatures] = {}
    for job in jobs:
        resolved = plan(job)
        sources = load_sources(resolved.benchmark)
        stream = (resolved.benchmark, job.class_order)
        if stream not in streams:
            scenario = resolved.benchmark.build(class_order=stream_order(job))
            streams[stream] = scenario.splits["train"].rows
        if resolved.training.federated is not None:
            clients_of(resolved, sources[0], streams[stream])
        settings = (resolved.benchmark, resolved.training)
        with isolated(job.seed, resolved.training.threads):
            if settings not in backbones:
                backbones[settings] = make_backbone(resolved, sources)
            make_model(resolved, backbones[settings])
            resolved.criterion(**resolved.criterion_options)
