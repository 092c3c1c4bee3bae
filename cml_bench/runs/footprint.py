"""What a learner holds: images in its memories, and parameters that it trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor

from cml_bench.data.inputs import ImageInputs, InMemoryImages, Inputs, TensorInputs
from cml_bench.data.pixel_cache import PixelInputs
from cml_bench.memory.crops import CropMemory
from cml_bench.memory.pixels import PixelStore
from cml_bench.streams.dataset import MultiLabelDataset


@dataclass
class Footprint:
    """The most that a learner held at any time.

    Attributes:
        stored_images: Images in all its memories together.
        memory_bytes: Bytes of these: images as decoded (3 bytes a pixel of the original; features where the model
            reads these), labels and ids. Images that a memory reads from their source count like copies: what
            remembering costs does not depend on where this process finds the image.
        trainable_parameters: Parameters of model and criterion that gradients were computed for.
    """

    stored_images: int = 0
    memory_bytes: int = 0
    trainable_parameters: int = 0

    def raise_to(self, **other: int) -> None:
        """Take over what is larger in another footprint."""
        for name, value in other.items():
            setattr(self, name, max(value, getattr(self, name)))


class TrainableParameters(SupervisedPlugin):
    """Counts the parameters that are trained, epoch by epoch: a method may freeze all of them before it ends."""

    def __init__(self, footprint: Footprint) -> None:
        super().__init__()
        self.footprint = footprint

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Count those of the model, and of the criterion if the optimiser has them."""
        groups = strategy.optimizer.param_groups
        every = [*strategy.model.parameters(), *(parameter for group in groups for parameter in group["params"])]
        trained = {id(parameter): parameter.numel() for parameter in every if parameter.requires_grad}
        self.footprint.raise_to(trainable_parameters=sum(trained.values()))


def look_at_memories(learners: Iterable[Any]) -> dict[str, int]:
    """Return the images and the bytes of all exemplar buffers that are attributes of learners' plugins.

    An Avalanche buffer of other datasets than ours tells how many images it holds, not how large they are.
    """
    images, size = 0, 0
    for memory in memories(learners):
        dataset = memory.buffer
        if not isinstance(dataset, MultiLabelDataset):
            images += len(dataset)
            continue
        ids, labels = dataset.sample_ids.data, dataset.labels.data
        distinct = torch.unique(ids)
        images += len(distinct)
        size += ids.nbytes + labels.nbytes
        size += (
            3 * int(memory.pixels.sum()) if isinstance(memory, CropMemory) else image_bytes(dataset.inputs, distinct)
        )
    return dataclasses.asdict(Footprint(images, size))


def memories(learners: Iterable[Any]) -> list[ExemplarsBuffer]:
    """Return the exemplar buffers that are attributes of learners' plugins, each once."""
    found = [value for learner in learners for plugin in learner.plugins for value in vars(plugin).values()]
    return list({id(value): value for value in found if isinstance(value, ExemplarsBuffer)}.values())


def image_bytes(inputs: Inputs, rows: Tensor) -> int:
    """Return the bytes of some images as a memory that copies them would hold them."""
    if not len(rows):
        return 0
    if isinstance(inputs, PixelStore):
        return sum(inputs.copies[row].nbytes for row in rows.tolist())
    if isinstance(inputs, InMemoryImages):
        inputs = inputs.images
    if isinstance(inputs, TensorInputs):
        return len(rows) * inputs.table[0].nbytes
    if isinstance(inputs, (ImageInputs, PixelInputs)):
        source = inputs.source
        if source.image_size is not None:
            height, width = source.image_size
            return len(rows) * 3 * height * width
        if source.sizes is not None and source.sizes[rows.numpy()].all():
            return 3 * int(source.sizes[rows.numpy()].prod(axis=1, dtype="int64").sum())
    return len(rows) * inputs.fetch(rows[:1], training=False).nbytes
