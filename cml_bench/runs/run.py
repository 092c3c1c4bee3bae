"""One job, one result."""

from __future__ import annotations

import dataclasses
import itertools
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cml_bench.errors import CmlBenchError, in_one_line, own_warnings
from cml_bench.metrics.evaluate import evaluate, evaluate_after
from cml_bench.metrics.per_user import per_user
from cml_bench.metrics.predictions import Predictions
from cml_bench.models.divided import align, is_divided, is_first
from cml_bench.runs.basis import basis_of, data_of
from cml_bench.runs.benchmark import load_sources
from cml_bench.runs.checkpoint import Checkpoints, Logits, identity, remove_checkpoints
from cml_bench.runs.claim import claim
from cml_bench.runs.cost import CostMeter, ImageCounter
from cml_bench.runs.devices import check_device, prepare_backbone, run_on_devices
from cml_bench.runs.engines.engine import SKIPPED
from cml_bench.runs.events import CHECKPOINT_EVERY, CheckpointEvery, Event, Report
from cml_bench.runs.federated import make_course
from cml_bench.runs.footprint import TrainableParameters, look_at_memories
from cml_bench.runs.freshness import judge
from cml_bench.runs.inputs import make_inputs
from cml_bench.runs.isolation import isolated
from cml_bench.runs.job import Job
from cml_bench.runs.job_log import JobLog
from cml_bench.runs.learn import predict
from cml_bench.runs.plan import Plan, plan
from cml_bench.runs.progress import EpochReporter
from cml_bench.runs.record import failure, success
from cml_bench.runs.results import checkpoint_folder, predictions_digest, result_path, write_result
from cml_bench.runs.rhythm import parse_rhythm
from cml_bench.runs.safe_points import SafePoints
from cml_bench.runs.setup import make_backbone, make_model, stream_order
from cml_bench.runs.snapshots import Snapshots
from cml_bench.streams.scenario import MultiLabelScenario
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
    checkpoint_every: CheckpointEvery = CHECKPOINT_EVERY,
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
        checkpoint_every: When it adds to them; ``never`` for neither.
        models_beside: Result file that the model after each experience is kept beside; None to keep none.
        log: Folder of the experiment tracker that ``job.log`` names; None for no log.

    Raises:
        CmlBenchError: If the input is bad or the loss diverges.
    """
    resolved = plan(job)
    check_device(resolved.training.device, 1 if is_divided() else resolved.training.devices)
    if resolved.training.devices > 1 and not is_divided():
        given = {"job": job, "index": index, "models_beside": models_beside, "log": log}
        rhythm = {"checkpoints": checkpoints, "checkpoint_every": checkpoint_every}
        return run_on_devices(resolved.training, report, {**given, **rhythm})
    report(Event(index, "start"))
    meter = CostMeter(resolved.training.device)

    def tell(warning: str) -> None:
        report(Event(index, "warning", warning))

    with isolated(job.seed, resolved.training.threads), own_warnings(tell):
        with meter.phase("data"):
            sources = load_sources(resolved.benchmark)
            backbone = make_backbone(resolved, sources)
            # Whoever comes first makes what all share, and the others wait for it.
            with meter.phase("cache"):
                inputs = make_inputs(
                    resolved, backbone, sources, job.seed, lambda message: report(Event(index, "phase", message))
                )
            scenario = resolved.benchmark.build(
                class_order=stream_order(job), train_inputs=inputs[0], test_inputs=inputs[1]
            )
        # Before anything is trained: what changes meanwhile is not what was trained with.
        basis = basis_of(job, data_of(sources), backbone.record["sha256"])
        model = make_model(resolved, backbone).to(resolved.training.device)
        if is_divided():
            prepare_backbone(model.backbone)
        if resolved.training.compile:
            # In place, so that names, copies and checkpoints are those of the plain module.
            model.backbone.compile()
        run = RunContext(
            seed=job.seed,
            training=resolved.training,
            model=model,
            criterion=resolved.criterion(**resolved.criterion_options).to(resolved.training.device),
            oracle=scenario.oracle,
        )

        def say(message: str) -> None:
            report(Event(index, "note", message))

        stored, points = None, SafePoints(parse_rhythm(checkpoint_every) if checkpoints else None)
        if checkpoints is not None and checkpoint_every != "never":
            # A job that kept no models has none of its first experiences.
            found = {**identity(basis, resolved), "models": "kept" if models_beside else "none"}
            stored = Checkpoints(checkpoints, found, say)
        snapshots = Snapshots(models_beside, backbone, model) if models_beside and is_first() else None
        with JobLog(job, log, say) if log else nullcontext() as tracker:
            told = _both(tracker, report) if tracker else report
            predictions = _record(resolved, run, scenario, meter, index, told, stored, points, snapshots)
        with meter.phase("metrics"):
            metrics = evaluate(predictions)
            tested = scenario.splits[resolved.benchmark.evaluate_on]
            if "user" in tested.source.groups:
                by_user = per_user(predictions, tested.source.groups["user"][tested.rows])
                metrics = {**metrics, **by_user, "summary": {**metrics["summary"], **by_user["summary"]}}
    result = success(job, basis, resolved, scenario, backbone.record, metrics, meter, model)
    return Run(result, predictions)


def run_and_store(
    job: Job,
    results: Path,
    *,
    index: int = 0,
    report: Report = lambda event: None,
    checkpoint_every: CheckpointEvery = CHECKPOINT_EVERY,
    patience: float = 0.0,
) -> dict[str, Any] | None:
    """Run a job and write its files; a failure is a result too, with its sentence.

    A job that was stopped goes on from its last checkpoint, which lies beside the result until that is written. A job
    that another process is running, for as long as ``patience`` says (seconds), is left to it, and so is one that it
    has finished.

    Returns:
        The result as written; None for a job that another process has taken.
    """
    with claim(result_path(results, job), patience) as mine:
        if not mine or not judge([job], results).to_run():
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
        models_beside = path if job.save_models else None
        log = path.with_suffix(".log") if job.log else None
        made = run_job(
            job,
            index=index,
            report=report,
            checkpoints=folder,
            checkpoint_every=checkpoint_every,
            models_beside=models_beside,
            log=log,
        )
        stored = path.with_suffix(".npz")
        made.predictions.save(stored)
        result = {**made.result, "predictions": {"sha256": predictions_digest(stored)}}
        write_result(path, result)
    except Exception as error:
        expected = isinstance(error, CmlBenchError)
        sentence = str(error) if expected else f"{in_one_line(error)}; traceback: cml-bench results show {path}"
        if not expected and folder.is_dir():
            sentence += f"; it will go on from {folder}: delete that to start anew"
        return store_failure(job, results, sentence, None if expected else traceback.format_exc())
    remove_checkpoints(folder)
    return result


def store_failure(job: Job, results: Path, sentence: str, trace: str | None = None) -> dict[str, Any]:
    """Write the result of a job that failed, and return it."""
    result = failure(job, sentence, trace)
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
    points: SafePoints,
    snapshots: Snapshots | None,
) -> Predictions:
    """Train on the stream and record the logits of the evaluation images after each experience."""
    recorder = LogitRecorder()
    reporter = EpochReporter(report, index, len(scenario.n_seen), meter)
    counters = [TrainableParameters(meter.footprint), ImageCounter(meter)]
    course = make_course(resolved, run, scenario, [recorder, reporter, *counters], points)
    logits: list[Logits] = []
    if checkpoints:
        logits += checkpoints.resume(course, meter)
        if logits:
            report(Event(index, "resumed", fraction=len(logits) / len(scenario.n_seen)))
        points.store = lambda point: checkpoints.keep(course, logits, meter, within=point != "experience")
    align()
    for t in itertools.count(len(logits)):
        reporter.experience = t
        with meter.phase("training"), points:
            learner = next(course, None)
        if learner is None:
            break
        meter.footprint.raise_to(**look_at_memories(course.learners))
        with meter.phase("evaluation"):
            # float16 ends at 65504.
            bounded = predict(learner, recorder, scenario, t, resolved.benchmark.evaluate_on).clamp(-60000, 60000)
            logits.append(bounded.to(torch.float16).numpy())
        with meter.phase("metrics"):
            figures = evaluate_after(_predictions(scenario, resolved.benchmark.evaluate_on, logits), t)
        done = (t + 1) / len(scenario.n_seen)
        report(Event(index, "experience", experience=t, step=meter.tested(), fraction=done, metrics=figures))
        if snapshots:
            snapshots.keep(t, learner.model)
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
