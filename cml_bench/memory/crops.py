"""A memory of crops, each with one label, whose size is counted in pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from avalanche.benchmarks import DatasetExperience
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor

from cml_bench.labels import OUT_OF_SCOPE, PRESENT, widen
from cml_bench.memory.budget import images_allowed
from cml_bench.memory.exemplars import uniform
from cml_bench.streams.dataset import Batch, LabelMatrix, MultiLabelDataset


class Crops(NamedTuple):
    """Crops, and what was annotated of the images that they were cut from.

    Attributes:
        ids: (m,) sample ids of the images.
        boxes: (m, 4) ``top, left, bottom, right`` in pixels of the model's input, the last two exclusive.
        shown: (m,) column of the one label that each crop shows.
        labels: (m, n) four-state labels of the images.
    """

    ids: Tensor
    boxes: Tensor
    shown: Tensor
    labels: Tensor


Cutter = Callable[[MultiLabelDataset, Tensor], Crops]
"""Cuts the images of a dataset, given (n,) how many pixels are stored for each label."""


class CropMemory(ExemplarsBuffer):
    """Crops of past images within the pixels of ``size`` whole ones.

    Source: CUTER, arXiv 2505.19680, whose budget is the bytes of 1000 images. While there is room, a crop of label y is
    appended if y holds less than its share (the size over the labels of the current experience), else it replaces
    another one of y. A full memory lets it in with probability ``1 - held_y / max held``, in the place of one of the
    label that holds most. The released code counts crops; here all is counted in pixels, like the budget itself
    (inferred), which is the same where crops are of one size, and as many crops go as it takes to make room.

    What is stored are ids, boxes and labels, not pixels; ``buffer`` shows the images that crops are of. Of the labels,
    the one that a crop shows is PRESENT, those that its image was annotated not to have are ABSENT, and all else is
    unknown: other labels of the image may be outside the box.

    Attributes:
        boxes: (m, 4) ``top, left, bottom, right`` of each crop.
        shown: (m,) label of each crop.
        pixels: (m,) size of each crop.

    Args:
        size: Whole images that the memory may hold the pixels of, or ``"20/label"`` for as many a label seen.
        generator: Makes every random choice.
        cut: Finds the crops of a dataset.
    """

    def __init__(self, size: int | str, generator: torch.Generator, cut: Cutter) -> None:
        super().__init__(images_allowed(size, 0))
        self.size = size
        self.generator = generator
        self.cut = cut
        self.ids = torch.empty(0, dtype=torch.int64)
        self.boxes = torch.empty(0, 4, dtype=torch.int64)
        self.shown = torch.empty(0, dtype=torch.int64)
        self.labels = torch.empty(0, 0, dtype=torch.int8)
        self._image_pixels = 0
        self._latest: MultiLabelDataset | None = None

    @property
    def pixels(self) -> Tensor:
        """(m,) int64 size of each crop."""
        return (self.boxes[:, 2] - self.boxes[:, 0]) * (self.boxes[:, 3] - self.boxes[:, 1])

    @property
    def held(self) -> Tensor:
        """(n,) int64 pixels stored for each label."""
        return torch.zeros(self.labels.shape[1], dtype=torch.int64).index_add_(0, self.shown, self.pixels)

    @property
    def buffer(self) -> MultiLabelDataset:
        """The images that crops are of, one row a crop, with the crops' labels."""
        if self._latest is None:
            empty: MultiLabelDataset = super().buffer
            return empty
        latest = self._latest.labels
        matrix = LabelMatrix(self.labels, latest.names, latest.first_new)
        return MultiLabelDataset.from_rows(self._latest.inputs, self.ids, matrix)

    def __len__(self) -> int:
        """Return the number of crops."""
        return len(self.ids)

    def post_adapt(self, agent_state: Any, exp: DatasetExperience) -> None:
        """Show an experience to the memory: every image once, in random order, in batches as long as training's."""
        order = torch.randperm(len(exp.dataset), generator=self.generator)
        for rows in order.split(agent_state.train_mb_size):
            self.update_from_dataset(exp.dataset.subset(rows.tolist()))

    def update_from_dataset(self, dataset: MultiLabelDataset) -> None:
        """Cut the images of a dataset, and take in the crops that are to stay."""
        names = dataset.labels.names
        self._latest = dataset
        self.max_size = images_allowed(self.size, len(names))
        self.labels = widen(self.labels, len(names))
        self._image_pixels = self._image_pixels or image_pixels(dataset)
        crops = self.cut(dataset, self.held)
        share = self._room // max(1, len(names) - dataset.labels.first_new)
        for k in range(len(crops.ids)):
            self._show(Crops(*(part[k : k + 1] for part in crops)), share)

    def resize(self, strategy: Any, new_size: int) -> None:
        """Change the size; shrinking gives up crops of whichever label holds most."""
        self.size = self.max_size = new_size
        self._make_room(0)

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        """Return ``count`` different crops (all of them if there are fewer) in their places, with 0 around them."""
        chosen = torch.randperm(len(self.ids), generator=generator)[:count]
        images: MultiLabelDataset = self.buffer.eval()
        batch = images.batch(chosen)
        batch[0] = around_zero(batch[0], self.boxes[chosen])
        return batch

    @property
    def _room(self) -> int:
        """Pixels that the memory may hold."""
        return self.max_size * self._image_pixels

    def _show(self, crop: Crops, share: int) -> None:
        """Take in a crop, or not."""
        top, left, bottom, right = crop.boxes[0].tolist()
        pixels, label, held = (bottom - top) * (right - left), int(crop.shown), self.held
        if pixels > self._room:
            return
        if int(held.sum()) + pixels <= self._room:
            if int(held[label]) >= max(share, 1):
                self._drop_one(label)
        elif uniform(self.generator) < 1 - int(held[label]) / int(held.max()):
            self._make_room(pixels)
        else:
            return
        row = crop.labels.masked_fill(crop.labels == PRESENT, OUT_OF_SCOPE)
        row[0, label] = PRESENT
        self.ids, self.boxes = torch.cat([self.ids, crop.ids]), torch.cat([self.boxes, crop.boxes])
        self.shown, self.labels = torch.cat([self.shown, crop.shown]), torch.cat([self.labels, row])

    def _make_room(self, pixels: int) -> None:
        """Give up crops of the label that holds most until there is room for ``pixels``."""
        while int(self.pixels.sum()) + pixels > self._room:
            self._drop_one(int(self.held.argmax()))

    def _drop_one(self, label: int) -> None:
        """Give up one of a label's crops."""
        crops = (self.shown == label).nonzero()[:, 0]
        gone = crops[int(uniform(self.generator) * len(crops))]
        kept = torch.arange(len(self.ids)) != gone
        self.ids, self.boxes, self.shown = self.ids[kept], self.boxes[kept], self.shown[kept]
        self.labels = self.labels[kept]


def image_pixels(dataset: MultiLabelDataset) -> int:
    """Return the number of pixels of a model input (height times width)."""
    return int(dataset.inputs.fetch(dataset.sample_ids.data[:1], training=False)[0, 0].numel())


def around_zero(images: Tensor, boxes: Tensor) -> Tensor:
    """Return (B, ..., H, W) images that are 0 outside their (B, 4) boxes."""
    top, left, bottom, right = boxes[:, :, None].to(images.device).unbind(dim=1)
    rows, columns = (torch.arange(side, device=images.device) for side in images.shape[-2:])
    inside = ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None]
    return images * inside[:, None]
