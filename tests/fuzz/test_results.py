"""Suites, results, predictions and checkpoints from elsewhere, damaged."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cml_bench.errors import CmlBenchError
from cml_bench.metrics.evaluate import evaluate
from cml_bench.metrics.predictions import TEST_RULES, Predictions
from cml_bench.runs.results import read_result
from cml_bench.runs.schema import Result
from cml_bench.runs.sweep import Suite, read_suite

Fuzz = Callable[..., Counter[str]]

SUITES = [
    b"""title: a suite
benchmarks: [digits]
methods:
  - er memory_size=20
  - {strategy: [naive, ewc], head: [linear, dlfl], loss: [bce]}
class_orders: 2
seeds: [0, 4]
set: {epochs: 1}
vary: {lr: [0.1, 0.2]}
""",
    b'{"benchmarks": ["digits"], "methods": ["naive", "er"], "seeds": 3, "class_orders": ["default", "random:7"]}\n',
]


def test_suite(tmp_path: Path, fuzz: Fuzz, count: int) -> None:
    def sound(suite: Suite) -> None:
        assert 0 < len(suite.jobs) <= 100_000
        assert len(set(suite.jobs)) == len(suite.jobs)
        assert all(type(job.seed) is int and 0 <= job.seed < 2**31 for job in suite.jobs)
        assert len(suite.title) <= 10_000

    fuzz(tmp_path / "suite.yaml", SUITES, lambda: read_suite(tmp_path / "suite.yaml"), sound, count)


def made() -> Predictions:
    rng = np.random.default_rng(0)
    truth = (rng.random((12, 3)) < 0.5).astype(np.int8)
    logits = (rng.normal(size=(12, 2)).astype(np.float16), rng.normal(size=(12, 3)).astype(np.float16))
    images = np.ones((2, 12), dtype=bool)
    return Predictions(("cat", "dog", "bird"), np.arange(12), truth, (2, 3), "all_images", images, logits)


def result() -> dict[str, Any]:
    names = ["cat", "dog", "bird"]
    return {
        "schema_version": 2, "key": "0123456789abcdef", "status": "ok", "finished": "2026-01-31T12:00:00Z",
        "job": {"benchmark": "digits", "benchmark_options": {"epochs": "1"}, "method": "er", "class_order": "default",
                "seed": 0, "code_version": "1", "plug_in_files": [None]},
        "benchmark": {"name": "digits", "title": "Digits", "version": 1, "label_names": names, "n_seen": [2, 3]},
        "method": {"title": "ER", "family": "replay", "head": "linear", "loss": "BCE", "options": {"memory_size": 50}},
        "metrics": evaluate(made()),
        "cost": {"seconds": {"training": 3.0}, "peak_memory_mb": {"training": 900.5},
                 "parameters": {"total": 650, "trainable": 600}, "memory": {"images": 50, "bytes": 6000}},
        "data": {"train": {"name": "digits", "fingerprint": "aa", "label_counts": dict.fromkeys(names, 4)},
                 "test": {"name": "digits", "fingerprint": "bb", "counts": {"images": 12}}},
        "missing": ["a.jpg"], "predictions": {"sha256": "00"},
    }  # fmt: skip


def test_result(tmp_path: Path, fuzz: Fuzz, count: int) -> None:
    def sound(read: Result) -> None:
        # What a result says can be written again, so it holds no NaN and no text that is none.
        json.dumps(read.model_dump(mode="json"), allow_nan=False).encode()
        if read.cost is not None:
            assert min([0, *read.cost.seconds.values(), *read.cost.peak_memory_mb.values()]) >= 0
        if read.benchmark is not None:
            assert min([0, *read.benchmark.n_seen]) >= 0

    old = {**result(), "schema_version": 1}
    old["metrics"] = {"summary": {"map": 0.5}}
    seeds = [json.dumps(result(), indent=1).encode(), json.dumps(old).encode()]
    fuzz(tmp_path / "er.json", seeds, lambda: read_result(tmp_path / "er.json"), sound, count)


@pytest.mark.parametrize(
    ("way", "to", "says"),
    [
        (("job", "seed"), 10**30, "job.seed"),
        (("benchmark", "n_seen"), [10**15] * 2, "1000000000000000] with 3 label names"),
        (("benchmark", "n_seen"), [3, 2], "n_seen is [3, 2]"),
        (("benchmark", "n_seen"), [1, 2, 3], "metrics.per_label_ap.cat: 2 items for 3 experiences"),
        (("benchmark", "version"), 10**400, "benchmark.version"),
        (("metrics", "per_label_ap", "cat"), [], "metrics.per_label_ap.cat: 0 items for 2 experiences"),
        (("metrics", "performance"), [[0.5, 0.5], [0.5] * 5000], "metrics.performance: 5000 items for 2 experiences"),
        (("metrics", "summary"), {"avg_map": 1e308}, "metrics.summary.avg_map"),
        (("cost", "seconds"), {"training": 1e308}, "cost.seconds.training"),
        (("cost", "memory", "bytes"), 10**400, "cost.memory.bytes"),
    ],
)
def test_a_result_that_nothing_can_be_computed_of(tmp_path: Path, way: tuple[str, ...], to: Any, says: str) -> None:
    """Sums overflow, arrays do not hold it, and a picture has a row a label."""
    tree = result()
    node = tree
    for step in way[:-1]:
        node = node[step]
    node[way[-1]] = to
    (tmp_path / "er.json").write_text(json.dumps(tree))
    with pytest.raises(CmlBenchError) as caught:
        read_result(tmp_path / "er.json")
    assert says in str(caught.value)


def sound_predictions(read: Predictions) -> None:
    n, c, t = len(read.sample_ids), len(read.label_names), len(read.n_seen)
    assert read.truth.shape == (n, c)
    assert read.truth.dtype == np.int8
    assert set(np.unique(read.truth).tolist()) <= {-2, -1, 0, 1}
    assert len(set(read.sample_ids.tolist())) == n
    assert len(set(read.label_names)) == c
    assert all(read.label_names)
    assert list(read.n_seen) == sorted(read.n_seen)
    assert read.n_seen[0] >= 0
    assert read.n_seen[-1] <= c
    assert read.test_rule in TEST_RULES
    assert read.test_images.shape == (t, n)
    assert read.test_images.dtype == np.bool_
    assert len(read.logits) == t
    for block, seen in zip(read.logits, read.n_seen, strict=True):
        assert block.shape == (n, seen)
        assert block.dtype == np.float16
        assert not np.isnan(block).any()


def test_predictions(tmp_path: Path, fuzz: Fuzz, zip_members: Sequence[Any], count: int) -> None:
    path = tmp_path / "er.npz"
    made().save(path)
    fuzz(path, [path.read_bytes()], lambda: Predictions.load(path), sound_predictions, min(count, 5000), zip_members)


def packed(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"truth": np.int8([[1, 0, 5]] * 12)}, "truth says 0 to 5"),
        ({"truth": np.zeros((12, 2), dtype=np.int8)}, "truth is"),
        ({"truth": np.zeros((12, 3), dtype=np.int64)}, "truth"),
        ({"sample_ids": np.zeros(12, dtype=np.int64)}, "sample_ids names 0 twice"),
        ({"label_names": np.array(["cat", "cat", "dog"])}, "label name 'cat' occurs twice"),
        ({"n_seen": np.array([3, 2])}, "n_seen"),
        ({"n_seen": np.array([2, 4])}, "n_seen"),
        ({"n_seen": np.array([-1, 3])}, "n_seen"),
        ({"n_seen": np.array([], dtype=np.int64)}, "n_seen"),
        ({"test_rule": np.array("mine")}, "test_rule is 'mine'"),
        ({"test_images": np.ones((2, 11), dtype=bool)}, "test_images"),
        ({"logits_1": np.zeros((12, 2), dtype=np.float16)}, "logits_1"),
        ({"logits_1": np.full((12, 3), np.nan, dtype=np.float16)}, "logits_1 holds NaN"),
        ({"logits_1": None}, "logits_1 is missing"),
        ({"truth": np.array([[None]])}, "truth"),
    ],
)
def test_predictions_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    path = tmp_path / "er.npz"
    made().save(path)
    arrays = dict(np.load(path)) | changes
    path.write_bytes(packed(**{name: value for name, value in arrays.items() if value is not None}))
    with pytest.raises(Exception, match=f"er.npz.*{says}") as caught:
        Predictions.load(path)
    assert type(caught.value).__name__ == "CmlBenchError"
