"""Hill loss: a label that nobody marked is absent, unless the model strongly thinks otherwise."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cml_bench.labels import PRESENT
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import Reduction, check_option, check_reduction, judged_entries, reduced

__all__ = ["Hill"]


class Hill(Criterion):
    """Hill loss over the labels asked for: robust to positives that were overlooked.

    A present label costs ``-(1 - q)^gamma log q`` with ``q = sigmoid(z - margin)``. Every other label that was asked
    for costs ``(height - p) p^2``, whose slope falls back to 0 as p goes to 1 (at the default height): what looks like
    an overlooked positive is not pushed down. Open and absent labels are alike in this, as in the paper, whose
    annotations do not tell them apart.

    Source: Zhang et al. 2021, arXiv 2112.07368, and the authors' code. They sum over images and labels
    (``reduction="sum"``), and their learning rates belong to that; the default is the mean, on the scale of BCE.

    Args:
        height: ``lambda`` of the paper, >= 1; 1.5 puts the top of the hill at p = 1.
        margin: Taken from the logit of a present label.
        gamma: Focusing exponent of present labels, >= 0.
        reduction: ``"mean"`` over the labels asked for, or ``"sum"`` over them.

    Raises:
        CmlBenchError: If an option is out of range.
    """

    meta = CriterionMeta(name="hill", title="Hill", reference="arXiv:2112.07368", open=True)

    def __init__(
        self, height: float = 1.5, margin: float = 1.0, gamma: float = 2.0, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        check_option("hill", "height", height, height >= 1, "at least 1")
        check_option("hill", "gamma", gamma, gamma >= 0, "0 or more")
        check_reduction("hill", reduction)
        self.height = height
        self.margin = margin
        self.gamma = gamma
        self.reduction = reduction

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean (or sum) over the labels asked for, or 0 with a graph."""
        shifted, p = logits - self.margin, logits.sigmoid()
        # The lower bound keeps the gradient of a power below 1 finite where a label is got right.
        missed = (-shifted).sigmoid().clamp(min=1e-8)
        present = -(missed**self.gamma) * F.logsigmoid(shifted)
        costs = torch.where(labels == PRESENT, present, (self.height - p) * p**2)
        return reduced(costs, judged_entries(labels, self.spare), self.reduction)
