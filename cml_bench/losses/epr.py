"""EPR: marked labels, and the number of labels that one expects in an image."""

from __future__ import annotations

from torch import Tensor

from cml_bench.labels import is_known
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import binary_costs, judged_entries, reduced
from cml_bench.losses.expected_positives import check_count, count_penalty

__all__ = ["EPR"]


class EPR(Criterion):
    """Expected positive regularisation: known labels as in BCE, and the batch's mean number of positives drawn to k.

    An open label costs nothing by itself. The costs of known labels are summed and divided by the number of labels
    asked for, known or not; to this comes ``((mean_b sum_c p_bc - k) / C)^2`` over the same labels.

    Source: Cole et al. 2021, arXiv 2106.09708. Their k is the mean number of labels in a fully annotated
    image: 1.5 (VOC), 2.9 (COCO), 1.9 (NUS-WIDE), 31.4 (CUB), for all labels together.

    Args:
        k: Expected number of positives among the labels that are asked for of an image. In a stream these are the
            labels of one experience, so that k is smaller than over all labels. The default counts what is marked,
            batch by batch, and looks at nothing else: exact where all is annotated, else a lower bound (1 under
            single positives).

    Raises:
        CmlBenchError: If k is not positive.
    """

    meta = CriterionMeta(name="epr", title="EPR", reference="arXiv:2106.09708", open=True)

    def __init__(self, k: float | None = None) -> None:
        super().__init__()
        check_count("epr", k)
        self.k = k

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch, or 0 with a graph if nothing was asked for."""
        judged = judged_entries(labels, self.spare)
        known = reduced(binary_costs(logits, labels) * is_known(labels), judged)
        return known + count_penalty(logits.sigmoid(), labels, judged, self.k)
