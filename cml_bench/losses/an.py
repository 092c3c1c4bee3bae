"""AN: what nobody marked is absent; the baseline of single positive labels."""

from __future__ import annotations

from torch import Tensor

from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import binary_costs, judged_entries, reduced

__all__ = ["AN"]


class AN(Criterion):
    """Binary cross-entropy with open labels as absent: the mean over the labels asked for.

    The literature's baseline under the name that its tables use; fully annotated it is BCE. ``assume_negative`` says
    the same of open labels to any other criterion, and can say it of labels that nobody was asked for.
    The literature's IU, which ignores open labels, is ``bce`` (a mean over the known labels alone).

    Source: Cole et al. 2021, arXiv 2106.09708.
    """

    meta = CriterionMeta(name="an", title="AN", reference="arXiv:2106.09708")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the labels asked for, or 0 with a graph."""
        return reduced(binary_costs(logits, labels), judged_entries(labels, self.spare))
