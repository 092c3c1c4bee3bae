"""What comparing and reporting 1,000 stored runs costs, each of 8 experiences x 80 labels.

Run with ``pytest tests/speed``: the figures come as one table at the end. Nothing fails on a clock.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cml_bench.metrics.evaluate import evaluate
from cml_bench.metrics.predictions import Predictions
from cml_bench.runs.results import SCHEMA_VERSION, write_result

METHODS, BENCHMARKS, ORDERS, SEEDS = 20, 2, 5, 5
LABELS, EXPERIENCES, IMAGES = 80, 8, 400


def predictions(order: int = 0) -> Predictions:
    """Return what one run on a class order predicted, small in images only: results do not grow with them."""
    rng = np.random.default_rng(0)
    truth = (rng.random((IMAGES, LABELS)) < 0.1).astype(np.int8)
    n_seen = tuple(range(LABELS // EXPERIENCES, LABELS + 1, LABELS // EXPERIENCES))
    logits = (rng.normal(size=(IMAGES, LABELS)) + 2 * truth).astype(np.float16)
    images = np.stack([truth[:, :width].any(axis=1) for width in n_seen])
    blocks = tuple(np.ascontiguousarray(logits[:, :width]) for width in n_seen)
    names = tuple(f"label{(i + order) % LABELS}" for i in range(LABELS))
    return Predictions(names, np.arange(IMAGES), truth, n_seen, "seen_images", images, blocks)


def document(method: int, benchmark: int, order: int, seed: int, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return a result as a run writes it, with figures that differ from run to run."""
    shift = 0.01 * method + np.random.default_rng([method, benchmark, order, seed]).normal(0, 0.01)
    summary = {name: value if value is None else value + shift for name, value in metrics["summary"].items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "key": f"{method}-{benchmark}-{order}-{seed}",
        "status": "ok",
        "error": None,
        "job": {
            "benchmark": f"benchmark{benchmark}",
            "benchmark_options": {"increment": "10", "epochs": "20"},
            "locations": {"root": "/data"},
            "method": f"er memory_size={method}",
            "class_order": f"random:{order}",
            "seed": seed,
            "resolved": {"benchmark": {"base": 0, "increment": 10}, "training": {"epochs": 20, "lr": 1e-3}},
        },
        "benchmark": {
            "name": f"benchmark{benchmark}",
            "title": f"Benchmark {benchmark}",
            "version": 1,
            "protocol": "B0-C10",
            "label_names": list(metrics["per_label_ap"]),
            "n_seen": list(range(10, 81, 10)),
            "images_per_experience": [1000] * EXPERIENCES,
            "unassigned_images": {"train": 0, "test": 0},
        },
        "method": {
            "title": "ER",
            "family": "replay",
            "head": "linear",
            "head_options": {},
            "loss": "BCE",
            "loss_options": {},
            "wrap": None,
            "wrap_options": {},
            "options": {"memory_size": method},
            "replay_labels": "as_stored",
        },
        "metrics": {**metrics, "summary": summary},
        "cost": {
            "seconds": {"data": 1.0, "training": 100.0 + shift, "evaluation": 9.0, "metrics": 1.0},
            "peak_memory_mb": {"data": 900.0, "training": 1200.0, "evaluation": 1000.0, "metrics": 1000.0},
            "parameters": {"total": 25_000_000, "trainable": 24_000_000},
        },
        "data": {
            split: {"name": "coco", "fingerprint": f"{split}{benchmark}", "counts": {}} for split in ("train", "test")
        },
        "missing": [],
        "backbone": {"name": "resnet50", "sha256": None, "pretraining": "none", "image_size": 224},
        "environment": {
            "code_version": "0.1.0",
            "python": "3.11",
            "packages": {},
            "device": {"kind": "cpu", "name": "x"},
            "platform": "Linux",
        },
    }


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 1,000 result files."""
    folder = tmp_path_factory.mktemp("runs")
    # Orders in which labels come alike would count as one.
    metrics = [evaluate(predictions(order)) for order in range(ORDERS)]
    for method, benchmark, order, seed in np.ndindex(METHODS, BENCHMARKS, ORDERS, SEEDS):
        name = f"benchmark{benchmark}/er{method}__order{order}__seed{seed}.json"
        write_result(folder / name, document(method, benchmark, order, seed, metrics[order]))
    return folder


@pytest.mark.parametrize(
    "options",
    [(), ("--baseline", "er memory_size=3", "--intervals", "--cost"), ("--columns", "benchmark", "--format", "html")],
    ids=["plain", "baseline", "benchmarks"],
)
def test_comparing_a_thousand_runs(benchmark: Any, measured: Any, stored: Path, options: tuple[str, ...]) -> None:
    """The whole command in a process of its own, on 2 cores: at most 5 s."""
    seconds = []

    def call() -> None:
        start = time.perf_counter()
        command = [sys.executable, "-m", "cml_bench.cli", "compare", str(stored), *options]
        done = subprocess.run(command, capture_output=True, text=True)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
        assert "25 jobs" in done.stdout or "25 pairs" in done.stdout or "50 blocks" in done.stdout

    benchmark.pedantic(call, rounds=3)
    measured(f"compare {' '.join(options)} of 1,000 runs".replace("  ", " "), min(seconds), "s", "<= 5")


@pytest.fixture(scope="module")
def stored_with_predictions(stored: Path) -> Path:
    """Lay predictions beside the results: the same bytes a thousand times, as one file."""
    first = stored / "predictions.npz"
    predictions().save(first)
    for path in stored.rglob("*.json"):
        os.link(first, path.with_suffix(".npz"))
    return stored


@pytest.mark.parametrize("figures", ["--figures", "--no-figures"])
def test_reporting_a_thousand_runs(
    benchmark: Any, measured: Any, stored_with_predictions: Path, figures: str, tmp_path: Path
) -> None:
    """The whole command in a process of its own, on 2 cores: at most 15 s, and a page of at most 3 MB."""
    page, seconds = tmp_path / "report.html", []

    def call() -> None:
        start = time.perf_counter()
        command = [sys.executable, "-m", "cml_bench.cli", "report", str(stored_with_predictions), "-o", str(page)]
        done = subprocess.run([*command, figures], capture_output=True, text=True)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
        assert "1000 finished jobs" in page.read_text()

    benchmark.pedantic(call, rounds=2)
    size = page.stat().st_size / 1e6
    assert size <= 3
    measured(f"report {figures} of 1,000 runs", min(seconds), "s", "<= 15")
    measured(f"report {figures} of 1,000 runs", size, "MB", "<= 3")
