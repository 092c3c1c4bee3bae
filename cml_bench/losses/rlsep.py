"""RLSEP: no label scores above one of a higher rank."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cml_bench.labels import PRESENT, is_known
from cml_bench.losses.criterion import Criterion, CriterionMeta

__all__ = ["RLSEP"]


class RLSEP(Criterion):
    """Ranked log-sum-exp pairwise loss: ``log(1 + sum over pairs with r_i > r_j of exp(z_j - z_i))`` of each image.

    Four-state labels know two ranks, present above absent; with two, it is LSEP (Li et al. 2017, arXiv 1704.03135).
    Open labels have no rank, so that single positives alone teach nothing: put it under an assumption,
    ``assume_negative+rlsep``. The mean is over images that have labels of both ranks (inferred).

    Source: Dari et al. 2022, arXiv 2212.04022; the formula is inferred, no code is released.
    """

    meta = CriterionMeta(name="rlsep", title="RLSEP", reference="arXiv:2212.04022")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over images that have a present and an absent label, or 0 with a graph."""
        present = labels == PRESENT
        absent = is_known(labels) & ~present
        ranked = present.any(dim=1) & absent.any(dim=1)
        # With two ranks the sum over pairs is a product of sums. What stands for "not there" is finite: it must not
        # turn into NaN where an image has only one of the ranks.
        nothing = torch.finfo(logits.dtype).min / 4
        low = torch.where(present, -logits, nothing).logsumexp(dim=1)
        high = torch.where(absent, logits, nothing).logsumexp(dim=1)
        return torch.where(ranked, F.softplus(low + high), 0).sum() / ranked.sum().clamp(min=1)
