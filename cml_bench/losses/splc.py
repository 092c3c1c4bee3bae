"""SPLC: labels that nobody marked become present where the model is sure of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cml_bench.labels import PRESENT
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import (
    Reduction,
    check_option,
    check_reduction,
    found_present,
    judged_entries,
    reduced,
)
from cml_bench.models.heads.head import HeadOutput

__all__ = ["SPLC"]


class SPLC(Criterion):
    """Self-paced loss correction with the focal margin loss, over the labels asked for.

    From the second epoch of an experience on, an open label whose probability is over ``tau`` counts as present. With
    ``q = sigmoid(z - margin)`` where a label is marked present, else ``q = sigmoid(z)``, a label that is present by
    now costs ``-(1 - q)^gamma log q``, and any other ``-q^gamma log(1 - q)``. Open labels below ``tau`` thus count as
    absent; what is verified to be absent stays so (the paper's annotations hold nothing of the kind). Put on
    ``assume_negative``, nothing is open and nothing corrected.

    Source: Zhang et al. 2021, arXiv 2112.07368, and the authors' code: ``tau`` 0.6 there, 0.7 (the default) in the
    paper of CLML, whose code takes over the rest. They sum over images and labels (``reduction="sum"``).

    Args:
        tau: Probability over which an open label is present, in [0, 1].
        change_epoch: First epoch of an experience, from 0, in which labels are corrected.
        margin: Taken from the logit of a label marked present.
        gamma: Focusing exponent, >= 0.
        reduction: ``"mean"`` over the labels asked for, or ``"sum"`` over them.

    Raises:
        CmlBenchError: If an option is out of range.
    """

    meta = CriterionMeta(name="splc", title="SPLC", reference="arXiv:2112.07368", reads="output", open=True)

    def __init__(
        self,
        tau: float = 0.7,
        change_epoch: int = 1,
        margin: float = 1.0,
        gamma: float = 2.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_option("splc", "tau", tau, 0 <= tau <= 1, "from 0 to 1")
        check_option("splc", "gamma", gamma, gamma >= 0, "0 or more")
        check_reduction("splc", reduction)
        self.tau = tau
        self.change_epoch = change_epoch
        self.margin = margin
        self.gamma = gamma
        self.reduction = reduction

    def judge(
        self, output: HeadOutput, labels: Tensor, sample_ids: Tensor | None, epoch: int, view: HeadOutput | None
    ) -> Tensor:
        """Return the mean (or sum) over the labels asked for, or 0 with a graph."""
        logits = output.logits
        believed = found_present(logits, labels, self.tau, self.spare) if epoch >= self.change_epoch else labels
        shifted = torch.where(labels == PRESENT, logits - self.margin, logits)
        # The log-odds of being wrong.
        wrong = torch.where(believed == PRESENT, -shifted, shifted)
        # The lower bound keeps the gradient of a power below 1 finite where a label is got right.
        costs = -(wrong.sigmoid().clamp(min=1e-8) ** self.gamma) * F.logsigmoid(-wrong)
        return reduced(costs, judged_entries(labels, self.spare), self.reduction)
