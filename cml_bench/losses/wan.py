"""WAN: what nobody marked is absent, with the weight that one marked label has."""

from __future__ import annotations

import torch
from torch import Tensor

from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import binary_costs, judged_entries, open_entries, reduced

__all__ = ["WAN"]


class WAN(Criterion):
    """Weak assume negative: as AN, but an open label weighs ``1 / (C - 1)``, with C the labels asked for of its image.

    The open labels of an image with one positive then weigh as much together as that positive. Labels that are verified
    to be absent, which the paper does not have, keep the weight 1; C - 1 counts as 1 at least.

    Source: Cole et al. 2021, arXiv 2106.09708.
    """

    meta = CriterionMeta(name="wan", title="WAN", reference="arXiv:2106.09708", open=True)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the labels asked for, or 0 with a graph."""
        judged = judged_entries(labels, self.spare)
        others = (judged.sum(dim=1, keepdim=True) - 1).clamp(min=1)
        costs = binary_costs(logits, labels)
        return reduced(torch.where(open_entries(labels, self.spare), costs / others, costs), judged)
