"""What a learner holds: images and bytes of its memories, and the parameters that it trains."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.storage_policy import ReservoirSamplingBuffer
from torch import nn

from cml_bench.data.inputs import ImageInputs, TensorInputs
from cml_bench.memory.crops import CropMemory
from cml_bench.memory.pixels import PixelStore
from cml_bench.memory.reservoir import ReservoirBuffer
from cml_bench.runs.events import Event
from cml_bench.runs.footprint import Footprint, TrainableParameters, image_bytes, look_at_memories, memories
from cml_bench.runs.run import run_job


def learner(*buffers: Any) -> Any:
    plugins = []
    for buffer in buffers:
        plugin = SupervisedPlugin()
        plugin.buffer = buffer
        plugins.append(plugin)
    return SimpleNamespace(plugins=plugins)


class Source:
    def __init__(self, image_size: Any = None, sizes: Any = None) -> None:
        self.image_size, self.sizes = image_size, sizes

    def __len__(self) -> int:
        return 4

    def load(self, row: int) -> torch.Tensor:
        return torch.zeros(3, 5, 6 + row, dtype=torch.uint8)


def test_bytes_of_images() -> None:
    rows = torch.tensor([0, 2])
    transform = lambda image: torch.zeros(3, 8, 8)  # noqa: E731
    features = TensorInputs(torch.zeros(4, 10, dtype=torch.float16))
    assert image_bytes(features, rows) == 2 * 10 * 2
    assert image_bytes(ImageInputs(Source(image_size=(4, 7)), transform), rows) == 2 * 3 * 4 * 7
    sizes = np.array([[5, 6], [5, 7], [5, 8], [0, 0]], dtype=np.int32)
    varying = ImageInputs(Source(sizes=sizes), transform)
    assert image_bytes(varying, rows) == 3 * 5 * (6 + 8)
    # What is not known counts as the model reads it.
    assert image_bytes(varying, torch.tensor([0, 3])) == 2 * 3 * 8 * 8 * 4
    assert image_bytes(ImageInputs(Source(), transform), rows) == 2 * 3 * 8 * 8 * 4
    assert image_bytes(varying, rows[:0]) == 0


def test_stored_images_weigh_as_much_whether_or_not_they_are_augmented(small_jobs: Any) -> None:
    """Small ones that are not are held as float32 tensors while the job runs: that is no memory of the method's."""
    jobs = [
        job
        for augment in ("true", "false")
        for job in small_jobs(["er memory_size=10", "er memory_size=10 store=pixels"], augment=augment)
    ]
    weighed = [run_job(job).result["cost"]["memory"] for job in jobs]
    assert all(memory == weighed[0] for memory in weighed)
    assert 10 * 3 * 32 * 32 < weighed[0]["bytes"] < 1.1 * 10 * 3 * 32 * 32


def test_copies_weigh_what_the_source_says(tiny_scenario: Any) -> None:
    dataset = next(iter(tiny_scenario().train_stream)).dataset
    buffer = ReservoirBuffer(5, torch.Generator().manual_seed(0))
    buffer.update_from_dataset(dataset)
    found = look_at_memories([learner(buffer)])
    copies = PixelStore(dataset.inputs)
    kept = copies.keep(buffer.buffer)
    copied = sum(copy.nbytes for copy in copies.copies.values())
    assert found["stored_images"] == 5
    labels = buffer.buffer.labels.data
    assert found["memory_bytes"] == copied + labels.nbytes + 5 * 8
    assert image_bytes(copies, kept.sample_ids.data) == copied
    twice = look_at_memories([learner(buffer, buffer), learner(buffer)])
    assert twice == found, "one memory that several plugins hold is one memory"
    other = ReservoirBuffer(3, torch.Generator().manual_seed(0))
    other.update_from_dataset(dataset)
    assert look_at_memories([learner(buffer), learner(other)])["stored_images"] == 8
    assert look_at_memories([learner()]) == {"stored_images": 0, "memory_bytes": 0, "trainable_parameters": 0}


def test_a_buffer_of_other_datasets_tells_its_length() -> None:
    buffer = ReservoirSamplingBuffer(3)
    assert len(memories([learner(buffer)])) == 1
    buffer.buffer = [1, 2, 3]
    assert look_at_memories([learner(buffer)])["stored_images"] == 3


def test_crops_weigh_their_pixels(tiny_scenario: Any) -> None:
    memory = CropMemory(4, torch.Generator(), lambda *given: None)  # type: ignore[arg-type,return-value]
    assert look_at_memories([learner(memory)])["stored_images"] == 0
    memory._latest = next(iter(tiny_scenario().train_stream)).dataset
    width = memory._latest.labels.data.shape[1]
    memory.ids, memory.shown = torch.tensor([0, 0, 1]), torch.tensor([0, 0, 0])
    memory.boxes = torch.tensor([[0, 0, 2, 2], [0, 0, 1, 3], [1, 1, 2, 2]])
    memory.labels = torch.zeros(3, width, dtype=torch.int8)
    found = look_at_memories([learner(memory)])
    assert found["stored_images"] == 2
    assert found["memory_bytes"] == 3 * (4 + 3 + 1) + 3 * width + 3 * 8


def test_parameters_that_were_trained_at_any_time() -> None:
    model, extra = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), nn.Parameter(torch.zeros(7))
    footprint = Footprint()
    strategy = SimpleNamespace(model=model, optimizer=torch.optim.SGD([*model.parameters(), extra], lr=0.1))
    counter = TrainableParameters(footprint)
    model[0].requires_grad_(False)
    counter.after_training_epoch(strategy)
    assert footprint.trainable_parameters == 10 + 7
    model.requires_grad_(False)
    counter.after_training_epoch(strategy)
    assert footprint.trainable_parameters == 10 + 7


def test_a_frozen_end_does_not_hide_what_was_trained(small_jobs: Any) -> None:
    (job,) = small_jobs(["linear_probe"])
    made = run_job(job).result["cost"]
    assert 0 < made["parameters"]["trainable"] < made["parameters"]["total"]
    assert made["memory"] == {"images": 0, "bytes": 0}


def test_an_interruption_forgets_nothing(small_jobs: Any, tmp_path: Path) -> None:
    (job,) = small_jobs(["er memory_size=12"])
    whole = run_job(job).result["cost"]

    def stop(event: Event) -> None:
        if event.kind == "epoch" and event.experience == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(job, checkpoints=tmp_path, report=stop)
    resumed = run_job(job, checkpoints=tmp_path).result["cost"]
    assert resumed["memory"] == whole["memory"]
    assert resumed["memory"]["images"] == 12
    assert resumed["parameters"] == whole["parameters"]
    assert resumed["images"] == whole["images"]
