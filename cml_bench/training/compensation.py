"""Balancing what past experiences, and presence and absence in each, pull at the model with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from cml_bench.labels import ABSENT, PRESENT
from cml_bench.models.heads.head import HeadOutput


class CompensationPlugin(SupervisedPlugin):
    """Weighs each old label's entry by its error over the mean error of its experience and sign, for the criterion.

    Source: KBK ("Knowing Beyond the Known"), category-balanced gradient compensation. With ``G = |p - y|`` the weight
    of an old label's entry is G over the mean of G, in the batch, over the entries of the labels of the same past
    experience with the same y; entries of new labels weigh 1. Inferred: the weights are constants to the gradient.

    What is weighted is the gradient that reaches the entry's logit, which is the same as weighting the entry's term of
    the loss for every criterion that is a sum or a mean over entries, and needs nothing of the criterion; the loss that
    is reported stays unweighted. Comes after whatever completes the labels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.starts: list[int] = []

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Note where the labels of the experience begin."""
        first_new = strategy.experience.dataset.labels.first_new
        if first_new not in self.starts:
            self.starts.append(first_new)

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Hand the criterion logits whose gradient is weighted."""
        if len(self.starts) > 1:
            strategy.head_output = self._weighted(strategy.head_output, strategy.mb_y)
            strategy.second_view = strategy.second_view and self._weighted(strategy.second_view, strategy.mb_y)

    def _weighted(self, output: HeadOutput, labels: Tensor) -> HeadOutput:
        """Return what is said, each reading with weights of its own."""
        weights = compensation(output.logits.detach().sigmoid(), labels, self.starts)
        weighted = output.logits.clone()
        if weighted.requires_grad:
            weighted.register_hook(lambda gradient: gradient * weights)
        return output._replace(logits=weighted, companion=output.companion and self._weighted(output.companion, labels))


def compensation(scores: Tensor, labels: Tensor, starts: Sequence[int]) -> Tensor:
    """Return (B, n) weights of all entries; 1 for those of the last experience and for unknown ones.

    Args:
        scores: (B, n) probabilities.
        labels: (B, n) four-state labels.
        starts: Column at which the labels of each experience begin; the last one is the current.
    """
    error, weights = (scores - labels).abs(), torch.ones_like(scores)
    for start, end in pairwise(starts):
        for state in (PRESENT, ABSENT):
            own = torch.zeros_like(labels, dtype=torch.bool)
            own[:, start:end] = labels[:, start:end] == state
            mean = (error * own).sum() / own.sum().clamp(min=1)
            weights = torch.where(own & (mean > 0), error / mean.clamp(min=torch.finfo(error.dtype).tiny), weights)
    return weights
