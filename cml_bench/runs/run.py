"""One job, one result."""

from __future__ import annotations

import dataclasses
import itertools
import traceback
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError, in_one_line
from cml_bench.metrics.evaluate import evaluate, evaluate_after
from cml_bench.metrics.per_user import per_user
from cml_bench.metrics.predictions import Predictions
from cml_bench.runs.benchmark import Benchmark, load_sources
from cml_bench.runs.checkpoint import (
    Checkpoints,
    Logits,
    checkpoint_folder,
    identity,
    remove_checkpoints,
)
from cml_bench.runs.claim import claim
from cml_bench.runs.cost import CostMeter
from cml_bench.runs.engines.engine import SKIPPED
from cml_bench.runs.environment import environment
from cml_bench.runs.events import CheckpointEvery, Event, Report
from cml_bench.runs.federated import federation_record, make_course
from cml_bench.runs.isolation import isolated
from cml_bench.runs.job import LOCATIONS, Job
from cml_bench.runs.job_log import JobLog
from cml_bench.runs.learn import predict
from cml_bench.runs.progress import EpochReporter
from cml_bench.runs.results import SCHEMA_VERSION, result_path, write_result
from cml_bench.runs.setup import Plan, make_backbone, make_inputs, make_model, plan, stream_order
from cml_bench.runs.snapshots import Snapshots
from cml_bench.streams.builder import MultiLabelScenario
from cml_bench.training.context import RunContext
from cml_bench.training.recorder import LogitRecorder


@dataclasses.dataclass(frozen=True)
class Run:
    """What a finished job made: the JSON-ready result and the predictions it was computed from."""

    result: dict[str, Any]
    predictions: Predictions


def run_job(
    job: Job,
    *,
    index: int = 0,
    report: Report = lambda event: None,
    checkpoints: Path | None = None,
    models_beside: Path | None = None,
    log: Path | None = None,
) -> Run:
    """Train and evaluate one job; writes nothing but checkpoints and models.

    (code version, job, thread count) determines the predictions bit for bit on CPU, interrupted or not; the process's
    global generators and thread count are left as they were.

    Args:
        job: What to run.
        index: The job's number in its sweep, passed on to ``report``.
        report: Called with signs of life.
        checkpoints: Folder of the job's checkpoints, which it goes on from and adds to; None for none.
        models_beside: Result file that the model after each experience is kept beside; None to keep none.
        log: Folder of the experiment tracker that ``job.log`` names; None for no log.

    Raises:
        CmlBenchError: If the input is bad or the loss diverges.
    """
    report(Event(index, "start"))
    resolved = plan(job)
    meter = CostMeter()
    with isolated(job.seed, resolved.training.threads), warnings.catch_warnings(record=True):
        # Avalanche and torch warn of what is not ours to change; what matters to users raises. Recorded, because
        # Avalanche turns warnings on again that were ignored.
        with meter.phase("data"):
            sources = load_sources(resolved.benchmark)
            backbone = make_backbone(resolved, sources)
            inputs = make_inputs(
                resolved, backbone, sources, job.seed, lambda message: report(Event(index, "phase", message))
            )
            scenario = resolved.benchmark.build(
                class_order=stream_order(job), train_inputs=inputs[0], test_inputs=inputs[1]
            )
        model = make_model(resolved, backbone).to(resolved.training.device)
        run = RunContext(
            seed=job.seed,
            training=resolved.training,
            model=model,
            criterion=resolved.criterion(**resolved.criterion_options).to(resolved.training.device),
            oracle=scenario.oracle,
        )
        stored = None
        if checkpoints is not None:
            # A job that kept no models has none of its first experiences.
            found = {**identity(job, resolved, sources), "models": "kept" if models_beside else "none"}
            stored = Checkpoints(checkpoints, found, lambda message: report(Event(index, "note", message)))
        snapshots = Snapshots(models_beside, backbone, model) if models_beside else None
        with JobLog(job, log, resolved.training.epochs) if log else nullcontext() as tracker:
            told = _both(tracker, report) if tracker else report
            predictions = _record(resolved, run, scenario, meter, index, told, stored, snapshots)
        with meter.phase("metrics"):
            metrics = evaluate(predictions)
            tested = scenario.splits[resolved.benchmark.evaluate_on]
            if "user" in tested.source.groups:
                by_user = per_user(predictions, tested.source.groups["user"][tested.rows])
                metrics = {**metrics, **by_user, "summary": {**metrics["summary"], **by_user["summary"]}}
    result = {
        "schema_version": SCHEMA_VERSION,
        "key": job.key,
        "status": "ok",
        "error": None,
        "job": _job_record(job, resolved),
        "benchmark": _benchmark_record(resolved.benchmark, scenario),
        "method": resolved.describe(),
        "metrics": metrics,
        "cost": {"seconds": meter.seconds, "peak_memory_mb": meter.peak_memory_mb, "parameters": _count(model)},
        "data": {name: _data_record(part.source) for name, part in scenario.splits.items()},
        "missing": [name for source in sources for name in source.missing],
        "backbone": backbone.record,
        "environment": environment(resolved.training.device),
    }
    if resolved.training.federated is not None:
        result["federation"] = federation_record(resolved, scenario)
    return Run(result, predictions)


