"""From a folder of result files to one data frame, a row a job."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import pandas as pd

from cml_bench.errors import CmlBenchError
from cml_bench.runs.results import SCHEMA_VERSION

JOB_COLUMNS: Final = (
    "path",
    "status",
    "error",
    "benchmark",
    "version",
    "benchmark_options",
    "sources",
    "data",
    "title",
    "protocol",
    "method",
    "method_title",
    "family",
    "head",
    "loss",
    "wrap",
    "replay_labels",
    "class_order",
    "seed",
    "seconds",
    "peak_memory_mb",
    "missing_images",
    "when_learnt",
)
"""Columns of every frame; those after them are metrics."""


def collect(results: Path) -> pd.DataFrame:
    """Read every result file below a folder.

    Nothing is left out: a failed job is a row with status ``failed`` and its error, a file that cannot be read as a
    result a row with status ``unreadable`` and the reason.

    Args:
        results: Folder that is searched for ``**/*.json``; a file's predictions lie beside it with suffix ``.npz``.

    Returns:
        A frame with ``JOB_COLUMNS`` and one column for each key of ``metrics.summary`` (fractions or counts; NaN where
        undefined). ``benchmark_options`` is canonical JSON, so that equal settings compare equal; ``sources`` a digest
        of the labels and ``data`` one of labels and weights (None for a job that failed before it had read them);
        ``when_learnt`` the mAP of each experience's labels right after it; ``seconds`` the sum over phases,
        ``peak_memory_mb`` the largest of them.

    Raises:
        CmlBenchError: If the folder does not exist or holds no result file.
    """
    if not results.is_dir():
        raise CmlBenchError(f"results folder {results} does not exist; name a folder that a run has written")
    rows = [_read(path) for path in sorted(results.rglob("*.json"))]
    if not rows:
        raise CmlBenchError(f"results folder {results} holds no result file (*.json); run a benchmark first")
    metrics = sorted({name for row in rows for name in row} - set(JOB_COLUMNS))
    frame = pd.DataFrame(rows, columns=[*JOB_COLUMNS, *metrics])
    return frame.astype(dict.fromkeys(["seconds", "peak_memory_mb", *metrics], "float64"))


def _read(path: Path) -> dict[str, Any]:
    try:
        return _row(path, json.loads(path.read_text(encoding="utf-8")))
    except KeyError as error:
        reason = f"field {error} is missing"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
    return {"path": str(path), "status": "unreadable", "error": reason, "missing_images": 0}


def _row(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Flatten one result; a failed job may lack everything but the job itself."""
    if result["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema version {result['schema_version']!r} is not {SCHEMA_VERSION}")
    if result["status"] not in ("ok", "failed"):
        raise ValueError(f"status {result['status']!r} is neither 'ok' nor 'failed'")
    job = result["job"]
    benchmark, method, cost = (result.get(part) or {} for part in ("benchmark", "method", "cost"))
    summary = (result.get("metrics") or {}).get("summary") or {}
    if result["status"] == "ok" and not summary:
        raise ValueError("status is 'ok' but there is no metrics summary")
    return {
        "path": str(path),
        "status": result["status"],
        "error": result.get("error"),
        "benchmark": job["benchmark"],
        "version": _text(benchmark.get("version")),
        "benchmark_options": _canonical(job.get("benchmark_options")),
        "sources": _digest(_fingerprints(result)),
        "data": _data_digest(result),
        "title": benchmark.get("title"),
        "protocol": benchmark.get("protocol"),
        "method": job["method"],
        "method_title": method.get("title"),
        "family": method.get("family"),
        "head": method.get("head"),
        "loss": method.get("loss"),
        "wrap": method.get("wrap"),
        "replay_labels": method.get("replay_labels"),
        "class_order": job["class_order"],
        "seed": job["seed"],
        "seconds": sum(cost["seconds"].values()) if cost.get("seconds") else None,
        "peak_memory_mb": max(cost["peak_memory_mb"].values()) if cost.get("peak_memory_mb") else None,
        "missing_images": len(result["missing"]) if result["status"] == "ok" else 0,
        "when_learnt": _diagonal(result),
        **{name: float("nan") if value is None else float(value) for name, value in summary.items()},
    }


def _data_digest(result: dict[str, Any]) -> str | None:
    """Return eight letters that stand for the data and the weights, wherever they lay on the machine that ran it."""
    if result["status"] != "ok":
        return None
    return _digest([*_fingerprints(result), (result.get("backbone") or {}).get("sha256") or ""])


def _fingerprints(result: dict[str, Any]) -> list[str]:
    data = result.get("data") or {}
    return [data[split]["fingerprint"] for split in ("train", "test") if split in data]


def _digest(parts: list[str]) -> str | None:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8] if any(parts) else None


def _diagonal(result: dict[str, Any]) -> tuple[float, ...]:
    """Return the mAP of each experience's labels right after it was learnt."""
    performance = (result.get("metrics") or {}).get("performance") or []
    return tuple(float("nan") if row[k] is None else row[k] for k, row in enumerate(performance))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _canonical(options: object) -> str:
    return json.dumps(options or {}, sort_keys=True)
