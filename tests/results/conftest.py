"""Results as a run would write them, made from drawn predictions in a moment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cml_bench
from cml_bench.metrics.evaluate import evaluate
from cml_bench.metrics.predictions import Predictions
from cml_bench.runs.job import Job
from cml_bench.runs.results import result_path, write_result

N, C, N_SEEN = 80, 7, (3, 5, 7)
COUNTS = (1000, 900, 899, 200, 199, 5, 300)
"""Training images of each label: two major, two minor ones."""

Store = Callable[..., Path]


def draw_predictions(rule: str = "seen_images", seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    truth = (rng.random((N, C)) < 0.3).astype(np.int8)
    truth[:, 4] = 0  # a label that no test image shows
    groups = [slice(0, 3), slice(3, 5), slice(5, 7)]
    images = {
        "all_images": np.ones((3, N), dtype=bool),
        "seen_images": np.stack([truth[:, :n].any(axis=1) for n in N_SEEN]),
        "per_experience": np.stack([truth[:, group].any(axis=1) for group in groups]),
    }[rule]
    logits = tuple((2 * rng.normal(size=(N, n)) + 2 * truth[:, :n]).round(1).astype(np.float16) for n in N_SEEN)
    names = tuple(f"label {column}" for column in range(C))
    return Predictions(names, np.arange(N), truth, N_SEEN, rule, images, logits)


def document(job: Job, predictions: Predictions, npz: bytes) -> dict[str, Any]:
    names = list(predictions.label_names)
    return {
        "schema_version": 2,
        "key": job.key,
        "status": "ok",
        "error": None,
        "finished": "2026-01-31T12:00:00Z",
        "job": {
            "benchmark": job.benchmark,
            "benchmark_options": dict(job.options),
            "locations": {},
            "method": job.method,
            "class_order": job.class_order,
            "seed": job.seed,
            "code_version": cml_bench.__version__,
            "plug_in_files": job.plug_in_files,
        },
        "benchmark": {
            "name": job.benchmark,
            "title": "Digits",
            "version": 1,
            "protocol": "B3-C2",
            "label_names": names,
            "n_seen": list(predictions.n_seen),
            "label_groups": {},
        },
        "method": {"title": "ER", "family": "replay", "head": "linear", "loss": "BCE", "options": {"memory_size": 50}},
        "metrics": evaluate(predictions),
        "cost": {
            "seconds": {"training": 3.0, "evaluation": 1.5},
            "peak_memory_mb": {"training": 900.0, "evaluation": 1000.0},
            "peak_gpu_memory_mb": {"training": 2500.0, "evaluation": 70.0},
            "images": 1200,
            "parameters": {"total": 650, "trainable": 600},
            "memory": {"images": 50, "bytes": 3 * 2**20},
        },
        "data": {
            "train": {"name": "digits", "fingerprint": "aa", "label_counts": dict(zip(names, COUNTS, strict=True))},
            "test": {"name": "digits", "fingerprint": "bb", "counts": {"images": N}},
        },
        "missing": [],
        "predictions": {"sha256": hashlib.sha256(npz).hexdigest()},
    }


@pytest.fixture
def predictions() -> Callable[..., Predictions]:
    """Make predictions of three experiences, under any test rule."""
    return draw_predictions


@pytest.fixture
def store() -> Store:
    """Write a result with its predictions into a folder; changes are put over its fields."""

    def write(folder: Path, method: str = "er", seed: int = 0, made: Predictions | None = None, **changes: Any) -> Path:
        job = Job("digits", method, "default", seed, (("epochs", "1"),))
        path = result_path(folder, job)
        made = made or draw_predictions(seed=seed)
        made.save(path.with_suffix(".npz"))
        write_result(path, document(job, made, path.with_suffix(".npz").read_bytes()) | changes)
        return path

    return write


@pytest.fixture
def change() -> Callable[..., None]:
    """Change a field of a result file, named by the way to it."""

    def edit(path: Path, *way: Any, to: Any) -> None:
        tree = json.loads(path.read_text())
        node = tree
        for step in way[:-1]:
            node = node[step]
        node[way[-1]] = to
        path.write_text(json.dumps(tree))

    return edit
