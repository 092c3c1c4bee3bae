"""L3A: a ridge classifier in closed form, on labels that it completes itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.labels import PRESENT
from cml_bench.losses.bce import BCE
from cml_bench.models.evaluating import evaluating
from cml_bench.models.heads.head import Head, HeadMeta, HeadOutput
from cml_bench.models.layout import pool
from cml_bench.models.model import MultiLabelModel
from cml_bench.streams.loading import BatchLoader
from cml_bench.training.chunks import Chunks
from cml_bench.training.context import RunContext
from cml_bench.training.cross_validation import Penalty, generalised_cross_validation
from cml_bench.training.pseudo_labels import fill
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["L3A"]


@dataclass(frozen=True)
class L3A(Strategy):
    """Solve a weighted ridge regression of the labels on randomly expanded features, exactly, experience by experience.

    ``W = (sum_i omega_i psi_i psi_i^T + ridge I)^-1 sum_i omega_i psi_i y_i^T`` over all images so far, of which these
    two sums alone are stored, with ``psi = relu(R f)`` a random layer on the feature f. An image's omega_i is the mean
    of ``w_c = n m_c^-1/2 / sum_k m_k^-1/2`` over its labels, m_c of n labels' annotated positives at the time.

    Source: "L3A: Label-Augmented Analytic Adaptation", arXiv 2506.00816, and its released code. The backbone is trained
    on the first experience, with the method's head and criterion, and frozen; then the head gives way to R and W.
    Unknown old labels of new images are present where the classifier scores them over ``threshold``, else absent.

    One regression over all labels needs a target for each entry: as in the released code it is 0 for an unknown new
    label (which the classifier still scores 0), and for a label in all images that came before it. Departures: an image
    without labels weighs 1 (the released code divides by zero); sums and a Cholesky factor in place of the recursive
    inverse (the same weights); the chunks of an online experience are solved for together when it ends; a frozen
    backbone is not trained at all.

    Attributes:
        expansion: Width of the random layer, relative to that of the features (COCO 2, VOC 4).
        ridge: Weight of the squared norm of the weights, or ``gcv``: the one with the least cross-validation error
            on the first experience, then kept. Released: 1000 for a CNN, 1 for a ViT; what a number does depends on the
            scale of the features.
        threshold: Score over which an unknown old label counts as present; the released 0.7 after a sigmoid.
        decision: Score that predictions have as logit 0; the released 0.525 after a sigmoid.
        train_backbone: Whether a backbone that is not frozen is trained on the first experience.
    """

    expansion: PositiveInt = 2
    ridge: Penalty = "gcv"
    threshold: float = math.log(0.7 / 0.3)
    decision: float = math.log(0.525 / 0.475)
    train_backbone: bool = True

    meta = StrategyMeta(name="l3a", title="L3A", family="analytic", reference="arXiv:2506.00816", federated=False)

    def build_model(self, backbone: nn.Module | None, head: Head) -> MultiLabelModel:
        """Return backbone and analytic classifier; the method's head learns with the backbone and then falls silent."""
        return super().build_model(backbone, AnalyticHead(head, self.expansion, self.decision))

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Draw the random layer and return the plugin that trains in closed form.

        Raises:
            CmlBenchError: If the criterion reads a head of its own.
        """
        for layer in run.criterion.with_bases:
            if layer.meta.head:
                raise CmlBenchError(
                    f"loss={layer.meta.name} reads head={layer.meta.head}, in whose place l3a puts its own: take "
                    "another loss"
                )
        assert isinstance(run.model.head, AnalyticHead)
        run.model.head.draw(run.generator("expansion"))
        return [L3APlugin(self)]


class L3APlugin(SupervisedPlugin):
    """Trains by gradients on the first experience at most, and solves for the classifier after each."""

    def __init__(self, options: L3A) -> None:
        super().__init__()
        self.options = options
        self.sums: RidgeSums | None = None
        self.ridge = options.ridge
        self.positives = torch.zeros(0, dtype=torch.float64)
        self.chunks = Chunks()

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Take the batches away, unless it is the backbone's turn to learn from them."""
        backbone_learns = any(p.requires_grad for p in strategy.model.backbone.parameters())
        if self.sums or not (self.options.train_backbone and backbone_learns):
            strategy.dataloader = []

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Add a whole experience to the sums, and solve."""
        whole = self.chunks.add(strategy.experience)
        if whole is None:
            return
        dataset = whole.eval()
        model, head = strategy.model, strategy.model.head
        if self.sums is None:
            model.requires_grad_(False)
            head.solved.fill_(True)
            # It has done its work, and may read more than the classifier says.
            strategy._criterion = BCE()
            self.sums = RidgeSums(len(head.projection), strategy.device)
        sums = self.sums
        present = (dataset.labels.data == PRESENT).double().sum(dim=0)
        self.positives = F.pad(self.positives, (0, len(present) - len(self.positives))) + present
        weights = label_weights(self.positives).to(strategy.device)
        with evaluating(model):
            for batch in BatchLoader(dataset, strategy.eval_mb_size):
                expanded = head.expand(model.backbone(batch[0].to(strategy.device)))
                scores = head.score(expanded)
                labels = fill(batch[1].to(strategy.device), scores, self.options.threshold, math.inf).labels
                targets = (labels == PRESENT).double()
                sums.add(expanded, targets, image_weights(targets, weights))
        if self.ridge == "gcv":
            self.ridge = generalised_cross_validation(sums.gram, sums.cross, sums.squares, sums.count)
        head.set_weights(sums.solve(self.ridge))


class AnalyticHead(Head):
    """A random layer and a linear classifier, neither of them trained by gradients; scores are about 0 to 1.

    Args:
        base: Head that learns with the backbone, and scores until there is a solution; grows once.
        expansion: Width h of the random layer, relative to that of the features.
        decision: Score that becomes logit 0.

    Attributes:
        solved: Whether there is a solution.
    """

    meta = HeadMeta(
        name="analytic", title="Analytic", features="pooled", growth_keeps_logits=True, reference="arXiv:2506.00816"
    )

    solved: Tensor

    def __init__(self, base: Head, expansion: int, decision: float) -> None:
        super().__init__(base.in_features)
        self.base = base
        self.decision = decision
        drawn_later = torch.zeros(expansion * base.in_features, base.in_features)
        self.projection = nn.Parameter(drawn_later, requires_grad=False)
        self.weights = nn.ParameterList()
        self.register_buffer("solved", torch.tensor(False))

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Draw the random layer, as ``nn.Linear`` would start."""
        bound = self.in_features**-0.5
        self.projection.copy_(torch.rand(self.projection.shape, generator=generator) * 2 * bound - bound)

    def add_labels(self, names: tuple[str, ...]) -> None:
        """Append one block of weights (h, n), all 0."""
        if not self.label_names:
            self.base.grow(names)
        zeros = self.projection.new_zeros(len(self.projection), len(names), dtype=torch.float64)
        self.weights.append(nn.Parameter(zeros, requires_grad=False))

    def expand(self, features: Tensor) -> Tensor:
        """Return the (B, h) float64 output of the random layer."""
        return F.linear(pool(features), self.projection).relu().double()

    def score(self, expanded: Tensor) -> Tensor:
        """Return the (B, n) float64 scores of (B, h) expanded features."""
        return expanded @ torch.cat(list(self.weights), dim=1)

    def set_weights(self, weights: Tensor) -> None:
        """Take over (h, n) weights."""
        for block, solved in zip(self.weights, weights.split([b.shape[1] for b in self.weights], dim=1), strict=True):
            block.copy_(solved)

    def forward(self, features: Tensor) -> HeadOutput:
        """Return logits (B, n) and the pooled feature (B, D); see ``Head.forward``."""
        if not self.solved:
            output: HeadOutput = self.base(features)
            return output
        pooled = pool(features)
        return HeadOutput((self.score(self.expand(pooled)) - self.decision).to(pooled.dtype), pooled)


