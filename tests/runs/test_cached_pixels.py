"""``cache=pixels`` in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cml_bench.errors import CmlBenchError
from cml_bench.runs.events import Event
from cml_bench.runs.plan import plan
from cml_bench.runs.run import run_job


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path))
    return tmp_path


def logits(jobs: Any) -> Any:
    return np.concatenate([block.ravel() for block in run_job(*jobs).predictions.logits])


def test_same_predictions_as_from_images(small_jobs: Any, cache: Path) -> None:
    """Scenes of 32 pixels are stored as they are, so nothing is rounded."""
    messages: list[str] = []
    (job,) = small_jobs(cache="pixels")
    cached = run_job(job, report=lambda event: messages.append(event.message) if isinstance(event, Event) else None)
    assert np.array_equal(logits(small_jobs()), np.concatenate([block.ravel() for block in cached.predictions.logits]))
    assert [len(list(path.glob("*.npy"))) for path in (cache / "pixels",)] == [2]
    assert any("pixels of train images 40/40, " in text and text.endswith(" images/s") for text in messages if text)
    strong = [logits(small_jobs(augment="strong", flip="false", **options)) for options in ({}, {"cache": "pixels"})]
    assert np.array_equal(*strong)


def test_crops_are_drawn_in_training_alone(small_jobs: Any, cache: Path) -> None:
    options = {"cache": "pixels", "augment": "true", "flip": "false"}
    first, again, plain = (logits(small_jobs(**given)) for given in (options, options, {"cache": "pixels"}))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, plain)
    # The test images are stored at the model's size once, whether crops are cut from the training images or not.
    assert len(list((cache / "pixels").glob("*.npy"))) == 3


def test_a_memory_of_copies_augments_as_one_of_ids_does(small_jobs: Any) -> None:
    options = {"cache": "pixels", "augment": "true", "flip": "false"}
    stores = [logits(small_jobs([f"er memory_size=20 store={store}"], **options)) for store in ("ids", "pixels")]
    assert np.array_equal(*stores)


def test_what_it_cannot_go_with(small_jobs: Any) -> None:
    with pytest.raises(CmlBenchError, match="frozen=true reads no images in training, and cache=pixels keeps them"):
        plan(*small_jobs(cache="pixels", frozen="true"))
    with pytest.raises(CmlBenchError, match="cache='pixel'"):
        plan(*small_jobs(cache="pixel"))
