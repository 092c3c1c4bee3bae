"""Federations that are interrupted go on after the round that they were at."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cml_bench.runs.run import run_job
from cml_bench.training.template import MultiLabelTemplate


@pytest.mark.parametrize(
    "method",
    [
        *("er memory_size=9 loss=role", "avalanche.training.plugins:EWCPlugin ewc_lambda=0.1"),
        *(pytest.param(method, marks=pytest.mark.slow) for method in ("naive", "lwf", "podnet", "cumulative", "krt")),
    ],
)
def test_a_federation_that_is_interrupted_again_and_again_gives_the_same(
    small_jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """It ends after the round that it is at, and takes no step twice."""
    (job,) = small_jobs([method], federated="clients=3 rounds=3 per_round=2 mu=0.01 lag=1")
    taken, stops, step = 0, set[int](), MultiLabelTemplate.optimizer_step

    def counted(self: MultiLabelTemplate) -> None:
        nonlocal taken
        taken += 1
        if taken in stops:
            signal.raise_signal(signal.SIGINT)
        step(self)

    monkeypatch.setattr(MultiLabelTemplate, "optimizer_step", counted)
    uninterrupted = run_job(job).predictions.logits
    whole, taken = taken, 0
    stops = {1, whole * 2 // 3}
    notes: list[str] = []
    for _ in stops:
        with pytest.raises(KeyboardInterrupt):
            run_job(job, checkpoints=tmp_path, report=lambda event: notes.append(event.message))
    made = run_job(job, checkpoints=tmp_path, report=lambda event: notes.append(event.message))
    first, second = (note for note in notes if note)
    assert first == "goes on after experience 1, round 1"
    assert second.startswith("goes on after experience 2, round ")
    assert all(np.array_equal(a, b) for a, b in zip(made.predictions.logits, uninterrupted, strict=True))
    assert taken == whole


class Stopped(BaseException):
    """The job is interrupted."""


def test_a_federation_of_upstream_learners_goes_on_after_experiences(small_jobs: Any, tmp_path: Path) -> None:
    """Their loaders cannot be stored while they train; that is said once."""
    (job,) = small_jobs(["avalanche.training.supervised:Replay mem_size=10"], federated="clients=2 rounds=2")
    notes: list[str] = []

    def report(event: Any) -> None:
        notes.extend([event.message] if event.kind == "note" else [])
        if event.kind == "experience" and len(notes) == 1:
            raise Stopped

    with pytest.raises(Stopped):
        run_job(job, checkpoints=tmp_path, checkpoint_every="epoch", report=report)
    logits = run_job(job, checkpoints=tmp_path, report=report).predictions.logits
    assert notes[0].startswith("goes on after whole experiences only, should it be interrupted: learner[0].dataloader")
    assert notes[1:] == ["goes on after experience 1"]
    assert all(np.array_equal(a, b) for a, b in zip(logits, run_job(job).predictions.logits, strict=True))
