"""A result is what it says, or it is told what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cml_bench.commands.results import _summed_up
from cml_bench.errors import CmlBenchError
from cml_bench.metrics.predictions import TEST_RULES
from cml_bench.report.stored.rescore import rescore
from cml_bench.report.stored.verify import verify_results
from cml_bench.runs.differences import difference
from cml_bench.runs.job import Job
from cml_bench.runs.results import read_result
from cml_bench.runs.run import run_and_store


@pytest.mark.parametrize("rule", TEST_RULES)
def test_a_sound_result(store: Any, predictions: Any, tmp_path: Path, rule: str) -> None:
    store(tmp_path, made=predictions(rule))
    store(tmp_path, seed=1, status="failed", error="NaN loss", metrics=None)
    found = verify_results(tmp_path)
    assert (found.files, found.problems, found.unchecked) == (2, (), ())


def test_what_a_run_writes_is_sound(small_jobs: Any, tmp_path: Path) -> None:
    (job,) = small_jobs(["er memory_size=20"])
    run_and_store(job, tmp_path)
    found = verify_results(tmp_path)
    assert (found.problems, found.unchecked) == ((), ())
    result = read_result(next(tmp_path.rglob("*.json")))
    assert result.cost is not None
    assert result.cost.memory is not None
    assert result.cost.memory.images == 20
    assert result.data is not None
    counts = result.data["train"].label_counts
    assert counts is not None
    assert sum(counts.values()) == result.data["train"].counts["labels"]


@pytest.mark.parametrize(
    ("way", "to", "sentence"),
    [
        (["metrics", "summary", "last_map"], 0.99, "(metrics.summary.last_map: 0.99 against 0."),
        (["metrics", "summary", "last_of1@0.9"], 0.5, "(metrics.summary.last_of1@0.9: 0.5 against 0."),
        (["metrics", "per_experience", 1, "n_images"], 3, "(metrics.per_experience[1].n_images: 3 against "),
        (["metrics", "per_label_ap", "label 2"], [1.0], "metrics.per_label_ap.label 2: 1 items for 3 experiences"),
        (["metrics", "performance", 0, 0], None, "(metrics.performance[0][0]: None against 0."),
        (["benchmark", "label_names", 0], "cat", "(benchmark.label_names[0]: 'cat' against 'label 0')"),
        (["job", "seed"], 5, "is not that of its job"),
        (["job", "benchmark_options"], {"epochs": "2"}, "is not that of its job"),
        (["predictions", "sha256"], "0" * 64, "is not the stored one"),
        (["metrics", "summary"], {}, "field 'metrics.summary'"),
    ],
)
def test_what_was_edited_is_found(
    store: Any, change: Any, tmp_path: Path, way: list[Any], to: Any, sentence: str
) -> None:
    path = store(tmp_path)
    store(tmp_path, seed=1)
    change(path, *way, to=to)
    (problem,) = verify_results(tmp_path).problems
    assert problem.startswith(f"{path}: ")
    assert sentence in problem


def test_predictions_that_are_not_there(store: Any, tmp_path: Path) -> None:
    path = store(tmp_path)
    npz = path.with_suffix(".npz")
    content = npz.read_bytes()
    npz.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert f"the checksum of {npz.name} is not the stored one" in verify_results(path).problems[0]
    npz.unlink()
    (problem,) = verify_results(path).problems
    assert "its predictions (.npz) are missing: copy them beside it" in problem


@pytest.mark.parametrize(
    "wrong",
    [
        {"truth": np.zeros((80, 7))},
        {"truth": np.zeros((80, 6), dtype=np.int8)},
        {"n_seen": np.array([3, 5, 9])},
        {"n_seen": np.array([5, 3, 7])},
        {"n_seen": np.array([], dtype=np.int64)},
        {"n_seen": np.array(["3", "5", "7"])},
        {"logits_1": np.full((80, 5), "x")},
        {"logits_2": np.full((80, 7), np.nan, dtype=np.float16)},
        {"test_images": np.ones((3, 80), dtype=np.int8)},
        {"test_rule": np.array("none")},
        {"label_names": np.arange(7)},
        {"sample_ids": np.arange(79)},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_predictions_of_another_shape_are_a_sentence(
    store: Any, change: Any, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    path = store(tmp_path)
    change(path, "predictions", to=None)
    npz = path.with_suffix(".npz")
    with np.load(npz) as stored:
        arrays = dict(stored)
    np.savez_compressed(npz, **{**arrays, **wrong})
    (problem,) = verify_results(path).problems
    assert "predictions" in problem
    for metric in ("last_map", "last_of1@0.6"):
        assert len(rescore(path, [metric]).left_out) == 1


def test_version_1_is_checked_as_far_as_it_goes(store: Any, change: Any, tmp_path: Path) -> None:
    path = store(tmp_path)
    change(path, "predictions", to=None)
    change(path, "job", "code_version", to=None)
    (no_key, no_checksum) = verify_results(path).unchecked
    assert "its key cannot be checked" in no_key
    assert "no stored checksum" in no_checksum
    version = "0.1.0+abc-dirty"
    where = {"code_version": version, "python": "3", "platform": "x", "device": {"kind": "cpu", "name": "x"}}
    change(path, "environment", to=where)
    found = verify_results(path)
    assert (found.problems, len(found.unchecked)) == ((), 1)
    npz = path.with_suffix(".npz")
    npz.write_bytes(npz.read_bytes()[:-30])
    assert "cannot be read" in verify_results(path).problems[0]


def test_two_results_of_one_job(store: Any, change: Any, tmp_path: Path) -> None:
    one = store(tmp_path / "a")
    other = store(tmp_path / "b")
    assert not verify_results(tmp_path).problems
    change(other, "cost", "seconds", "training", to=9.0)
    assert not verify_results(tmp_path).problems, "two runs of a job take other times"
    change(other, "method", "title", to="Mine")
    (problem,) = verify_results(tmp_path).problems
    assert f"{other}: {one} has the same key" in problem
    assert "(method.title: 'ER' against 'Mine')" in problem


def test_a_key_holds_the_files_of_plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("one")
    job = Job("digits", "./mine.py:Mine")
    key, files = job.key, job.plug_in_files
    (tmp_path / "mine.py").write_text("two")
    assert job.key != key
    assert job.key_with("0.1.0", files) == key


def test_nowhere() -> None:
    with pytest.raises(CmlBenchError, match="does not exist"):
        verify_results("nowhere")


def test_differences() -> None:
    assert difference({"a": [1, {"b": 2.0}]}, {"a": [1, {"b": 2.0}]}) is None
    assert difference({"a": [1, {"b": 2.0}]}, {"a": [1, {"b": 2.5}]}) == "a[1].b: 2.0 against 2.5"
    assert difference({"a": 1, "z": 1}, {"a": 2, "z": 2}, first=["z"]) == "z: 1 against 2"
    assert difference({"a": 1}, {}) == "a: 1 against nothing"
    assert difference([], [1]) == "the whole: 0 items against 1 items"
    assert difference({"a": {}}, {"a": None}) == "a: an object against None"
    assert difference(1.0, 1.0 + 1e-12) is not None
    assert difference(1.0, 1.0 + 1e-12, tolerance=1e-9) is None
    assert difference(True, 1) == "the whole: True against 1"


def test_what_is_said_of_many_files_is_summed_up() -> None:
    lines = [*(f"{name}.json: its predictions are missing" for name in "abcde"), "f.json: edited"]
    assert list(_summed_up(lines)) == [*lines[:3], "and 2 more: its predictions are missing", "f.json: edited"]