def run_and_store(
    job: Job,
    results: Path,
    *,
    index: int = 0,
    report: Report = lambda event: None,
    checkpoint_every: CheckpointEvery = "experience",
) -> dict[str, Any] | None:
    """Run a job and write its files; a failure is a result too, with its sentence.

    A job that was stopped goes on from its last checkpoint, which lies beside the result until that is written. A job
    that another process is running is left to it.

    Returns:
        The result as written; None for a job that another process is running.
    """
    with claim(result_path(results, job)) as mine:
        if not mine:
            report(Event(index, "skipped", SKIPPED))
            return None
        result = _run_and_store(job, results, index, report, checkpoint_every)
    # Only now: what is reported as done must survive an interruption.
    done = result["status"] == "ok"
    report(Event(index, "done", fraction=1.0) if done else Event(index, "failed", result["error"]))
    return result


def _run_and_store(
    job: Job, results: Path, index: int, report: Report, checkpoint_every: CheckpointEvery
) -> dict[str, Any]:
    path = result_path(results, job)
    folder = checkpoint_folder(path)
    try:
        checkpoints = folder if checkpoint_every == "experience" else None
        models_beside = path if job.save_models else None
        log = path.with_suffix(".log") if job.log else None
        made = run_job(job, index=index, report=report, checkpoints=checkpoints, models_beside=models_beside, log=log)
        made.predictions.save(path.with_suffix(".npz"))
        result = made.result
    except Exception as error:
        expected = isinstance(error, CmlBenchError)
        sentence = str(error) if expected else f"{in_one_line(error)}; the traceback is in {path}"
        return store_failure(job, results, sentence, None if expected else traceback.format_exc())
    write_result(path, result)
    remove_checkpoints(folder)
    return result


def store_failure(job: Job, results: Path, sentence: str, trace: str | None = None) -> dict[str, Any]:
    """Write the result of a job that failed, and return it."""
    result = {
        "schema_version": SCHEMA_VERSION,
        "key": job.key,
        "status": "failed",
        "error": sentence,
        "traceback": trace,
        "job": _job_record(job, None),
        "data": _data_of(job),
    }
    write_result(result_path(results, job), result)
    return result


def _record(
    resolved: Plan,
    run: RunContext,
    scenario: MultiLabelScenario,
    meter: CostMeter,
    index: int,
    report: Report,
    checkpoints: Checkpoints | None,
    snapshots: Snapshots | None,
) -> Predictions:
    """Train on the stream and record the logits of the evaluation images after each experience."""
    recorder = LogitRecorder()
    reporter = EpochReporter(report, index, len(scenario.n_seen))
    course = make_course(resolved, run, scenario, [recorder, reporter])
    logits: list[Logits] = checkpoints.resume(course, meter) if checkpoints else []
    for t in itertools.count(len(logits)):
        reporter.experience = t
        with meter.phase("training"):
            learner = next(course, None)
        if learner is None:
            break
        with meter.phase("evaluation"):
            # float16 ends at 65504.
            bounded = predict(learner, recorder, scenario, t, resolved.benchmark.evaluate_on).clamp(-60000, 60000)
            logits.append(bounded.to(torch.float16).numpy())
        with meter.phase("metrics"):
            figures = evaluate_after(_predictions(scenario, resolved.benchmark.evaluate_on, logits), t)
        done = (t + 1) / len(scenario.n_seen)
        report(Event(index, "experience", experience=t, epoch=run.training.epochs, fraction=done, metrics=figures))
        if snapshots:
            snapshots.keep(t, learner.model)
        # After the last one the result itself is about to be written.
        if checkpoints and t + 1 < len(scenario.n_seen):
            checkpoints.keep(course, logits, meter)
    return _predictions(scenario, resolved.benchmark.evaluate_on, logits)


def _both(first: Report, second: Report) -> Report:
    def report(event: Event) -> None:
        first(event)
        second(event)

    return report


def _predictions(scenario: MultiLabelScenario, split: str, logits: list[Logits]) -> Predictions:
    part = scenario.splits[split]
    rows = part.rows
    return Predictions(
        label_names=scenario.label_names,
        sample_ids=part.source.ids[rows],
        truth=part.truth[rows],
        n_seen=scenario.n_seen,
        test_rule=scenario.test_rule,
        test_images=np.stack([np.isin(rows, experience) for experience in part.experiences]),
        logits=tuple(logits),
    )


def _job_record(job: Job, resolved: Plan | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "benchmark": job.benchmark,
        "benchmark_options": {key: value for key, value in job.options if key not in LOCATIONS},
        "locations": {key: value for key, value in job.options if key in LOCATIONS},
        "method": job.method,
        "class_order": job.class_order,
        "seed": job.seed,
    }
    if resolved is not None:
        record["resolved"] = {
            "benchmark": dataclasses.asdict(resolved.benchmark),
            "training": dataclasses.asdict(resolved.training),
        }
    return record


def _benchmark_record(benchmark: Benchmark, scenario: MultiLabelScenario) -> dict[str, Any]:
    meta = benchmark.meta
    return {
        "name": meta.name,
        "title": meta.title,
        "version": meta.version,
        "protocol": scenario.protocol,
        "label_names": list(scenario.label_names),
        "n_seen": list(scenario.n_seen),
        "images_per_experience": [len(rows) for rows in scenario.splits["train"].experiences],
        "unassigned_images": scenario.unassigned,
    }


def _data_of(job: Job) -> dict[str, Any] | None:
    """Return what a failed job was about, if that much can be read: it belongs to the table of its data."""
    try:
        return {source.split: _data_record(source) for source in load_sources(plan(job).benchmark)}
    except CmlBenchError:
        return None


def _data_record(source: Source) -> dict[str, Any]:
    return {"name": source.name, "fingerprint": source.fingerprint, "counts": source.counts}


def _count(model: torch.nn.Module) -> dict[str, int]:
    parameters = list(model.parameters())
    return {
        "total": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
    }
