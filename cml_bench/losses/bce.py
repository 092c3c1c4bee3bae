"""Binary cross-entropy over the known entries: the default criterion."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from cml_bench.labels import is_known
from cml_bench.losses.criterion import Criterion, CriterionMeta


class BCE(Criterion):
    """Mean binary cross-entropy over the known entries of a batch.

    The scale depends neither on the number of labels nor on how many of them are unknown. Without a known entry the
    loss is 0 and so is its gradient.
    """

    meta = CriterionMeta(name="bce", title="BCE")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over known entries, or 0 with a graph."""
        # Weights of 0, not a gathered subset: shapes stay fixed, a GPU need not wait for a count, and whatever target
        # an unknown entry has is without effect.
        weights = is_known(labels).to(logits.dtype)
        total = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), weights, reduction="sum")
        return total / weights.sum().clamp(min=1)
