"""Copies of stored images, so that a memory does without the source that they came from."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cml_bench.data.inputs import ImageInputs, InMemoryImages, Inputs
from cml_bench.data.pixel_cache import PixelInputs
from cml_bench.streams.dataset import MultiLabelDataset

Store = Literal["ids", "pixels"]
"""An option: whether a memory keeps ids and labels and reads images from their source, or copies of the images."""


class PixelStore:
    """Model inputs of the images in a memory, from copies that were made when each came in.

    Of images that are read from a source the copy is the decoded uint8 image, before any transform, and of images from
    a pixel cache the stored one: it is augmented as the source's would be, draw for draw. Of features it is the input.

    Attributes:
        inputs: Where images come from; after the copy only its transforms are used.
        copies: Sample id to the copy.
    """

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.copies: dict[int, Tensor] = {}

    @property
    def _reader(self) -> Inputs:
        """What reads and transforms the images."""
        return self.inputs.images if isinstance(self.inputs, InMemoryImages) else self.inputs

    @property
    def augments(self) -> bool:
        """Whether two fetches of a row in training differ."""
        return self.inputs.augments

    def __len__(self) -> int:
        """Return the number of rows of the source."""
        return len(self.inputs)

    def fetch(self, rows: Tensor, *, training: bool) -> Tensor:
        """Return the (B, ...) float32 inputs of stored images; KeyError if one is not stored."""
        copies, reader = [self.copies[row] for row in rows.tolist()], self._reader
        if isinstance(reader, PixelInputs):
            return reader.transform(torch.stack(copies), training=training)
        if isinstance(reader, ImageInputs):
            transform = reader.training if training else reader.evaluation
            copies = [transform(copy) for copy in copies]
        return torch.stack(copies)

    def keep(self, memory: MultiLabelDataset) -> MultiLabelDataset:
        """Copy what has come into a memory, forget what has left, and return the memory as it reads from the copies."""
        ids: list[int] = memory.sample_ids.data.tolist()
        self.copies = {row: self.copies[row] if row in self.copies else self._copy(row) for row in ids}
        return MultiLabelDataset.from_rows(self, memory.sample_ids.data, memory.labels)

    def _copy(self, row: int) -> Tensor:
        reader = self._reader
        if isinstance(reader, ImageInputs):
            return reader.source.load(row).clone()
        if isinstance(reader, PixelInputs):
            return reader.table[row].clone()
        return reader.fetch(torch.tensor([row]), training=False)[0].clone()
