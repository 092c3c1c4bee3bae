"""Is a result what it says it is?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cml_bench.errors import CmlBenchError
from cml_bench.metrics.evaluate import evaluate
from cml_bench.metrics.names import parse_metric
from cml_bench.metrics.predictions import Predictions
from cml_bench.runs.differences import conflict, difference
from cml_bench.runs.job import Job
from cml_bench.runs.results import ResultError, predictions_digest, read_result, result_files
from cml_bench.runs.schema import Result

_ROUNDING = 1e-9
"""Sums of the same numbers may differ by this between machines."""


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        files: Result files that were looked at.
        problems: ``path: sentence`` for each that is not as it says.
        unchecked: ``path: sentence`` for each that could not be looked at in every way.
    """

    files: int
    problems: tuple[str, ...]
    unchecked: tuple[str, ...]


def verify_results(results: Path | str | Sequence[Path | str]) -> Verification:
    """Check results: schema, checksum of the predictions, metrics against predictions, key against job.

    Args:
        results: Result files or folders with result files.

    Raises:
        CmlBenchError: If there is no result.
    """
    files = result_files(results)
    problems: list[str] = []
    unchecked: list[str] = []
    by_key: dict[str, Path] = {}
    for path in files:
        try:
            result = read_result(path)
        except ResultError as error:
            problems.append(f"{path}: {error.reason}")
            continue
        problems += [f"{path}: {problem}" for problem in _problems(path, result)]
        unchecked += [f"{path}: {reason}" for reason in _unchecked(result)]
        twin = by_key.setdefault(result.key, path)
        if twin is not path:
            problems += _twins(path, result, twin)
    return Verification(len(files), tuple(problems), tuple(unchecked))


def _problems(path: Path, result: Result) -> Iterator[str]:
    key = _key(result)
    if key is not None and key != result.key:
        yield f"its key {result.key} is not that of its job, which is {key}: it was edited; run the job again"
    if result.status != "ok":
        return
    file = path.with_suffix(".npz")
    if not file.exists():
        yield "its predictions (.npz) are missing: copy them beside it, or run the job again"
        return
    try:
        if result.predictions is not None and predictions_digest(file) != result.predictions.sha256:
            yield f"the checksum of {file.name} is not the stored one: copy the file again, or run the job again"
            return
        predictions = Predictions.load(file)
        found = _computed(predictions, result)
    except CmlBenchError as error:
        yield str(error)
        return
    stored = result.model_dump(mode="json", include=set(found) | {"benchmark"})
    stored["benchmark"] = {name: stored["benchmark"][name] for name in found["benchmark"]}
    stored["metrics"] = _without_users(stored["metrics"])
    other = difference(stored, found, tolerance=_ROUNDING)
    if other:
        yield f"it does not agree with its predictions ({other}): it was edited, or made by another definition"


def _computed(predictions: Predictions, result: Result) -> dict[str, Any]:
    """Return what a result must say that has these predictions."""
    assert result.metrics is not None
    thresholds = {parse_metric(name).threshold for name in result.metrics.summary if not name_of_users(name)}
    metrics = evaluate(predictions, sorted(threshold for threshold in thresholds if threshold is not None))
    labels = {"label_names": list(predictions.label_names), "n_seen": list(predictions.n_seen)}
    return {"metrics": metrics, "benchmark": labels}


def name_of_users(name: str) -> bool:
    """Return whether a metric is a mean over users, whose images predictions do not tell apart."""
    return parse_metric(name).figure.startswith("user_")


def _without_users(metrics: dict[str, Any]) -> dict[str, Any]:
    summary = {name: value for name, value in metrics["summary"].items() if not name_of_users(name)}
    rest = {name: value for name, value in metrics.items() if name != "users"}
    return {**rest, "summary": summary}


def _unchecked(result: Result) -> Iterator[str]:
    if _key(result) is None:
        yield "its key cannot be checked: it does not say which version of the code, or which plug-in file, it is of"
    if result.status == "ok" and result.predictions is None:
        yield "its predictions have no stored checksum, as results before schema version 2 have none"


def _key(result: Result) -> str | None:
    """Return the key that belongs to a result's job, None if it does not say enough."""
    record = result.job
    options = {name: str(value) for name, value in (record.benchmark_options | record.locations).items()}
    job = Job(record.benchmark, record.method, record.class_order, record.seed, tuple(sorted(options.items())))
    version, files = record.code_version, list(record.plug_in_files)
    try:
        if version is None:
            # A result of schema version 1.
            if result.environment is None or ":" in f"{record.benchmark} {record.method}":
                return None
            version, files = result.environment.code_version.partition("+")[0], [None, None]
        return job.key_with(version, files)
    except CmlBenchError:
        return None


def _twins(path: Path, result: Result, twin: Path) -> list[str]:
    other = conflict(read_result(twin), result)
    if other is None:
        return []
    return [f"{path}: {twin} has the same key {result.key} and another content ({other}): delete one of the two"]
