"""Closed-form ridge regression: a linear read-out that forgets nothing because it is solved, not trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError
from cml_bench.labels import PRESENT, is_known
from cml_bench.models.evaluating import evaluating
from cml_bench.models.heads.head import Head, HeadOutput
from cml_bench.models.model import MultiLabelModel
from cml_bench.streams.loading import BatchLoader
from cml_bench.streams.timeline import ends_experience
from cml_bench.training.context import RunContext
from cml_bench.training.cross_validation import Penalty, generalised_cross_validation
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["Ridge"]


@dataclass(frozen=True)
class Ridge(Strategy):
    """Solve each label's read-out by ridge regression on fixed features, from sums that grow with the stream.

    For label c, over the images that are annotated for it: ``min sum (w_c . f + b_c - y)^2 + penalty ||w_c||^2`` with y
    = 1 where the label is present and -1 where it is absent, so that a logit of 0 is the border. The sums of f f^T and
    f y are all that is kept, in float64: a stream in any number of experiences or chunks gives the solution of all its
    annotations at once, and old labels change only where they are annotated anew. Exact for every pattern of unknown
    entries: labels known on the same images share one matrix, others have their own. An annotation that the stream
    gives twice counts twice. There is no gradient step; the backbone stays as it came, without augmentation. A label
    that was never annotated has logit 0.

    By default the penalty of labels that share a matrix is the one that generalised cross-validation prefers, from the
    same sums: a number means nothing without the scale of the features. It is chosen anew when they are annotated
    anew, so that all of the above holds, but for labels that shared a matrix and are annotated apart from some time on:
    until then they share a penalty as well.

    With a head that has one feature a label, each label's read-out is solved on its own feature as the head starts with
    it; a head whose labels read each other, so that growth changes the features of old ones, is refused. Sums take
    (d + 1)^2 numbers a matrix, d the width of a feature.

    Source: ridge regression, the baseline of analytic continual learning (Zhuang et al. 2022, arXiv 2205.14922) without
    its random expansion; the intercept is not penalised. Generalised cross-validation: Golub, Heath and Wahba 1979.

    Attributes:
        penalty: Weight of the squared length of w, in units of the squared features summed over images, or ``gcv``: the
            one of least generalised cross-validation error over all annotations of the labels that share a matrix,
            which no later image of other labels changes.
    """

    penalty: Penalty = "gcv"

    meta = StrategyMeta(name="ridge", title="Ridge", family="analytic", reference="arXiv:2205.14922")

    def build_model(self, backbone: nn.Module | None, head: Head) -> MultiLabelModel:
        """Return backbone and head.

        Raises:
            CmlBenchError: If labels of the head read each other: new ones would change the features that the sums of
                the old ones were taken of.
        """
        if not head.keeps_logits:
            raise CmlBenchError(
                f"ridge adds up features that must stay as they are, and new labels change what head={head.meta.name} "
                "reads for the old ones: take head=linear or head=dlfl"
            )
        return super().build_model(backbone, head)

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the plugin that solves in place of training."""
        return [RidgePlugin(self.penalty)]


_LEAST = 1e-10
"""Least penalty, relative to the sum of squares of the features and the intercept."""


