"""Training goes wrong in the middle: a loss that is no number, an image that breaks, a clock that goes back."""

from __future__ import annotations

import datetime
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.io import write_png

from cml_bench.runs.events import Event
from cml_bench.runs.job import Job, make_jobs
from cml_bench.runs.results import checkpoint_folder, read_result, result_path
from cml_bench.runs.run import run_and_store, run_job

# -- NaN -------------------------------------------------------------------------------------------------------------

POISON = """
clock = strategy.clock
if (clock.train_exp_counter, clock.train_exp_epochs, clock.train_epoch_iterations) == (2, 1, 2):
    strategy.loss = strategy.loss * float("nan")
"""


def test_a_loss_that_becomes_nan_stops_the_job_and_keeps_the_last_good_checkpoint(
    small_jobs: Any, plugin: Callable[..., str], tmp_path: Path
) -> None:
    settings = {"increment": 2, "epochs": 3, "batch_size": 4}
    (job,) = small_jobs([plugin("poison", POISON, "before_backward")], **settings)
    result = run_and_store(job, tmp_path / "results")
    assert result is not None
    assert result["status"] == "failed"
    assert result["error"].startswith("the loss became nan in experience 3, epoch 2, step 3 of ")
    kept = sorted(checkpoint_folder(result_path(tmp_path / "results", job)).iterdir())
    assert [path.name[:5] for path in kept] == ["0001-", "0002-"]
    events: list[Event] = []
    run_and_store(job, tmp_path / "results", report=events.append)
    assert [event.message for event in events if event.kind == "note"] == ["goes on after experience 2"]
    assert {event.experience for event in events if event.kind == "epoch"} == {2}


# -- images ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def image_job(tmp_path: Path) -> tuple[Job, Path]:
    """A job that reads its images in every epoch, and the folder of these."""
    root, generator = tmp_path / "images", np.random.default_rng(0)
    root.mkdir()
    for split, count in (("train", 16), ("test", 8)):
        lines = ["file,a,b,c,d"]
        for i in range(count):
            name = f"{split}{i}.png"
            pixels = generator.integers(0, 256, (3, 16, 16), dtype=np.uint8)
            write_png(torch.from_numpy(pixels), str(root / name))
            marks = np.roll([1, 1, 0, 0], i)
            lines.append(",".join([name, *map(str, marks)]))
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n")
    tiny = '[["depth", 1], ["embed_dim", 16], ["num_heads", 1], ["patch_size", 8]]'
    options = ["backbone=vit_tiny_patch16_224", f"backbone_options={tiny}", f"root={root}", "image_size=32"]
    options += ["batch_size=4", "epochs=2", "augment=false"]
    (job,) = make_jobs(["image_folder"], ["naive"], ["default"], [0], options)
    return job, root


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def take_away(path: Path) -> None:
    path.unlink()


def break_disk(path: Path) -> None:
    """Put a file there that the kernel refuses to read, as one on a broken sector."""
    path.unlink()
    path.symlink_to("/proc/self/mem")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (cut, "cannot be decoded"),
        (take_away, "does not exist; put the file there"),
        (break_disk, "cannot be read (Input/output error)"),
    ],
)
def test_an_image_that_breaks_while_it_is_trained_on(
    image_job: tuple[Job, Path], tmp_path: Path, monkeypatch: Any, damage: Callable[[Path], None], sentence: str
) -> None:
    """It is read in a thread of the loader; the error reaches the job, and once it is mended the job goes on."""
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))
    job, root = image_job
    victim = root / "train6.png"
    content = victim.read_bytes()

    def report(event: Event) -> None:
        if event.kind == "epoch" and (event.experience, event.epoch) == (1, 1):
            damage(victim)

    result = run_and_store(job, tmp_path / "results", report=report)
    assert result is not None
    assert result["error"].startswith(f"image {victim} {sentence}")
    assert "\n" not in result["error"]
    victim.unlink(missing_ok=True)
    victim.write_bytes(content)
    events: list[Event] = []
    run_and_store(job, tmp_path / "results", report=events.append)
    assert [event.message for event in events if event.kind == "note"] == ["goes on after experience 1"]
    run_job(job).predictions.save(tmp_path / "whole.npz")
    stored = result_path(tmp_path / "results", job).with_suffix(".npz")
    assert stored.read_bytes() == (tmp_path / "whole.npz").read_bytes()


# -- clocks ----------------------------------------------------------------------------------------------------------


def test_a_clock_that_goes_back_changes_nothing(small_jobs: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Every look at the clock is an hour before the last one, and files are the younger the earlier they were made."""
    (job,) = small_jobs(["er memory_size=10"], increment=2)
    expected = run_job(job).predictions.logits
    hours = itertools.count()
    now = datetime.datetime.now().timestamp()
    monkeypatch.setattr("time.time", lambda: now - 3600 * next(hours))
    monkeypatch.setattr("time.time_ns", lambda: int((now - 3600 * next(hours)) * 1e9))
    path = result_path(tmp_path, job)

    def report(event: Event) -> None:
        for age, file in enumerate(sorted(checkpoint_folder(path).glob("*"))):
            os.utime(file, (now - 3600 * age, now - 3600 * age))
        if event.kind == "epoch" and event.experience == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_and_store(job, tmp_path, report=report)
    events: list[Event] = []
    run_and_store(job, tmp_path, report=events.append)
    assert [event.message for event in events if event.kind == "note"] == ["goes on after experience 3"]
    result = read_result(path)
    assert result.status == "ok"
    cost = json.loads(path.read_text())["cost"]["seconds"]
    assert min(cost.values()) > 0
    assert max(cost.values()) < 600
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
        assert all(np.array_equal(stored[f"logits_{t}"], block) for t, block in enumerate(expected))
