"""KIS: for each label the images that stand for it and show most of what is new."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cml_bench.memory.label_lists import Array, ListMemory
from cml_bench.models.evaluating import evaluating
from cml_bench.streams.dataset import MultiLabelDataset
from cml_bench.streams.loading import BatchLoader


class KISMemory(ListMemory):
    """The exemplars of KAR, knowledge-informed selection.

    Of the images that show a label, those with the highest ``a rep + (1 - a) info``: ``rep = exp(-delta)`` falls with
    the distance of an image's feature from the mean of the label's, ``info`` is the mean probability of the
    experience's new labels, and distances and probabilities are brought to between 0 and 1 by the smallest and the
    largest of the label. Features are the backbone's, pooled, of length 1; everything is read in evaluation mode
    without augmentation.

    Source: the public selection code of KAR. It looks at the features of stored images as well and selects from the
    current ones alone, like this. Departure: there, an image that several labels choose is stored several times.

    Args:
        size: Images the memory may hold, or ``"20/label"`` for as many a label seen.
        balance: a, weight of the distance; released: 1/2.
    """

    def __init__(self, size: int | str, balance: float = 0.5) -> None:
        super().__init__(size)
        self.balance = balance

    @torch.no_grad()
    def look(self, agent_state: Any, dataset: MultiLabelDataset) -> Array:
        """Return (N, D + 1) pooled features and the mean probability of the new labels."""
        model, device, new = agent_state.model, agent_state.device, slice(dataset.labels.first_new, None)
        parts: list[Tensor] = []
        with evaluating(model):
            for batch in BatchLoader(dataset.eval(), agent_state.eval_mb_size):
                output = model.head_output(batch[0].to(device))
                chance = output.logits[:, new].sigmoid().mean(dim=1, keepdim=True)
                parts.append(torch.cat([output.pooled, chance], dim=1).cpu())
        return torch.cat(parts).numpy()

    def rank(self, seen: Array, count: int, passed_over: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
        """Return the rows with the highest scores; of equals the first."""
        if not len(seen):
            return np.empty(0, dtype=np.intp)
        order = np.argsort(-kis_scores(seen[:, :-1], seen[:, -1], self.balance), kind="stable")
        return order[~passed_over[order]][:count]


def kis_scores(features: Array, chances: Array, balance: float) -> Array:
    """Return (N,) scores of images that show a label.

    Args:
        features: (N, D); rows are brought to length 1.
        chances: (N,) mean probabilities of the new labels.
        balance: Weight a of the distance.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    features = features / np.maximum(lengths, np.finfo(features.dtype).tiny)
    distance = np.linalg.norm(features - features.mean(axis=0), axis=1)
    scores: Array = balance * np.exp(-_stretched(distance)) + (1 - balance) * _stretched(chances)
    return scores


def _stretched(values: Array) -> Array:
    """Return values from 0, for the smallest, to 1, for the largest; all 1 if they are equal."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.ones_like(values)
