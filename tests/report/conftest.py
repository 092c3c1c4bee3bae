"""Stored runs with predictions, as a sweep leaves them, made in milliseconds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cml_bench.metrics.evaluate import evaluate
from cml_bench.metrics.predictions import Predictions
from cml_bench.report.stored.collect import JOB_COLUMNS
from cml_bench.report.tables.compare import compare
from cml_bench.report.tables.table import BenchmarkTable
from cml_bench.runs.results import write_result
from cml_bench.runs.schema import SCHEMA_VERSION

Change = Callable[[dict[str, Any]], None]


def make_predictions(quality: float, seed: int, names: Sequence[str], increment: int, n_images: int) -> Predictions:
    """Logits that tell labels the better the higher the quality, and the worse the longer ago labels came."""
    rng = np.random.default_rng([seed, len(names)])
    truth = (rng.random((n_images, len(names))) < 0.25).astype(np.int8)
    n_seen = tuple(range(increment, len(names) + 1, increment))
    noise = rng.normal(size=(len(n_seen), *truth.shape))
    blocks = []
    for t, width in enumerate(n_seen):
        age = t - np.arange(width) // increment
        blocks.append((quality * 0.8**age * truth[:, :width] + noise[t, :, :width] - 1).astype(np.float16))
    images = np.stack([truth[:, :width].any(axis=1) for width in n_seen])
    return Predictions(tuple(names), np.arange(n_images), truth, n_seen, "seen_images", images, tuple(blocks))


def document(
    benchmark: str, method: str, order: str, seed: int, predictions: Predictions, family: str = "replay"
) -> dict[str, Any]:
    """Return a result as a run writes it."""
    strategy = method.split()[0]
    return {
        "schema_version": SCHEMA_VERSION,
        "key": f"{benchmark}-{method}-{order}-{seed}",
        "status": "ok",
        "error": None,
        "job": {
            "benchmark": benchmark,
            "benchmark_options": {"increment": "2"},
            "locations": {"root": "/secret/place"},
            "method": method,
            "class_order": order,
            "seed": seed,
            "resolved": {"benchmark": {"test": predictions.test_rule}},
        },
        "benchmark": {
            "name": benchmark,
            "title": benchmark.title(),
            "version": 1,
            "protocol": "B0-C2",
            "label_names": list(predictions.label_names),
            "n_seen": list(predictions.n_seen),
        },
        "method": {"title": strategy, "family": family, "head": "linear", "loss": "BCE"},
        "metrics": evaluate(predictions),
        "cost": {
            "seconds": {"training": 10.0 + len(method) + seed, "evaluation": 1.0},
            "peak_memory_mb": {"training": 900.0},
            "parameters": {"total": 1000, "trainable": 1000},
            "memory": {"images": 10 * len(method), "bytes": 2**20 * len(method)},
        },
        "data": {split: {"fingerprint": f"{split}-{benchmark}"} for split in ("train", "test")},
        "environment": {
            "code_version": "0.1.0",
            "python": "3.11",
            "device": {"kind": "cpu", "name": "cpu"},
            "platform": "Linux",
        },
    }


def write_runs(
    folder: Path,
    methods: Sequence[str],
    *,
    benchmarks: Sequence[str] = ("digits",),
    orders: Sequence[str] = ("default", "random:1"),
    seeds: Sequence[int] = (0, 1, 2),
    names: Sequence[str] = tuple("abcdef"),
    increment: int = 2,
    n_images: int = 60,
    change: Change = lambda document: None,
) -> Path:
    """Write one result and its predictions for each method, order and seed; the first method is the best."""
    for benchmark in benchmarks:
        for o, order in enumerate(orders):
            for seed in seeds:
                for m, method in enumerate(methods):
                    arrived = tuple(np.roll(names, increment * o))
                    quality = 3.0 - 2.0 * m / len(methods)
                    found = make_predictions(quality, 100 * o + seed, arrived, increment, n_images)
                    family = "bound" if method == "joint" else "replay"
                    result = document(benchmark, method, order, seed, found, family)
                    change(result)
                    path = folder / f"{benchmark}_{m}_{o}_{seed}.json"
                    write_result(path, result)
                    found.save(path.with_suffix(".npz"))
    return folder


def failed(document: dict[str, Any], error: str) -> dict[str, Any]:
    """Return what is left of a result if its job failed."""
    kept = {key: document[key] for key in ("schema_version", "key", "job", "data")}
    return {**kept, "status": "failed", "error": error}


@pytest.fixture(scope="session")
def stored_runs() -> Callable[..., Path]:
    """Write runs into a folder."""
    return write_runs


@pytest.fixture(scope="session")
def as_failed() -> Callable[..., dict[str, Any]]:
    """Turn a result into that of a failed job."""
    return failed


@pytest.fixture
def drawing_section(tmp_path: Path) -> Callable[..., Any]:
    """Make the section of runs that are written for it, ready to draw."""
    from cml_bench.report.figures.section import make_section
    from cml_bench.report.stored.collect import collect
    from cml_bench.report.tables.compare import compare

    def make(methods: Sequence[str], **more: Any) -> Any:
        frame = collect(write_runs(tmp_path / "runs", methods, **more))
        (table,) = compare(frame, cost=True).benchmarks
        return make_section(table, frame)

    return make


def _job(method: str, seed: int, last_map: float, order: str = "default", **columns: Any) -> dict[str, Any]:
    named = dict(word.split("=", 1) for word in method.split()[1:] if "=" in word)
    return {
        "path": f"{method}-{order}-{seed}-{columns.get('benchmark')}.json",
        "status": "ok",
        "benchmark": "digits",
        "version": "1",
        "benchmark_options": "{}",
        "sources": f"s-{columns.get('benchmark', 'digits')}",
        "data": "d",
        "title": "Digits",
        "protocol": "B0-C2",
        "method": method,
        "method_title": method.split()[0].upper(),
        "family": "bound" if method.split()[0] == "joint" else "replay",
        "head": named.get("head", "linear"),
        "loss": "BCE",
        "class_order": order,
        "seed": seed,
        "seconds": 9.0,
        "label_groups": (),
        "missing_images": 0,
        "last_map": last_map,
        "forgetting": 0.5 - last_map,
        **dict.fromkeys(("avg_map", "last_cf1_macro@0.5", "last_cf1_harmonic@0.5", "last_of1@0.5"), last_map),
        **columns,
    }


def _frame_of(*jobs: dict[str, Any]) -> pd.DataFrame:
    frame = pd.DataFrame(list(jobs))
    return frame.reindex(columns=list(dict.fromkeys([*JOB_COLUMNS, *frame.columns])))


def _grid_of(seeds: int, orders: int, /, benchmark: str = "digits", **methods: float) -> list[dict[str, Any]]:
    """Return jobs whose figures differ from job to job, and between methods by about what is given."""
    names = ["default", *(f"random:{i}" for i in range(1, orders))]
    jobs = []
    for place, (method, level) in enumerate(methods.items()):
        for (i, order), seed in itertools.product(enumerate(names), range(seeds)):
            noise = 0.01 * i + 0.003 * seed + 0.0001 * ((7 * seed + 3 * i + place) % 5)
            title = {} if benchmark == "digits" else {"title": benchmark.title()}
            jobs.append(_job(method.replace("__", " "), seed, level + noise, order, benchmark=benchmark, **title))
    return jobs


@pytest.fixture(scope="session")
def job() -> Callable[..., dict[str, Any]]:
    """Write a job by hand, as a row of what ``collect`` returns."""
    return _job


@pytest.fixture(scope="session")
def frame_of() -> Callable[..., pd.DataFrame]:
    """Make a frame of jobs, as ``collect`` returns it."""
    return _frame_of


@pytest.fixture(scope="session")
def grid_of() -> Callable[..., list[dict[str, Any]]]:
    """Write jobs of methods over seeds and class orders."""
    return _grid_of


@pytest.fixture(scope="session")
def one() -> Callable[..., BenchmarkTable]:
    """Compare jobs of one benchmark: a function of a frame, metrics and the options of ``compare``."""

    def compared(frame: pd.DataFrame, *metrics: str, **options: Any) -> BenchmarkTable:
        (table,) = compare(frame, metrics or ("last_map", "forgetting"), **options).benchmarks
        return table

    return compared
