"""What a model says of all images of a dataset, between two steps of training."""

from __future__ import annotations

import torch
from torch import Tensor

from cml_bench.models.evaluating import evaluating
from cml_bench.models.model import MultiLabelModel
from cml_bench.streams.dataset import MultiLabelDataset
from cml_bench.streams.loading import BatchLoader


@torch.no_grad()
def read_logits(
    model: MultiLabelModel, dataset: MultiLabelDataset, batch_size: int, device: torch.device | str
) -> Tensor:
    """Return (N, n) logits of a dataset's images, in evaluation mode and without augmentation."""
    with evaluating(model):
        return torch.cat([model(batch[0].to(device)) for batch in BatchLoader(dataset.eval(), batch_size)])
