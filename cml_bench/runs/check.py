"""Bad input is found before anything runs, and told what can hardly be meant."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence

from cml_bench.errors import CmlBenchWarning, own_warnings
from cml_bench.labels import ABSENT, row_blocks
from cml_bench.losses.criterion import Criterion
from cml_bench.models.backbones import Backbone
from cml_bench.runs.benchmark import Benchmark, DataSetBenchmark, load_sources
from cml_bench.runs.devices import check_device
from cml_bench.runs.federated import clients_of
from cml_bench.runs.given_features import GivenFeatures
from cml_bench.runs.isolation import isolated
from cml_bench.runs.job import Job
from cml_bench.runs.method import Method
from cml_bench.runs.plan import Plan, plan
from cml_bench.runs.setup import make_backbone, make_model, stream_order
from cml_bench.streams.dealing import Rows
from cml_bench.streams.scenario import MultiLabelScenario, Split
from cml_bench.training.config import TrainingConfig

_LEAST_HEAD_LR = 5e-4
"""Rates below are for backbones: heads on features hardly move with them."""


def check_jobs(jobs: Sequence[Job], *, here: bool = True, gpus: float = 0) -> list[str]:
    """Resolve every job and build, once each, the benchmarks, streams and backbones they name; heads and criteria too.

    The process's global generators are left as they were, although layers are initialised.

    Args:
        jobs: What is to run.
        here: Whether the jobs run on this machine, which must have their devices then.
        gpus: What is set apart for each job elsewhere.

    Returns:
        Sentences about what can run but can hardly be meant, and what was warned of on the way, each once.

    Raises:
        CmlBenchError: The first sentence that a job would have failed with.
    """
    heard: dict[str, None] = {}
    with own_warnings(heard.setdefault):
        blind = _blind_methods(jobs, here, gpus)
    return [
        *heard,
        *(
            f"no label of {benchmark} with regime={regime} is marked absent, and these methods learn from marked "
            f"labels alone, so that they call everything present: {', '.join(methods)}. Set loss=assume_negative, "
            "which takes open labels for absent (loss.scope=seen for earlier labels, too), or another loss for open "
            "labels, say role"
            for (benchmark, regime), methods in blind.items()
        ),
    ]


def _blind_methods(jobs: Sequence[Job], here: bool, gpus: float) -> dict[tuple[str, str], dict[str, None]]:
    """Check every job; return by benchmark and regime the methods that would be told of no absent label."""
    streams: dict[tuple[Benchmark, str], tuple[Rows, bool]] = {}
    blind: dict[tuple[str, str], dict[str, None]] = {}
    backbones: dict[tuple[Benchmark, TrainingConfig], Backbone | GivenFeatures] = {}
    built: set[tuple[tuple[Benchmark, TrainingConfig], Method]] = set()
    for job in jobs:
        resolved = plan(job)
        # What a result cannot hold is refused here, not when it is written.
        resolved.settings()
        resolved.describe()
        if here:
            check_device(resolved.training.device, resolved.training.devices)
        elif gpus:
            _warn_of_idle_gpu(resolved.training)
        sources = load_sources(resolved.benchmark)
        stream = (resolved.benchmark, job.class_order)
        if stream not in streams:
            scenario = resolved.benchmark.build(class_order=stream_order(job))
            split = scenario.splits["train"]
            _warn_of_one_experience(resolved.benchmark, scenario)
            streams[stream] = split.rows, _marks_absent(split)
        rows, marks_absent = streams[stream]
        if resolved.training.federated is not None:
            clients_of(resolved, sources[0], rows)
        settings = (resolved.benchmark, resolved.training)
        with isolated(job.seed, resolved.training.threads):
            if settings not in backbones:
                backbones[settings] = make_backbone(resolved, sources)
                _warn_of_random_weights(resolved, backbones[settings])
                _warn_of_slow_head(resolved)
            if (settings, resolved.method) not in built:
                # A copy, or a strategy that freezes what it is given would freeze it for the next.
                make_model(resolved, copy.deepcopy(backbones[settings]))
                built.add((settings, resolved.method))
            criterion = resolved.criterion(**resolved.criterion_options)
        if not marks_absent and _needs_absent(resolved, criterion):
            blind.setdefault((job.benchmark, resolved.benchmark.regime), {})[job.method] = None
    return blind


def _warn_of_idle_gpu(training: TrainingConfig) -> None:
    if training.device == "cpu":
        warnings.warn(
            "the engine sets a GPU apart for each job (gpus=), and device=cpu leaves it idle: set device=cuda",
            CmlBenchWarning,
            stacklevel=2,
        )


def _warn_of_random_weights(resolved: Plan, backbone: Backbone | GivenFeatures) -> None:
    """Say that a backbone knows nothing: where it stays so, and where it learns from data that one has on disk.

    On digits, which are generated, a small network learns from random weights; nobody trains so on photos.
    """
    if not isinstance(backbone, Backbone) or backbone.record["checkpoint"] is not None:
        return
    frozen = resolved.training.frozen
    if frozen or isinstance(resolved.benchmark, DataSetBenchmark):
        what = "keeps the random weights of" if frozen else "starts from random weights of"
        warnings.warn(
            f"frozen={str(frozen).lower()} {what} backbone={backbone.name}: give trained ones as checkpoint=FILE",
            CmlBenchWarning,
            stacklevel=2,
        )


def _warn_of_slow_head(resolved: Plan) -> None:
    usual = resolved.benchmark.training
    if resolved.training.frozen and not usual.frozen and resolved.training.lr == usual.lr < _LEAST_HEAD_LR:
        warnings.warn(
            f"lr={usual.lr:g} is the benchmark's for training a backbone, and frozen=true trains heads alone, which "
            "hardly learn with it: set lr, 0.004 say",
            CmlBenchWarning,
            stacklevel=2,
        )


def _warn_of_one_experience(benchmark: Benchmark, scenario: MultiLabelScenario) -> None:
    if len(scenario.n_seen) == 1 and benchmark.first_experiences is None:
        warnings.warn(
            f"all {scenario.n_seen[0]} labels of {benchmark.meta.name} arrive in one experience: nothing is continual; "
            "set base or increment to fewer",
            CmlBenchWarning,
            stacklevel=2,
        )


def _needs_absent(resolved: Plan, criterion: Criterion) -> bool:
    """Return whether a method learns from marked labels alone; strategies in closed form have rules of their own."""
    meta = getattr(resolved.learner, "meta", None)
    return getattr(meta, "family", "") != "analytic" and not any(part.meta.open for part in criterion.with_bases)


def _marks_absent(split: Split) -> bool:
    rows = split.rows
    blocks = row_blocks(len(rows), split.annotated.shape[1])
    return any(bool((split.annotated[rows[block]] == ABSENT).any()) for block in blocks)