class RidgePlugin(SupervisedPlugin):
    """Keeps the sums and writes their solution into the head.

    Attributes:
        group: (n,) group of each label: those that read the same feature and have been known on the same images.
        gram: (G, d + 1, d + 1) sums of f f^T over the images of each group, f with a 1 appended.
        moment: (n, d + 1) sums of f y.
        chosen: For each label, after how many images its penalty was chosen, and which.
    """

    def __init__(self, penalty: Penalty) -> None:
        super().__init__()
        self.penalty = penalty
        self.group: list[int] = []
        self.gram = torch.zeros(0)
        self.moment = torch.zeros(0)
        self.chosen: dict[int, tuple[int, float]] = {}

    @torch.no_grad()
    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Add the experience to the sums, solve them when it ends, and leave nothing to train."""
        with evaluating(strategy.model):
            self._add(strategy)
        if ends_experience(strategy.experience):
            write(strategy.model.head, self.solution())
        strategy.dataloader = []

    def solution(self) -> Tensor:
        """Return (n, d + 1) weights and intercept of each label."""
        found = torch.zeros_like(self.moment)
        unit = torch.eye(self.gram.shape[1], dtype=self.gram.dtype, device=self.gram.device)
        unit[-1, -1] = 0
        for gram, labels in zip(self.gram, self.members(), strict=True):
            if gram[-1, -1] > 0:  # the number of images
                moment = self.moment[labels].T
                penalty = self._chosen(labels, gram, moment) if self.penalty == "gcv" else self.penalty
                found[labels] = torch.linalg.solve(gram + penalty * unit, moment).T
        return found

    def _chosen(self, labels: list[int], gram: Tensor, moment: Tensor) -> float:
        """Return the penalty of a group; chosen anew only when its labels have been annotated again."""
        count = int(gram[-1, -1])
        if self.chosen.get(labels[0], (0, 0.0))[0] != count:
            self.chosen.update(dict.fromkeys(labels, (count, choose_penalty(gram, moment))))
        return self.chosen[labels[0]][1]

    def _add(self, strategy: Any) -> None:
        dataset = strategy.experience.dataset.eval()
        for number, batch in enumerate(BatchLoader(dataset, strategy.eval_mb_size)):
            features = read(strategy.model.head_output(batch[0].to(strategy.device)))
            if number == 0:
                self._regroup(is_known(dataset.labels.data).numpy(), features)
            labels = batch[1].to(strategy.device)
            known = is_known(labels)
            signs = torch.where(labels == PRESENT, 1.0, -1.0).to(features) * known
            for group, columns in enumerate(self.members()):
                read_by_all = features[:, columns[0] % features.shape[1]]
                rows = read_by_all[known[:, columns[0]]]
                self.gram[group] += rows.T @ rows
                self.moment[columns] += signs[:, columns].T @ read_by_all

    def members(self) -> list[list[int]]:
        """Return the labels of each group."""
        return [[label for label, of in enumerate(self.group) if of == group] for group in range(len(self.gram))]

    def _regroup(self, known: npt.NDArray[np.bool_], features: Tensor) -> None:
        """Make room for new labels, and split groups that the (N, n) known entries tell apart."""
        n_old, n, width = len(self.group), known.shape[1], features.shape[2]
        n_groups, n_fresh = len(self.gram), n - n_old if features.shape[1] > 1 else 1
        # New labels start with empty sums: in one group, or each in its own where each reads its own feature.
        before = self.group + [n_groups + label % n_fresh for label in range(n - n_old)]
        patterns = (column.tobytes() for column in np.packbits(known.T, axis=1))
        numbers: dict[tuple[int, bytes], int] = {}
        self.group = [numbers.setdefault(key, len(numbers)) for key in zip(before, patterns, strict=True)]
        empty = features.new_zeros(n_fresh, width, width)
        sums = torch.cat([self.gram, empty]) if n_groups else empty
        self.gram = sums[[parent for parent, _ in numbers]]
        room = features.new_zeros(n - n_old, width)
        self.moment = torch.cat([self.moment, room]) if n_old else room


def choose_penalty(gram: Tensor, moment: Tensor) -> float:
    """Return the penalty that cross-validation prefers, of (d + 1, d + 1) and (d + 1, n) sums of a group.

    The intercept is not penalised, so that it is the regression of centred targets on centred features.
    """
    count = gram[-1, -1]
    mean, target = gram[:-1, -1] / count, moment[-1] / count
    centred = gram[:-1, :-1] - count * torch.outer(mean, mean), moment[:-1] - count * torch.outer(mean, target)
    # Targets are 1 and -1: their squares sum to the number of images.
    found = generalised_cross_validation(*centred, count - count * target.square(), float(count), free=1)
    # Of a single image, or several that are alike, nothing varies, and no penalty would leave nothing to solve.
    return max(found, _LEAST * float(gram.diagonal().sum()))


def read(output: HeadOutput) -> Tensor:
    """Return the float64 features (B, n, d + 1) that the labels read, (B, 1, d + 1) where they share one."""
    features = output.pooled[:, None] if output.label_features is None else output.label_features
    return torch.cat([features, torch.ones_like(features[..., :1])], dim=-1).double()


def write(head: nn.Module, solution: Tensor) -> None:
    """Write (n, d + 1) weights and intercepts into a head's blocks.

    Raises:
        CmlBenchError: If the head has no weights and biases by label.
    """
    weights, biases = getattr(head, "weights", None), getattr(head, "biases", None)
    if not (isinstance(weights, nn.ParameterList) and isinstance(biases, nn.ParameterList)):
        raise CmlBenchError("ridge solves for one weight vector and one bias a label: take head=linear or head=dlfl")
    blocks = solution.split([len(bias) for bias in biases])
    for weight, bias, rows in zip(weights, biases, blocks, strict=True):
        weight.copy_(rows[:, :-1])
        bias.copy_(rows[:, -1])
