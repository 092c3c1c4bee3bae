"""KRT: knowledge restore (pseudo-labels) and transfer (tokens that are kept where they were)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from avalanche.core import SupervisedPlugin
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn.functional import cosine_similarity

from cml_bench.memory.budget import MemorySize
from cml_bench.memory.herding import HerdingMemory
from cml_bench.models.heads.head import HeadOutput
from cml_bench.training.context import RunContext
from cml_bench.training.pseudo_labels import BELOW, Below, DynamicCount, Kappa, PseudoLabelPlugin
from cml_bench.training.rehearsal import Rehearsal
from cml_bench.training.strategy import StrategyMeta

__all__ = ["KRT"]


@dataclass(frozen=True)
class KRT(Rehearsal):
    """Restore old labels by dynamic pseudo-labels, and keep what each old experience's token reads where it was.

    An unknown old label is present where ``p > tau``, p being the old model's and tau such that ``kappa n_old`` old
    labels an image are over it, within 0.1. The loss adds
    ``token_weight sqrt(n_seen / n_new) mean_x (1 - cos(e_x, o_x))``, with e what the tokens of all old experiences
    read, joined, and o what they read in the old model.

    Source: Dong et al. 2023, arXiv 2302.13334; its module as ported by CUTER's authors. With a memory it is KRT-R,
    which keeps herded exemplars and, in the released code, gives them the truth for all later labels:
    ``memory_size=20/label relabel=oracle``. Departures: the threshold is found on images without augmentation, and need
    not know how many labels are to come (see ``DynamicCount``; ``kappa=0.03625`` is the published prior of COCO, 2.9
    labels of 80, and 0.07 that of VOC). Replayed images are pseudo-labelled like others; what KRT-R does is not known.
    With a head other than ``krt`` the token loss holds the label features, or the one feature, that the head has.

    The published weights of the token loss, 100 (COCO B0-C10), 300 (COCO B40-C10) and 80 (VOC), belong to the summed
    asymmetric loss: ``loss=asl loss.reduction=sum token_weight=100 lr=4e-5``. The default is 100 over 64 images of 80
    labels: the same balance with a criterion that is a mean.

    Attributes:
        token_weight: Weight of the token loss, before the root of all labels over new ones.
        below: Whether an old label that is not over the threshold is absent (``zero``, as published) or stays unknown.
        kappa: Labels expected in an image for each old label, or ``estimated``. The estimate is too high, three to
            four times in the second experience where each brings one label that a third of images show, and less later
            (see ``DynamicCount``); a number, the published prior say, has no such bias.
    """

    token_weight: NonNegativeFloat = 0.02
    below: Below = "zero"
    kappa: Kappa = "estimated"
    memory_size: MemorySize = 0

    meta = StrategyMeta(name="krt", title="KRT", family="distillation", reference="arXiv:2302.13334", head="krt")

    def memory(self, run: RunContext) -> HerdingMemory:
        """Return a memory filled by herding."""
        return HerdingMemory(self.memory_size)

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the KRT plugin and, with a memory, the replay plugin."""
        return [KRTPlugin(self.token_weight, self.below, self.kappa), *super().plugins(run)]


class KRTPlugin(PseudoLabelPlugin):
    """Adds the token loss to dynamic pseudo-labels."""

    def __init__(self, token_weight: float, below: Below, kappa: float | Literal["estimated"]) -> None:
        start = 0.8
        super().__init__(start, BELOW[below], DynamicCount(kappa, start))
        self.token_weight = token_weight
        self.sizes: list[int] = []

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the token loss over the old experiences."""
        super().before_backward(strategy, **kwargs)
        if self.n_old and self.token_weight:
            output: HeadOutput = strategy.head_output
            n_seen = output.logits.shape[1]
            distance = token_distance(output, self.taught, self.sizes)
            strategy.loss += self.token_weight * math.sqrt(n_seen / (n_seen - self.n_old)) * distance

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Copy the model and note how many labels the experience brought."""
        known = self.n_old
        super().after_training_exp(strategy, **kwargs)
        if self.n_old > known:
            self.sizes.append(self.n_old - known)


def token_distance(output: HeadOutput, taught: HeadOutput, sizes: list[int]) -> Tensor:
    """Return the mean over images of one minus the cosine of now and before, over the joined features of experiences.

    Each experience counts once, however many labels share its token: a label's feature is divided by the root of their
    number. With a head that has one feature for all labels it is the cosine of that.

    Args:
        output: What the model says.
        taught: What the teacher said, of the old labels.
        sizes: Labels of each old experience.
    """
    now, before = output.label_features, taught.label_features
    if now is None or before is None:
        return (1 - cosine_similarity(output.pooled, taught.pooled)).mean()
    shares = torch.tensor([size**-0.5 for size in sizes for _ in range(size)], device=now.device, dtype=now.dtype)
    now, before = ((features[:, : len(shares)] * shares[:, None]).flatten(1) for features in (now, before))
    return (1 - cosine_similarity(now, before)).mean()
