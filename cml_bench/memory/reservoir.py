"""Reservoir sampling: every image of the stream is equally likely to be in the memory."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.benchmarks import DatasetExperience
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor

from cml_bench.streams.dataset import MultiLabelDataset, merge


class ReservoirBuffer(ExemplarsBuffer):
    """A memory filled by reservoir sampling (Vitter 1985), with labels as annotated when stored.

    Each image gets one uniform random key and the ``max_size`` largest keys stay, which is reservoir sampling for a
    whole experience at once. An image that returns in a later experience while it is stored keeps its place; the two
    annotations are merged, known entries winning. What is stored are ids and labels, not pixels.

    Args:
        max_size: Images the memory holds at most.
        generator: Draws the keys.
    """

    def __init__(self, max_size: int, generator: torch.Generator) -> None:
        super().__init__(max_size)
        self.generator = generator
        self.keys = torch.zeros(0, dtype=torch.float64)

    def post_adapt(self, agent_state: Any, exp: DatasetExperience) -> None:
        """Show an experience to the memory."""
        self.update_from_dataset(exp.dataset)

    def update_from_dataset(self, dataset: MultiLabelDataset) -> None:
        """Show a dataset to the memory."""
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
        self.max_size = new_size
        if len(self.buffer):
            self._keep(self.buffer, self.buffer.sample_ids.data, self.keys)

    def _keep(self, dataset: MultiLabelDataset, ids: Tensor, keys: Tensor) -> None:
        """Store the rows of ``dataset`` whose ids have the largest keys."""
        top = keys.topk(min(self.max_size, len(keys))).indices
        place = {int(sample): row for row, sample in enumerate(dataset.sample_ids.data.tolist())}
        self.keys = keys[top]
        self.buffer = dataset.subset([place[int(sample)] for sample in ids[top].tolist()])
