"""Herding: for each label the images whose mean feature follows the label's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cml_bench.memory.label_lists import ListMemory
from cml_bench.models.evaluating import evaluating
from cml_bench.models.layout import pool
from cml_bench.models.model import MultiLabelModel
from cml_bench.streams.dataset import MultiLabelDataset
from cml_bench.streams.loading import BatchLoader


class HerdingMemory(ListMemory):
    """iCaRL's exemplars (arXiv 1611.07725, algorithm 4) for images with several labels.

    Of the images that show a label, the next one is always that which brings the mean of the listed features closest to
    the mean of all. Features are the backbone's, pooled, of length 1, in evaluation mode without augmentation.

    Departures from iCaRL: an image on several lists takes one place, so that a memory may not be full (as in KRT's
    released code; ``refill`` lists another image instead); the same image is never picked twice (the widely copied loop
    picks with repetition and drops repeats, which lists other images).
    """

    def look(self, agent_state: Any, dataset: MultiLabelDataset) -> npt.NDArray[np.floating[Any]]:
        """Return (N, D) pooled features."""
        return pooled_features(agent_state.model, dataset, agent_state.eval_mb_size, agent_state.device)

    def rank(
        self, seen: npt.NDArray[np.floating[Any]], count: int, passed_over: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.intp]:
        """Return the rows that herding picks."""
        return herd(seen, count, passed_over)


def herd(
    features: npt.NDArray[np.floating[Any]], count: int, passed_over: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.intp]:
    """Return up to ``count`` different rows whose running mean stays closest to the mean of all rows.

    With the rows' lengths all 1, the row that minimises ``||mu - (S + x_j) / k||`` over the rest maximises
    ``x_j . (k mu - S)``, S the sum of those chosen: one matrix-vector product a choice, and nothing is sorted. Of
    equals the first is chosen.

    Args:
        features: (N, D); rows are brought to length 1.
        count: Rows to choose.
        passed_over: (N,) rows that count in the mean but are not chosen.
    """
    free = np.ones(len(features), dtype=bool) if passed_over is None else ~passed_over
    chosen: list[int] = []
    if not free.any():
        return np.array(chosen, dtype=np.intp)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    features = features / np.maximum(lengths, np.finfo(features.dtype).tiny)
    rounding = 8 * np.finfo(features.dtype).eps
    to_mean, to_chosen = features @ features.mean(axis=0), np.zeros_like(features[:, 0])
    for k in range(1, min(count, int(free.sum())) + 1):
        score = np.where(free, k * to_mean - to_chosen, -np.inf)
        row = int((score >= score.max() - k * rounding).argmax())
        chosen.append(row)
        free[row] = False
        to_chosen += features @ features[row]
    return np.array(chosen, dtype=np.intp)


@torch.no_grad()
def pooled_features(
    model: MultiLabelModel, dataset: MultiLabelDataset, batch_size: int, device: torch.device | str
) -> npt.NDArray[np.floating[Any]]:
    """Return (N, D) pooled features of a dataset's images, in evaluation mode and without augmentation."""
    with evaluating(model):
        loader = BatchLoader(dataset.eval(), batch_size)
        return torch.cat([pool(model.backbone(batch[0].to(device))).cpu() for batch in loader]).numpy()
