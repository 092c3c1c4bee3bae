"""Recalling old labels where the old model is as confident as it was of annotated positives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.special import entr

from cml_bench.labels import PRESENT
from cml_bench.models.reading import read_logits
from cml_bench.training.chunks import Chunks
from cml_bench.training.pseudo_labels import Filled, PseudoLabelPlugin, fill


class Recall:
    """For each label, how confident a model is of its annotated positives, and how uncertain.

    Source: KBK ("Knowing Beyond the Known"), uncertainty-aware recall: label j of an image with the probability p is
    present if ``p >= eps_j``, the mean probability of j's annotated positives, and ``h(p) <= tau_j``, their mean binary
    entropy. Without the second condition it is the rule of HCP (arXiv 2503.17017) as KBK describes it (inferred).

    Attributes:
        confidence: (n,) eps; infinite, so that nothing is recalled, for a label without a positive so far.
        uncertainty: (n,) tau.
    """

    def __init__(self) -> None:
        self.confidence = torch.zeros(0)
        self.uncertainty = torch.zeros(0)

    def refresh(self, labels: Tensor, scores: Tensor) -> None:
        """Measure all labels that some image was annotated to show; the others stay as they are.

        Args:
            labels: (N, n) four-state labels.
            scores: (N, n) probabilities.
        """
        shown = labels == PRESENT
        count, missing = shown.sum(dim=0), labels.shape[1] - len(self.confidence)
        self.confidence = pad(self.confidence.to(scores), (0, missing), value=torch.inf)
        self.uncertainty = pad(self.uncertainty.to(scores), (0, missing))
        for name, values in (("confidence", scores), ("uncertainty", binary_entropy(scores))):
            mean = (values * shown).sum(dim=0) / count.clamp(min=1)
            setattr(self, name, torch.where(count > 0, mean, getattr(self, name)))

    def thresholds(self, scores: Tensor, *, by_entropy: bool) -> tuple[Tensor, Tensor]:
        """Return (B, m) scores and the (m,) thresholds that those of recalled labels exceed."""
        m = scores.shape[1]
        confidence, uncertainty = self.confidence[:m].to(scores), self.uncertainty[:m].to(scores)
        if by_entropy:
            scores = scores.masked_fill(binary_entropy(scores) > uncertainty, -torch.inf)
        # Reaching the mean is enough.
        return scores, torch.nextafter(confidence, torch.full_like(confidence, -torch.inf))


def binary_entropy(scores: Tensor) -> Tensor:
    """Return the entropy, in nats, of coins with the given probabilities."""
    entropy: Tensor = entr(scores) + entr(1 - scores)
    return entropy


class RecallPlugin(PseudoLabelPlugin):
    """Pseudo-labels by ``Recall``, measured after each experience on its images, without augmentation.

    Old images are gone, so a label is measured anew only where a later experience annotates it as present (inferred:
    KBK measures again after every experience and does not say on what).

    Args:
        by_entropy: Whether uncertainty counts, too.
        below: Probability under which an entry that is not recalled is absent.
    """

    def __init__(self, by_entropy: bool, below: float) -> None:
        super().__init__(1.0, below)
        self.by_entropy = by_entropy
        self.recall = Recall()
        self.chunks = Chunks()

    def fill(self, labels: Tensor, scores: Tensor) -> Filled:
        """Return (B, n) four-state labels completed by the (B, m) probabilities of the old labels."""
        return fill(labels, *self.recall.thresholds(scores, by_entropy=self.by_entropy), self.below)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Copy the model, and measure it on the experience."""
        super().after_training_exp(strategy, **kwargs)
        whole = self.chunks.add(strategy.experience)
        if whole is not None:
            logits = read_logits(strategy.model, whole, strategy.eval_mb_size, strategy.device)
            self.recall.refresh(whole.labels.data.to(logits.device), logits.sigmoid())
