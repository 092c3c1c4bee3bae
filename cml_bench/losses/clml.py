"""CLML: images of one label lie in a small subspace, and those of all labels in a large one."""

from __future__ import annotations

from torch import Tensor

from cml_bench.labels import PRESENT
from cml_bench.losses.auxiliary import Auxiliary
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import Reduction, check_option, check_reduction, found_present, judged_entries
from cml_bench.losses.nuclear import nuclear_norms
from cml_bench.models.heads.head import HeadOutput

__all__ = ["CLML"]


class CLML(Auxiliary):
    """Adds to another criterion a loss on the pooled features: low rank within each label, high rank over all.

    With X the (B, D) pooled features of the batch's images that have a positive, and ``X_c`` its rows in which label c
    is present, it is ``(1 / B) (sum_c max(least, |X_c|_*) - |X|_*)`` over the labels c that are present anywhere, in
    nuclear norms. It is never negative, and 0 where every image has one label and the images of different labels are
    orthogonal. From the second epoch of an experience on, an open label whose probability is over ``tau`` counts as
    present in this; the base criterion judges the labels as they are, and corrects them by its own rules if it has any.
    Features that are not trained (a frozen backbone) get no gradient, so there it changes nothing.

    Source: Ma et al. 2022, arXiv 2209.01314, and the authors' code. What is different here:

    * Images without a positive among the labels asked for are left out of X and of B. The paper has none; they would
      make the loss negative.
    * What is verified to be absent is never corrected; the paper's annotations hold nothing of the kind.
    * The code takes a margin from the logits of marked positives first. These are present anyway, so it has no effect.
    * The code multiplies ``|X|_*`` by the weight once more, and its backward pass ignores the factor of what follows.
    * The authors add it to a sum over images and labels (``reduction="sum"``, with a base that sums). On the default
      scale both are divided by the number of labels asked for in the batch, so their proportion is the same.

    Args:
        base: The criterion that it is added to: a name, with options if need be (``"splc reduction=sum"``), or a
            criterion object; the authors' default, SPLC, or their BCE or focal loss, or Hill.
        weight: Factor ``lambda``, >= 0.
        tau: Probability over which an open label is present, in [0, 1]: 0.7 in the class of the authors, 0.75 in
            their script.
        change_epoch: First epoch of an experience, from 0, in which labels are corrected.
        least: Norm of a label's features below which they are not contracted further (``Delta``), >= 0.
        reduction: ``"mean"`` to divide by the number of labels asked for, ``"sum"`` not to.

    Raises:
        CmlBenchError: If the base or an option is unknown or out of range.
    """

    meta = CriterionMeta(name="clml", title="CLML", reference="arXiv:2209.01314", reads="output")

    def __init__(
        self,
        base: str | Criterion = "splc",
        weight: float = 1.0,
        tau: float = 0.7,
        change_epoch: int = 1,
        least: float = 1.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(base, weight)
        check_option("clml", "tau", tau, 0 <= tau <= 1, "from 0 to 1")
        check_option("clml", "least", least, least >= 0, "0 or more")
        check_reduction("clml", reduction)
        self.tau = tau
        self.change_epoch = change_epoch
        self.least = least
        self.reduction = reduction

    def judge(
        self, output: HeadOutput, labels: Tensor, sample_ids: Tensor | None, epoch: int, view: HeadOutput | None
    ) -> Tensor:
        """Return the loss on the features, without weight."""
        believed = labels
        if epoch >= self.change_epoch:
            believed = found_present(output.logits, labels, self.tau, self.spare)
        loss = self.structure(output.pooled, believed == PRESENT)
        return loss / judged_entries(labels, self.spare).sum().clamp(min=1) if self.reduction == "mean" else loss

    def structure(self, features: Tensor, present: Tensor) -> Tensor:
        """Return the loss on (B, D) features of images whose (B, n) labels are present or not; 0 if none is."""
        labelled, occurs = present.any(dim=1), present.any(dim=0)
        norms, contract = nuclear_norms(features, present.mT, self.least)
        _, expand = nuclear_norms(features, labelled[None])
        still = self.least * (occurs & (norms <= self.least)).sum()
        # 0 is the least possible value, so what rounding leaves below it has no gradient either.
        total = (((contract - expand) * features).sum() + still).clamp(min=0)
        return total / labelled.sum().clamp(min=1)
