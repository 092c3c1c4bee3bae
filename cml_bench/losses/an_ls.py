"""AN-LS: what nobody marked is absent, and every target is smoothed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cml_bench.labels import PRESENT
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import check_option, judged_entries, reduced

__all__ = ["ANLS"]


class ANLS(Criterion):
    """Assume negative with label smoothing: targets are ``1 - smoothing`` and ``smoothing``, in place of 1 and 0.

    Source: Cole et al. 2021, arXiv 2106.09708. Labels that are verified to be absent, which the paper does
    not have, are smoothed as well.

    Args:
        smoothing: Target of what is absent, from 0 to 0.5.

    Raises:
        CmlBenchError: If the smoothing is out of range.
    """

    meta = CriterionMeta(name="an_ls", title="AN-LS", reference="arXiv:2106.09708", open=True)

    def __init__(self, smoothing: float = 0.1) -> None:
        super().__init__()
        check_option("an_ls", "smoothing", smoothing, 0 <= smoothing <= 0.5, "from 0 to 0.5")
        self.smoothing = smoothing

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the labels asked for, or 0 with a graph."""
        targets = torch.full_like(logits, self.smoothing).masked_fill(labels == PRESENT, 1 - self.smoothing)
        costs = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return reduced(costs, judged_entries(labels, self.spare))
