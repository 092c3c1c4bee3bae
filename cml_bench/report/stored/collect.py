"""From a folder of result files to one data frame, a row a job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from cml_bench.runs.job import LOCATIONS
from cml_bench.runs.results import ResultError, read_result, result_files
from cml_bench.runs.schema import Cost, MethodRecord, Options, Result

COST_COLUMNS: Final = (
    "seconds",
    "training_seconds",
    "images_per_second",
    "peak_memory_mb",
    "peak_gpu_memory_mb",
    "stored_images",
    "memory_mb",
    "trainable_parameters",
)
"""What a job cost: numbers, NaN where not measured."""

JOB_COLUMNS: Final = (
    "path",
    "key",
    "status",
    "error",
    "benchmark",
    "version",
    "benchmark_options",
    "benchmark_settings",
    "label_order",
    "benchmark_file",
    "files",
    "sources",
    "data",
    "title",
    "protocol",
    "named",
    "method",
    "method_title",
    "family",
    "head",
    "loss",
    "wrap",
    "replay_labels",
    "strategy_options",
    "parts",
    "training",
    "class_order",
    "seed",
    *COST_COLUMNS,
    "missing_images",
    "code_version",
    "finished",
    "when_learnt",
    "label_groups",
)
"""Columns of every frame; those after them are metrics."""


def collect(results: Path | str | Sequence[Path | str]) -> pd.DataFrame:
    """Read result files, and every result file below folders.

    Nothing is left out: a failed job is a row with status ``failed`` and its error, a file that cannot be read as a
    result a row with status ``unreadable`` and the reason; so are two results of one job that differ.

    Args:
        results: Result files, and folders that are searched for ``**/*.json``; a file's predictions lie beside it with
            suffix ``.npz``.

    Returns:
        A frame with ``JOB_COLUMNS`` and one column for each key of ``metrics.summary`` (fractions or counts; NaN where
        undefined). ``benchmark_options``, the settings given, is canonical JSON, so that equal settings compare equal,
        and so are, with defaults filled in, ``benchmark_settings``, ``training``, ``strategy_options`` and ``parts``
        (head, criterion and wrapper with their options), None for failed jobs; ``named`` is what the job called its
        method, and ``method`` the same until ``by_shortest_name`` has seen it; ``label_order`` is a digest of the names
        of the labels as they arrive; ``benchmark_file`` and ``files`` are digests of the plug-in files of the benchmark
        and of all, None without any; ``sources`` is one of the labels and ``data`` one of labels and weights (None for
        a job that failed before it had read them); ``code_version`` that of the cml_bench that ran it, and ``finished``
        when (both None where the result does not say); ``when_learnt`` the mAP of each experience's labels right after
        it; ``label_groups`` the names of the groups that the benchmark declares.

        Cost, without what all jobs share (phase ``cache``): ``seconds`` is the sum over phases and ``training_seconds``
        that of training alone; ``images_per_second`` the images of all training batches by the latter (NaN where
        nothing was trained in batches); ``peak_memory_mb`` the largest over phases, in MiB, and ``peak_gpu_memory_mb``
        that of the GPU (NaN without one); ``stored_images`` the most images that the memories held (0 for none) and
        ``memory_mb`` their size in MiB; ``trainable_parameters`` the most that were trained at any time. What older
        results did not measure is NaN.

    Raises:
        CmlBenchError: If a path does not exist, or a folder holds no result file.
    """
    rows = [_read(path) for path in result_files(results)]
    metrics = sorted({name for row in rows for name in row} - set(JOB_COLUMNS))
    frame = pd.DataFrame(rows, columns=[*JOB_COLUMNS, *metrics])
    return without_conflicts(frame.astype(dict.fromkeys([*COST_COLUMNS, *metrics], "float64")))


def without_conflicts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame in which jobs with two different results are ``unreadable``, each naming the other file.

    Nobody can say which of the two is right. The same figures twice are one job that was run twice, which is no
    conflict.

    Args:
        frame: What ``collect`` returned, or several of it joined.
    """
    same = ["key", "benchmark", "benchmark_options", "method", "class_order", "seed"]
    done = frame[(frame["status"] == "ok") & frame["key"].notna()]
    again = done[done.duplicated(same, keep=False)]
    metrics = [name for name in frame if name not in JOB_COLUMNS]
    frame = frame.copy()
    for _, jobs in again.groupby(same):
        differing = jobs[metrics].nunique(dropna=False) > 1
        if not differing.any():
            continue
        name = str(differing.idxmax())
        for (index, path), value in zip(jobs["path"].items(), jobs[name], strict=True):
            same_value = jobs[name].isna() if pd.isna(value) else jobs[name] == value
            other = jobs[(jobs["path"] != path) & ~same_value].iloc[0]
            values = f"{name}: {value:g} against {float(other[name]):g}"
            reason = f"{other['path']} has the same key and another content ({values}): delete one of the two"
            frame.loc[[index], ["status", "error"]] = ["unreadable", reason]
    return frame


def _read(path: Path) -> dict[str, Any]:
    try:
        return _row(path, read_result(path))
    except ResultError as error:
        return {"path": str(path), "status": "unreadable", "error": error.reason, "missing_images": 0}


def _row(path: Path, result: Result) -> dict[str, Any]:
    """Flatten one result; a failed job may lack everything but the job itself."""
    job, benchmark, method = result.job, result.benchmark, result.method
    return {
        "path": str(path),
        "key": result.key,
        "status": result.status,
        "error": result.error,
        "benchmark": job.benchmark,
        "version": benchmark and _text(benchmark.version),
        "benchmark_options": _canonical(job.benchmark_options),
        "benchmark_settings": _settings(job.resolved, "benchmark"),
        "label_order": benchmark and _digest(list(benchmark.label_names)),
        "benchmark_file": next(iter(job.plug_in_files), None),
        "files": ",".join(filter(None, job.plug_in_files)) or None,
        "sources": _digest(_fingerprints(result)),
        "data": _data_digest(result),
        "title": benchmark and benchmark.title,
        "protocol": benchmark and benchmark.protocol,
        "named": job.method,
        "method": job.method,
        "method_title": method and method.title,
        "family": method and method.family,
        "head": method and method.head,
        "loss": method and method.loss,
        "wrap": method and method.wrap,
        "replay_labels": method and method.replay_labels,
        "strategy_options": method and _canonical(method.options),
        "parts": method and _canonical(_parts(method)),
        "training": _settings(job.resolved, "training"),
        "class_order": job.class_order,
        "seed": job.seed,
        **costs(result.cost),
        "missing_images": len(result.missing),
        "code_version": result.environment and result.environment.code_version,
        "finished": result.finished,
        "when_learnt": _diagonal(result),
        "label_groups": tuple(benchmark.label_groups) if benchmark else (),
        **({} if result.metrics is None else result.metrics.summary),
    }


def costs(cost: Cost | None) -> dict[str, float | None]:
    """Return what a job cost, by the names in ``COST_COLUMNS``; None where not measured."""
    if cost is None:
        return {}
    memory, parameters, training = cost.memory, cost.parameters, cost.seconds.get("training")
    return {
        "seconds": sum(_own(cost.seconds)) if cost.seconds else None,
        "training_seconds": training,
        "images_per_second": cost.images / training if cost.images and training else None,
        "peak_memory_mb": max(_own(cost.peak_memory_mb), default=None),
        "peak_gpu_memory_mb": max(_own(cost.peak_gpu_memory_mb), default=None),
        "stored_images": memory.images if memory else None,
        "memory_mb": memory.bytes / 2**20 if memory else None,
        "trainable_parameters": parameters.trainable if parameters else None,
    }


def _parts(method: MethodRecord) -> list[object]:
    """Return head, criterion and wrapper, each with its options."""
    return [method.head, method.head_options, method.loss, method.loss_options, method.wrap, method.wrap_options]


def _settings(resolved: Options, part: str) -> str | None:
    """Return the settings of benchmark or training, without where files lie; None where the result does not say."""
    found = resolved.get(part)
    if not isinstance(found, dict):
        return None
    return _canonical({key: value for key, value in found.items() if key not in LOCATIONS})


def _data_digest(result: Result) -> str | None:
    """Return eight letters that stand for the data and the weights, wherever they lay on the machine that ran it."""
    if result.status != "ok":
        return None
    return _digest([*_fingerprints(result), (result.backbone and result.backbone.sha256) or ""])


def _fingerprints(result: Result) -> list[str]:
    data = result.data or {}
    return [data[split].fingerprint for split in ("train", "test") if split in data]


def _digest(parts: list[str]) -> str | None:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8] if any(parts) else None


def _diagonal(result: Result) -> tuple[float, ...]:
    """Return the mAP of each experience's labels right after it was learnt."""
    performance = result.metrics.performance if result.metrics else []
    values = [row[k] if k < len(row) else None for k, row in enumerate(performance)]
    return tuple(float("nan") if value is None else value for value in values)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _canonical(options: object) -> str:
    return json.dumps(options or {}, sort_keys=True)


def _own(phases: Mapping[str, float]) -> list[float]:
    """Return the figures of a job's own phases: the cache is made by whoever comes first, for all."""
    return [value for phase, value in phases.items() if phase != "cache"]
