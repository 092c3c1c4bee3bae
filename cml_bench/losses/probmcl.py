"""ProbMCL: an encoder learns from Gaussian mixtures that are to overlap as labels do, then a classifier from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError
from cml_bench.labels import OUT_OF_SCOPE
from cml_bench.losses.auxiliary import Auxiliary
from cml_bench.losses.contrast import common_counts, contrast, jaccard, others
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import check_option
from cml_bench.losses.mixture import Components, GrowingRows, log_density, similarity
from cml_bench.models.heads.head import Head, HeadOutput

if TYPE_CHECKING:
    from cml_bench.models.model import MultiLabelModel
    from cml_bench.streams.dataset import MultiLabelDataset

__all__ = ["ProbMCL"]


class ProbMCL(Auxiliary):
    """Train in two phases: first the encoder with ``NLL + weight * PCL``, then the head alone with another criterion.

    Phase a: a mixture-density net reads ``p(z|x) = sum_k pi_k N(mu_k 1, var_k I)`` from the pooled feature, one
    component a label. ``NLL = -mean log p(z|x)`` with z the feature itself. ``PCL = mean_i -1/|A(i)| sum_{j in A(i)}
    log( e^(Sim(p_i, p_j)/tau) / sum_{k != i} e^(Sim(p_i, p_k)/tau) )`` over both views, with ``A(i) = {j: D(y_i, y_j)
    >= alpha}``. D looks at the labels known of both images; pairs without such a label are neither partners nor in the
    denominator. Phase b: everything but the head is frozen (batch statistics too) and the head learns from the base.
    The mixture-density net stays for the next experience, where it grows and phase a starts again.

    Source: arXiv 2401.01448, in a third party's summary; no code is released. Inferred: D is the Jaccard index, Sim the
    normalised integral of the product of two mixtures, all default values, that z is the pooled feature, that NLL
    trains the net and ends at the feature, the form of the components and their layers (those that the same authors
    released for KMCL), and the share of the epochs. NLL ends there because an encoder that it reached would make all
    features alike: trained on all digits at once for 12 epochs, mAP 25 (that of chance) with its gradient, 60 without.
    Memory: see ``mixture.similarity``.

    Args:
        base: The criterion of phase b.
        weight: Weight lambda of PCL beside NLL, >= 0.
        alpha: Overlap of label sets that makes two images partners, in (0, 1]; 1 asks for equal sets.
        temperature: What similarities are divided by, > 0.
        encoder_share: Share of an experience's epochs that is phase a; each phase gets at least one epoch.

    Raises:
        CmlBenchError: If an option is out of range.
    """

    meta = CriterionMeta(name="probmcl", title="ProbMCL", reference="arXiv:2401.01448", reads="output", views=2)

    def __init__(
        self,
        base: str | Criterion = "asl",
        weight: float = 0.3,
        alpha: float = 0.5,
        temperature: float = 0.2,
        encoder_share: float = 0.5,
    ) -> None:
        super().__init__(base, weight)
        check_option("probmcl", "alpha", alpha, 0 < alpha <= 1, "above 0 and at most 1")
        check_option("probmcl", "temperature", temperature, temperature > 0, "positive")
        check_option("probmcl", "encoder_share", encoder_share, 0 < encoder_share < 1, "above 0 and below 1")
        self.alpha = alpha
        self.temperature = temperature
        self.encoder_share = encoder_share
        self.components = Components()
        self.weight_rows = GrowingRows(nn.init.xavier_uniform_)
        self.classifying = False
        self._frozen: list[nn.Parameter] = []
        self._silenced: list[nn.Module] = []

    def fit(self, output: HeadOutput) -> None:
        """Add rows of the mixture-density net for labels that have none."""
        for rows in (self.components, self.weight_rows):
            rows.reach(output.logits.shape[1], output.pooled)

    def check_epochs(self, epochs: int) -> None:
        """Refuse experiences without an epoch for each phase."""
        if epochs < 2:
            raise CmlBenchError(
                f"loss=probmcl trains in two phases, but experiences have epochs={epochs}: set epochs=2"
            )
        super().check_epochs(epochs)

    def start_epoch(self, model: MultiLabelModel, dataset: MultiLabelDataset, epoch: int, epochs: int) -> None:
        """Enter phase b once its turn has come."""
        super().start_epoch(model, dataset, epoch, epochs)
        self.classifying = epoch >= min(max(1, round(self.encoder_share * epochs)), epochs - 1)
        if self.classifying:
            self._freeze(model)

    def _freeze(self, model: MultiLabelModel) -> None:
        """Keep everything but the heads as it is: the model's own, and those of a wrapper."""
        heads = [module for module in model.modules() if isinstance(module, Head)]
        # A wrapper says in training what its heads learn from.
        classifying = {module for head in heads for module in head.modules()} | {model, model.wrapper}
        for module in model.modules():
            if module.training and module not in classifying:
                module.training = False
                self._silenced.append(module)
        kept = {id(parameter) for head in heads for parameter in head.parameters()}
        for parameter in model.parameters():
            if parameter.requires_grad and id(parameter) not in kept:
                parameter.requires_grad_(False)
                self._frozen.append(parameter)

    def end_experience(self, model: MultiLabelModel) -> None:
        """Let the encoder learn again."""
        super().end_experience(model)
        self.classifying = False
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        for module in self._silenced:
            module.training = True
        self._frozen, self._silenced = [], []

    def forward(
        self,
        output: HeadOutput | Tensor,
        labels: Tensor,
        sample_ids: Tensor | None = None,
        epoch: int = 0,
        view: HeadOutput | None = None,
    ) -> Tensor:
        """Return the loss of the phase; arguments as in ``Criterion.forward``."""
        phase = self.base_loss if self.classifying else self.term
        return phase(output, labels, sample_ids, epoch, view)

    def judge(
        self, output: HeadOutput, labels: Tensor, sample_ids: Tensor | None, epoch: int, view: HeadOutput | None
    ) -> Tensor:
        """Return the loss of phase a."""
        self.fit(output)
        features = torch.cat([output.pooled, view.pooled]) if view else output.pooled
        labels = labels.repeat(2, 1) if view else labels
        alike = similarity(*self.mixture(features), features.shape[1])
        return self.unlikelihood(features.detach(), labels) + self.weight * self.overlap_contrast(alike, labels)

    def mixture(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log pi, means and variances, (B, n) each, that the net reads from (B, D) features."""
        return self.weight_rows(features).log_softmax(dim=1), *self.components(features)

    def unlikelihood(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return NLL of the (B, D) features of images of which a label was asked for, or 0 with a graph."""
        log_weights, means, variances = self.mixture(features)
        likely = (log_weights + log_density(features, means, variances)).logsumexp(dim=1)
        asked = (labels > OUT_OF_SCOPE).any(dim=1)
        return -torch.where(asked, likely, 0).sum() / asked.sum().clamp(min=1)

    def overlap_contrast(self, alike: Tensor, labels: Tensor) -> Tensor:
        """Return PCL of (B, B) similarities under (B, n) four-state labels."""
        among = others(len(labels), labels.device) & (common_counts(labels)[0] > 0)
        positives = among & (jaccard(labels) >= self.alpha)
        return contrast(alike / self.temperature, positives, among).mean()
