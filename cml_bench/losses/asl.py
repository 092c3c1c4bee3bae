"""Asymmetric loss: easy negatives count for little, and very easy ones for nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cml_bench.labels import PRESENT, is_known
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import Reduction, check_option, check_reduction, reduced


class ASL(Criterion):
    """Asymmetric loss over the known entries.

    With ``p = sigmoid(z)`` and ``q = min(1, 1 - p + clip)`` a present label costs ``-(1 - p)^gamma_pos log p`` and an
    absent one ``-(1 - q)^gamma_neg log q``.

    Source: Ridnik et al. 2021, arXiv 2009.14119, equations 4 to 7, with the focusing factors of the authors' code.

    The learning rates published with this loss (4e-5 and the like) belong to ``reduction="sum"``, the sum over images
    and labels. The default is the mean over known entries: it has the scale of BCE for every number of labels, so one
    learning rate serves the first and the last experience. ``sum`` equals ``mean`` times the number of known entries.

    Args:
        gamma_neg: Focusing exponent of absent labels, >= 0.
        gamma_pos: Focusing exponent of present labels, >= 0.
        clip: Probability below which an absent label costs nothing, in [0, 1).
        detach_focal: Whether the focusing factors are constants to the gradient, as in the authors' default.
        reduction: ``"mean"`` over known entries, or ``"sum"`` over them.

    Raises:
        CmlBenchError: If an option is out of range.
    """

    meta = CriterionMeta(name="asl", title="ASL", reference="arXiv:2009.14119")

    def __init__(
        self,
        gamma_neg: float = 4.0,
        gamma_pos: float = 0.0,
        clip: float = 0.05,
        detach_focal: bool = True,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        for name, gamma in (("gamma_neg", gamma_neg), ("gamma_pos", gamma_pos)):
            check_option("asl", name, gamma, gamma >= 0, "0 or more")
        check_option("asl", "clip", clip, 0 <= clip < 1, "at least 0 and below 1")
        check_reduction("asl", reduction)
        self.gamma_neg = gamma_neg
        self.gamma_pos = gamma_pos
        self.clip = clip
        self.detach_focal = detach_focal
        self.reduction = reduction

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean (or sum) over known entries, or 0 with a graph."""
        present = labels == PRESENT
        absent_probability = (-logits).sigmoid()
        if self.clip > 0:
            q = (absent_probability + self.clip).clamp(max=1)
            log_q = q.log()
        else:
            q, log_q = absent_probability, F.logsigmoid(-logits)
        # The lower bound keeps the gradient of a power below 1 finite where a label is got right or clipped.
        present_miss, absent_miss = absent_probability.clamp(min=1e-8), (1 - q).clamp(min=1e-8)
        if self.detach_focal:
            present_miss, absent_miss = present_miss.detach(), absent_miss.detach()
        focal = torch.where(present, present_miss**self.gamma_pos, absent_miss**self.gamma_neg)
        costs = -focal * torch.where(present, F.logsigmoid(logits), log_q)
        return reduced(costs, is_known(labels), self.reduction)
