"""Similarity-Dissimilarity loss: images that share a label attract each other, by how much their label sets agree."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from cml_bench.losses.contrast import common_counts, contrast, others
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import check_option
from cml_bench.losses.projected import ProjectedContrast
from cml_bench.models.heads.head import HeadOutput

__all__ = ["SimilarityDissimilarity"]

Partners = Literal["graded", "any", "all"]


class SimilarityDissimilarity(ProjectedContrast):
    """Add a weighted supervised contrast of image features to another criterion: ``base + weight * L``.

    With S the labels of the anchor and T those of another image, images that share a label are partners, weighted by
    ``K_s K_d = |S n T| / |S| * 1 / (1 + |T - S|)`` outside the logarithm: 1 for equal sets, and not symmetric. The
    denominator holds all other images. Sets are compared over the labels that are known of both images; pairs without
    such a label have no part in it, since images of different experiences are not known to differ. Anchors are images
    with a present label, in both views where images are augmented.

    Source: arXiv 2410.13439, in a third party's summary. Inferred: that the weight stands outside the logarithm, that
    features are projected as in SupCon (arXiv 2004.11362), that the contrast is trained with the classifier instead of
    before it, and its weight.

    Args:
        base: The criterion that judges the logits.
        weight: Weight of the contrast, >= 0.
        temperature: What cosines are divided by, > 0.
        projection: Dimension that pooled features are projected to.
        partners: ``graded`` as above; ``any`` for weight 1 wherever a label is shared, ``all`` for partners of equal
            label sets alone (the paper's baselines ANY and ALL).

    Raises:
        CmlBenchError: If an option is out of range.
    """

    meta = CriterionMeta(
        name="similarity_dissimilarity",
        title="Similarity-Dissimilarity",
        reference="arXiv:2410.13439",
        reads="output",
        views=2,
    )

    def __init__(
        self,
        base: str | Criterion = "bce",
        weight: float = 0.5,
        temperature: float = 0.07,
        projection: int = 128,
        partners: Partners = "graded",
    ) -> None:
        super().__init__(base, weight, temperature, projection)
        known = partners in get_args(Partners)
        check_option(self.meta.name, "partners", partners, known, "'graded', 'any' or 'all'")
        self.partners = partners

    def contrasted(self, output: HeadOutput) -> Tensor:
        """Return the pooled features."""
        return output.pooled

    def judge(
        self, output: HeadOutput, labels: Tensor, sample_ids: Tensor | None, epoch: int, view: HeadOutput | None
    ) -> Tensor:
        """Return the mean over anchors of the weighted contrast, or 0 with a graph."""
        features = self.projected(output, view)
        labels = labels.repeat(len(features) // len(labels), 1)
        common, shared, first, second = common_counts(labels)
        among = others(len(features), features.device) & (common > 0)
        weights = agreement(shared, first, second) if self.partners == "graded" else None
        same = (shared == first) & (shared == second) if self.partners == "all" else shared > 0
        losses = contrast(features @ features.T / self.temperature, among & (shared > 0) & same, among, weights)
        return losses.sum() / (first.diagonal() > 0).sum().clamp(min=1)


def agreement(shared: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return ``|S n T| / |S| * 1 / (1 + |T - S|)`` of the numbers of labels in both sets, in S and in T."""
    return shared / first.clamp(min=1) / (1 + second - shared)
