"""AGCN: a graph of labels that grows with them, old links estimated from the old model's scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from avalanche.core import SupervisedPlugin
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn.functional import mse_loss

from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, is_known
from cml_bench.models.heads.agcn import AGCNHead
from cml_bench.models.heads.head import HeadOutput
from cml_bench.streams.timeline import begins_experience
from cml_bench.training.context import RunContext
from cml_bench.training.option_types import Probability
from cml_bench.training.strategy import Strategy, StrategyMeta
from cml_bench.training.teacher import TeacherPlugin

from .lwf import sigmoid_distillation

__all__ = ["AGCN"]

_SCALE = 0.25


@dataclass(frozen=True)
class AGCN(Strategy):
    """Learn label classifiers on a graph of how labels occur together; distil old scores and the old labels' nodes.

    The loss is ``L + distillation_weight mean KL(sigmoid(t) || sigmoid(z)) + graph_weight mean (H - G)^2``, with L the
    criterion's, z and t the old labels' logits by the new and the old model, H and G their nodes. Every batch updates
    the augmented correlation matrix, in which label i is linked to j where ``P_ij >= link`` (``cross_link`` between old
    and new): ``P_ij = N_ij / N_j`` among new labels, ``S_ij / N_j`` for an old i, ``S_ji / S_j / 2`` for an old j, N
    being counts and S sums of the old model's scores over images that show the new label. Old links stay as they were.

    Source: Du et al. 2022, arXiv 2203.05534, and its released code, which leaves the weights of the losses undefined:
    here classification weighs 1, and so do the others by default (inferred).

    Departures: the first experience treats its links like later ones (there the released code takes the threshold 0, so
    that every pair is linked, the scale 0.28 and the power -0.8); an image counts for a pair only where the new label
    is annotated, or, if no image is marked not to show it, where it was asked for (of positives alone, every annotated
    image shows it); the classification loss is the method's criterion; distillation leaves annotated old labels to it.
    AGCN's published setting is one epoch on disjoint images. With a head other than ``agcn`` there is no graph, and
    this is distillation of scores alone.

    Attributes:
        distillation_weight: Weight of the distillation of old labels' scores.
        graph_weight: Weight of the mean squared distance of the old labels' nodes from what they were.
        scores: How the old model's logits count for old labels: ``softmax`` over them, as released, or each its
            ``sigmoid``.
        link: Conditional frequency from which on two new labels are linked.
        cross_link: The same between an old and a new label.
    """

    distillation_weight: NonNegativeFloat = 1.0
    graph_weight: NonNegativeFloat = 1.0
    scores: Literal["softmax", "sigmoid"] = "softmax"
    link: Probability = 0.4
    cross_link: Probability = 0.3

    meta = StrategyMeta(
        name="agcn", title="AGCN", family="graph", reference="arXiv:2203.05534", head="agcn", compares_logits=True
    )

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the AGCN plugin."""
        return [AGCNPlugin(self)]


class AGCNPlugin(TeacherPlugin):
    """Keeps the augmented correlation matrix up to date, and adds both distillation losses."""

    taught: HeadOutput

    def __init__(self, options: AGCN) -> None:
        super().__init__(answers=options.distillation_weight > 0)
        self.options = options
        self.counts = PairCounts()

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Begin to count anew with each experience."""
        super().before_training_exp(strategy, **kwargs)
        if begins_experience(strategy.experience):
            self.counts = PairCounts()

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Count the batch and rebuild the correlation matrix of the head."""
        labels, head = strategy.mb_y, strategy.model.head
        scores = torch.zeros(len(labels), 0, device=labels.device)
        if self.n_old:
            self.taught = self.teach(strategy.mb_x)
            logits = self.taught.logits
            scores = logits.softmax(dim=1) if self.options.scores == "softmax" else logits.sigmoid()
        if isinstance(head, AGCNHead):
            self.counts.add(labels[:, self.n_old :], scores)
            teacher = self.teacher.head if self.teacher else None
            old = teacher.correlation if isinstance(teacher, AGCNHead) else scores.new_empty(0, 0)
            head.correlate(self.counts.correlation(old, self.options.link, self.options.cross_link))

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the distillation of the scores and of the nodes."""
        if not self.n_old:
            return
        old, output = slice(self.n_old), strategy.head_output
        unknown = ~is_known(strategy.mb_y[:, old])
        distance = sigmoid_distillation(output.logits[:, old], self.taught.logits, unknown)
        strategy.loss += self.options.distillation_weight * distance
        if isinstance(strategy.model.head, AGCNHead):
            # The nodes are the same for every image.
            nodes, before = output.label_features[0, old], self.taught.label_features
            assert before is not None
            strategy.loss += self.options.graph_weight * mse_loss(nodes, before[0])

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Forget what the old model said of the batch: a checkpoint would hold it."""
        self.__dict__.pop("taught", None)


class PairCounts:
    """How often labels occurred together in an experience: counts of new ones, sums of scores of old ones."""

    def __init__(self) -> None:
        self.sums: list[Tensor] = []

    def add(self, new: Tensor, scores: Tensor) -> None:
        """Count a batch.

        Args:
            new: (B, n) four-state new labels.
            scores: (B, m) scores of the old ones.
        """
        present, scores = (new == PRESENT).double(), scores.double()
        batch = [present.T @ present, scores.T @ present, present.sum(dim=0), (new == ABSENT).sum(dim=0)]
        # The bases of pairs: images where the label that is asked about is annotated, or just asked for.
        for counted in (is_known(new).double(), (new > OUT_OF_SCOPE).double()):
            batch += [counted.T @ present, scores.T @ counted]
        self.sums = [total + part for total, part in zip(self.sums, batch, strict=True)] if self.sums else batch

    def frequencies(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return how often a label (row) goes with another (column): new-new (n, n), old-new (m, n), new-old (n, m).

        The last, by Bayes' rule, is halved as in the released code. A label that did not occur goes with none.
        """
        together, soft, count, absent, *bases = self.sums
        marked = absent > 0
        base = torch.where(marked[:, None], bases[0], bases[2])
        soft_base = torch.where(marked, bases[1], bases[3])
        among_new = together / base.clamp(min=1)
        return among_new.fill_diagonal_(0), soft / count.clamp(min=1), (soft / soft_base.clamp(min=1e-10)).T / 2

    def correlation(self, old: Tensor, link: float, cross_link: float) -> Tensor:
        """Return the (m + n, m + n) augmented correlation matrix, normalised.

        Args:
            old: (m, m) correlation of the old labels, which stays.
            link: Frequency from which on new labels are linked.
            cross_link: Frequency from which on an old and a new label are linked.
        """
        among_new, old_new, new_old = self.frequencies()
        nodes = _links(among_new, link) + torch.eye(len(among_new), dtype=among_new.dtype, device=among_new.device)
        root = nodes.sum(dim=1).rsqrt()
        nodes = (nodes * root).T * root
        top = torch.cat([old.to(nodes), _links(old_new, cross_link)], dim=1)
        return torch.cat([top, torch.cat([_links(new_old, cross_link), nodes], dim=1)])


def _links(frequencies: Tensor, threshold: float) -> Tensor:
    """Return links of those at the threshold or over it; each column shares the same weight among its links."""
    linked = (frequencies >= threshold).to(frequencies.dtype)
    return _SCALE * linked / (linked.sum(dim=0, keepdim=True) + 1e-6)
