"""PR: every marked label is to score higher than every other one of its image."""

from __future__ import annotations

import torch
from torch import Tensor

from cml_bench.labels import PRESENT
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import judged_entries

__all__ = ["PairwiseRanking"]


class PairwiseRanking(Criterion):
    """Pairwise ranking: a present label i costs ``sum_j max(0, 1 - p_i + p_j)`` over the image's other labels j.

    These are the labels that were asked for and not marked present: open, or (not in the paper) verified to be absent.
    Of labels alone that are not present, nothing is learnt. The sum is divided by the number of labels asked for.

    Source: Cole et al. 2021, arXiv 2106.09708, and the authors' code.
    """

    meta = CriterionMeta(name="pairwise_ranking", title="PR", reference="arXiv:2106.09708", open=True)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch, or 0 with a graph if nothing was asked for."""
        judged, p = judged_entries(labels, self.spare), logits.sigmoid()
        present = judged & (labels == PRESENT)
        other = judged & ~present
        # 1 - p_i + p_j is never negative, so the sum over pairs falls apart into sums over labels.
        missing = torch.where(present, 1 - p, 0).sum(dim=1) * other.sum(dim=1)
        excess = torch.where(other, p, 0).sum(dim=1) * present.sum(dim=1)
        return (missing + excess).sum() / judged.sum().clamp(min=1)
