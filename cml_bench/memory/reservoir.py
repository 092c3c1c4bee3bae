"""Reservoir sampling: a memory of a fixed size holds each image of a stream of different images equally likely."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.benchmarks import DatasetExperience
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor

from cml_bench.memory.budget import images_allowed
from cml_bench.streams.dataset import MultiLabelDataset, merge


class ReservoirBuffer(ExemplarsBuffer):
    """A memory filled by reservoir sampling (Vitter 1985), with labels as annotated when stored.

    Each image gets one uniform random key and the ``max_size`` largest keys stay, which is reservoir sampling for a
    whole experience at once. An image that returns in a later experience while it is stored keeps its place; the two
    annotations are merged, known entries winning; one that did not stay draws a new key, and so is likelier to be
    there. So are late images where the memory grows with the labels (``20/label``): what early experiences lost does
    not come back. What is stored are ids and labels, not pixels.

    Args:
        size: Images the memory may hold, or ``"20/label"`` for as many a label seen.
        generator: Draws the keys.
    """

    def __init__(self, size: int | str, generator: torch.Generator) -> None:
        super().__init__(images_allowed(size, 0))
        self.size = size
        self.generator = generator
        self.keys = torch.zeros(0, dtype=torch.float64)

    def post_adapt(self, agent_state: Any, exp: DatasetExperience) -> None:
        """Show an experience to the memory."""
        self.update_from_dataset(exp.dataset)

    def update_from_dataset(self, dataset: MultiLabelDataset) -> None:
        """Show a dataset to the memory."""
        self.max_size = images_allowed(self.size, len(dataset.labels.names))
        new_keys = torch.rand(len(dataset), generator=self.generator, dtype=torch.float64)
        ids, keys = dataset.sample_ids.data, new_keys
        if len(self.buffer):
            stored = self.buffer.sample_ids.data
            fresh = ~torch.isin(ids, stored)
            ids, keys = torch.cat([stored, ids[fresh]]), torch.cat([self.keys, new_keys[fresh]])
            dataset = merge([self.buffer, dataset])
        self._keep(dataset, ids, keys)

    def resize(self, strategy: Any, new_size: int) -> None:
        """Change the size; shrinking keeps the images that a smaller reservoir would hold."""
        self.size = self.max_size = new_size
        if len(self.buffer):
            self._keep(self.buffer, self.buffer.sample_ids.data, self.keys)

    def _keep(self, dataset: MultiLabelDataset, ids: Tensor, keys: Tensor) -> None:
        """Store the rows of ``dataset`` whose ids have the largest keys."""
        top = keys.topk(min(self.max_size, len(keys))).indices
        order = dataset.sample_ids.data.argsort()
        rows = order[torch.searchsorted(dataset.sample_ids.data[order], ids[top])]
        self.keys = keys[top]
        self.buffer = MultiLabelDataset.from_rows(dataset.inputs, ids[top], dataset.labels.subset(rows))