class RidgeSums:
    """What a weighted ridge regression needs to know of the images so far: sums, float64.

    Attributes:
        gram: (h, h) sum of omega psi psi^T.
        cross: (h, n) sum of omega psi y^T; the columns of later labels are appended as 0.
        squares: (n,) sum of omega y^2; likewise.
        count: Number of images.
    """

    def __init__(self, width: int, device: torch.device | str = "cpu") -> None:
        self.gram = torch.zeros(width, width, dtype=torch.float64, device=device)
        self.cross = torch.zeros(width, 0, dtype=torch.float64, device=device)
        self.squares = torch.zeros(0, dtype=torch.float64, device=device)
        self.count = 0

    def add(self, expanded: Tensor, targets: Tensor, weights: Tensor) -> None:
        """Add B images.

        Args:
            expanded: (B, h) float64 features psi.
            targets: (B, n) float64 targets y; n may grow.
            weights: (B,) float64 weights omega.
        """
        weighted = expanded * weights[:, None]
        self.gram += expanded.T @ weighted
        new = targets.shape[1] - self.cross.shape[1]
        self.cross = F.pad(self.cross, (0, new)) + weighted.T @ targets
        self.squares = F.pad(self.squares, (0, new)) + weights @ targets.square()
        self.count += len(targets)

    def solve(self, ridge: float) -> Tensor:
        """Return the (h, n) weights that minimise the weighted squared error plus ``ridge`` times their square."""
        regularised = self.gram + ridge * torch.eye(len(self.gram), dtype=self.gram.dtype, device=self.gram.device)
        return torch.cholesky_solve(self.cross, torch.linalg.cholesky(regularised))


def label_weights(positives: Tensor) -> Tensor:
    """Return (n,) weights ``n m_c^-1/2 / sum_k m_k^-1/2`` of labels with (n,) positives m; 0 for those with none."""
    roots = torch.where(positives > 0, positives.clamp(min=1).rsqrt(), 0)
    return len(positives) * roots / roots.sum().clamp(min=torch.finfo(roots.dtype).tiny)


def image_weights(targets: Tensor, weights: Tensor) -> Tensor:
    """Return the (B,) mean weight of each image's labels, 1 for an image without labels."""
    count = targets.sum(dim=1)
    return torch.where(count > 0, targets @ weights / count.clamp(min=1), 1)
