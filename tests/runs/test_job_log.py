"""Experiment trackers follow a job through Avalanche's loggers, and change nothing of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cml_bench.errors import CmlBenchError
from cml_bench.runs.events import Event
from cml_bench.runs.results import result_path
from cml_bench.runs.run import run_and_store, run_job


def test_tensorboard_holds_losses_and_metrics(small_jobs: Any, tmp_path: Path) -> None:
    (plain,) = small_jobs(epochs=3)
    job = dataclasses.replace(plain, log="tensorboard")
    assert job.key == plain.key
    epochs: list[float | None] = []
    result = run_and_store(job, tmp_path, report=lambda event: epochs.append(event.loss))

    read = EventAccumulator(str(result_path(tmp_path, job).with_suffix(".log"))).Reload()
    losses = read.Scalars("Loss_Epoch/train_phase/train_stream")
    assert [scalar.step for scalar in losses] == [1, 2, 3, 4, 5, 6]
    assert [scalar.value for scalar in losses] == pytest.approx([loss for loss in epochs if loss is not None])
    for name, tag in (("map", "map"), ("cf1_macro@0.5", "cf1_macro_at_0.5")):
        logged = read.Scalars(f"{tag}/eval_phase/test_stream")
        assert [scalar.step for scalar in logged] == [3, 6]
        expected = [figures[name] for figures in result["metrics"]["per_experience"]]
        assert [scalar.value for scalar in logged] == pytest.approx(expected)


def test_events_carry_the_metrics_that_the_result_has(small_jobs: Any) -> None:
    (job,) = small_jobs(["naive"], test="per_experience")
    events: list[Event] = []
    metrics = run_job(job, report=events.append).result["metrics"]["per_experience"]
    told = [event.metrics for event in events if event.kind == "experience"]
    assert len(told) == len(metrics) == 2
    for after, figures in zip(told, metrics, strict=True):
        assert after == {name: value for name, value in figures.items() if name in after}
        assert set(after) == {
            name for name, value in figures.items() if (name == "map" or "@" in name) and value is not None
        }


def test_weights_and_biases_offline(small_jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    (job,) = small_jobs()
    job = dataclasses.replace(job, log="wandb")
    assert run_and_store(job, tmp_path)["status"] == "ok"
    (stored,) = result_path(tmp_path, job).with_suffix(".log").rglob(f"run-{job.key}.wandb")
    content = stored.read_bytes()
    assert b"map/eval_phase/test_stream" in content
    assert b"Loss_Epoch/train_phase/train_stream" in content


def test_a_log_that_cannot_be_written_is_said(small_jobs: Any, tmp_path: Path) -> None:
    (job,) = small_jobs()
    occupied = tmp_path / "file"
    occupied.write_text("")
    with pytest.raises(CmlBenchError, match="log tensorboard cannot be started"):
        run_job(dataclasses.replace(job, log="tensorboard"), log=occupied)
