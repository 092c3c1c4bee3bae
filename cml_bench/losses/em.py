"""EM: of what nobody marked, the model is to be as unsure as it can."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import binary_costs, check_option, judged_entries, open_entries, reduced

__all__ = ["EM"]


class EM(Criterion):
    """Entropy maximisation: known labels as in BCE, an open label costs minus ``alpha`` times its entropy.

    Its gradient in the logit is ``alpha z p (1 - p)``: little where the model is sure, none where it is torn. The loss
    can be negative. The mean is over the labels asked for.

    Source: Zhou et al. 2022, arXiv 2203.16219 ("Acknowledging the Unknown"). Their alpha: 0.1 for COCO (the
    default) and NUS-WIDE, 0.2 for VOC, 0.01 for CUB.

    Args:
        alpha: Weight of the entropy, >= 0.

    Raises:
        CmlBenchError: If alpha is negative.
    """

    meta = CriterionMeta(name="em", title="EM", reference="arXiv:2203.16219", open=True)

    def __init__(self, alpha: float = 0.1) -> None:
        super().__init__()
        check_option("em", "alpha", alpha, alpha >= 0, "0 or more")
        self.alpha = alpha

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the labels asked for, or 0 with a graph."""
        costs = torch.where(
            open_entries(labels, self.spare), -self.alpha * entropies(logits), binary_costs(logits, labels)
        )
        return reduced(costs, judged_entries(labels, self.spare))


def entropies(logits: Tensor) -> Tensor:
    """Return the entropies, in nats, of Bernoulli distributions with the logits of any shape."""
    return F.softplus(logits) - logits * logits.sigmoid()
