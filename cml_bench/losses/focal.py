"""Focal loss: what is classified well already counts for little."""

from __future__ import annotations

from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from cml_bench.labels import PRESENT, is_known
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import Reduction, check_option, check_reduction, reduced

__all__ = ["Focal"]


class Focal(Criterion):
    """Focal loss over the known entries.

    A present label costs ``-alpha (1 - p)^gamma log p``, an absent one ``-(1 - alpha) p^gamma log(1 - p)``.

    Source: Lin et al. 2017, arXiv 1708.02002, as torchvision computes it; the defaults are theirs. The code of CLML
    leaves the weights out: ``alpha=-1``.

    Args:
        gamma: Focusing exponent, 0 or at least 1: in between the gradient has no bound where a label is got right.
        alpha: Weight of present labels, in [0, 1], or -1 for no weights.
        reduction: ``"mean"`` over known entries, or ``"sum"`` over them.

    Raises:
        CmlBenchError: If an option is out of range.
    """

    meta = CriterionMeta(name="focal", title="Focal", reference="arXiv:1708.02002")

    def __init__(self, gamma: float = 2.0, alpha: float = 0.25, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_option("focal", "gamma", gamma, gamma == 0 or gamma >= 1, "0 or at least 1")
        check_option("focal", "alpha", alpha, alpha == -1 or 0 <= alpha <= 1, "from 0 to 1, or -1 for no weights")
        check_reduction("focal", reduction)
        self.gamma = gamma
        self.alpha = alpha
        self.reduction = reduction

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean (or sum) over known entries, or 0 with a graph."""
        # An unknown state for a target would raise negative numbers to a power: a gradient that no mask takes back.
        targets = (labels == PRESENT).to(logits.dtype)
        costs = sigmoid_focal_loss(logits, targets, alpha=self.alpha, gamma=self.gamma)
        return reduced(costs, is_known(labels), self.reduction)
