"""SADCL's loss: label features are contrasted with each other, and with a prototype of their label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cml_bench.labels import PRESENT, is_known
from cml_bench.losses.contrast import label_contrast, log_shares
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import check_option
from cml_bench.losses.projected import ProjectedContrast
from cml_bench.models.heads.head import HeadOutput

__all__ = ["SADCL"]


class SADCL(ProjectedContrast):
    """Add two contrasts of label features to another criterion: ``base + weight * (L_samples + pull * L_prototypes)``.

    ``L_samples`` is ``label_contrast``: partners are features of the same label in other images, among all present
    (image, label) features but the anchor itself. ``L_prototypes`` asks of each label which images its prototype, one
    learned vector a label, is near to: ``-1/N sum_c log( sum_{i: c present} e^s_ic / sum_{i: c known} e^s_ic )`` with
    s the cosine over the temperature and N the number of present entries; images that nobody annotated for c are left
    out. Features and prototypes go through the same projector.

    Source: Ma et al. 2023, arXiv 2307.09715; ``yu-gi-oh-leilei/SADCL``. The first contrast is the formula, not the
    release, which multiplies the log-denominator by a count and subtracts different maxima above and below. The second
    is as released; in it an unlabelled image counts as known. Inferred: both weights. Departures: prototypes start at
    random, not from class means of a finished Query2Label model; there is no bank of features of earlier batches.

    Args:
        base: The criterion beside the contrasts.
        weight: Weight of both contrasts, >= 0.
        pull: Weight of the second relative to the first, >= 0.
        temperature: What cosines are divided by, > 0.
        projection: Dimension that features are projected to; None for half the label features' (published: 1024 of
            2048).

    Raises:
        CmlBenchError: If an option is out of range.
    """

    meta = CriterionMeta(name="sadcl", title="SADCL", reference="arXiv:2307.09715", reads="label_features")

    def __init__(
        self,
        base: str | Criterion = "asl gamma_neg=0",
        weight: float = 1.0,
        pull: float = 1.0,
        temperature: float = 0.2,
        projection: int | None = None,
    ) -> None:
        super().__init__(base, weight, temperature, projection)
        check_option("sadcl", "pull", pull, pull >= 0, "0 or more")
        self.pull = pull
        self.prototypes = nn.ParameterList()

    def contrasted(self, output: HeadOutput) -> Tensor:
        """Return the label features."""
        assert output.label_features is not None
        return output.label_features

    def fit(self, output: HeadOutput) -> None:
        """Add the projector, and one block of prototypes (n, d) for labels that have none."""
        super().fit(output)
        features = self.contrasted(output)
        n, width = features.shape[1:]
        missing = n - sum(len(block) for block in self.prototypes)
        if missing > 0:
            self.prototypes.append(nn.Parameter(torch.randn(missing, width).to(features) * width**-0.5))

    def judge(
        self, output: HeadOutput, labels: Tensor, sample_ids: Tensor | None, epoch: int, view: HeadOutput | None
    ) -> Tensor:
        """Return both contrasts, the second weighted."""
        features = self.projected(output)
        assert self.projector is not None
        prototypes = self.projector(torch.cat(list(self.prototypes))[: labels.shape[1]])
        samples = label_contrast(features, labels, self.temperature)
        return samples + self.pull * prototype_contrast(features, prototypes, labels, self.temperature)


def prototype_contrast(features: Tensor, prototypes: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return how little of each prototype's similarity falls on images with its label.

    Args:
        features: (B, n, d) unit vectors.
        prototypes: (n, d) unit vectors.
        labels: (B, n) four-state labels.
        temperature: What similarities are divided by.

    Returns:
        A scalar with a graph; 0 without a present label.
    """
    present = labels == PRESENT
    scores = torch.einsum("bnd,nd->bn", features, prototypes) / temperature
    shares = log_shares(scores, is_known(labels), dim=0)
    # The lowest number: a label that is nowhere present has no logarithm of a share.
    lowest = torch.finfo(scores.dtype).min
    near = shares.masked_fill(~present, lowest).logsumexp(dim=0)
    return -torch.where(present.any(dim=0), near, 0).sum() / present.sum().clamp(min=1)
