"""Learning without forgetting, one sigmoid a label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from cml_bench.labels import is_known
from cml_bench.training.context import RunContext
from cml_bench.training.strategy import Strategy, StrategyMeta
from cml_bench.training.teacher import TeacherPlugin

__all__ = ["LwF"]


@dataclass(frozen=True)
class LwF(Strategy):
    """Distil the old model's probability of each old label into the new one.

    The loss is ``L + alpha temperature^2 mean KL(sigmoid(t / temperature) || sigmoid(z / temperature))``, the mean over
    entries of old labels without an annotation, z and t being their logits by the new and the old model, L the
    criterion's loss.

    Source: Li and Hoiem 2016, arXiv 1606.09282, with one Bernoulli per label instead of a softmax over classes, which
    would force the old labels to exclude each other. Entries that carry an annotation are learnt from it, not from the
    teacher; a criterion that assumes unknown entries negative leaves the old columns to the teacher. Departures: the
    factor ``temperature^2``, the mean over labels in place of the sum, and no warm-up of the new rows.

    ``confidence_decay`` trusts the teacher less where it is very sure: an entry with the softened probability q weighs
    ``exp(-kappa |2 q - 1|)``. That is **(inferred, ours)**: RebLL (arXiv 2408.12161) decays over-confident distillation
    exponentially and its formula is not public; this is not RebLL.

    Attributes:
        alpha: Weight of the distillation loss.
        temperature: Divides both logits; the loss is multiplied by its square.
        confidence_decay: kappa; 0 is LwF.
    """

    alpha: NonNegativeFloat = 1.0
    temperature: PositiveFloat = 2.0
    confidence_decay: NonNegativeFloat = 0.0

    meta = StrategyMeta(
        name="lwf", title="LwF", family="distillation", reference="arXiv:1606.09282", compares_logits=True
    )

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the distillation plugin, if it is to weigh anything."""
        return [LwFPlugin(self.alpha, self.temperature, self.confidence_decay)] if self.alpha else []


class LwFPlugin(TeacherPlugin):
    """Adds the sigmoid distillation loss to every batch."""

    def __init__(self, alpha: float, temperature: float, confidence_decay: float = 0.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.temperature = temperature
        self.confidence_decay = confidence_decay

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the loss over old labels that the batch does not annotate."""
        if self.n_old:
            old = slice(self.n_old)
            unknown = ~is_known(strategy.mb_y[:, old])
            teacher = self.teach(strategy.mb_x).logits
            strategy.loss += self.alpha * sigmoid_distillation(
                strategy.mb_output[:, old], teacher, unknown, self.temperature, self.confidence_decay
            )


def sigmoid_distillation(
    student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 1.0, confidence_decay: float = 0.0
) -> Tensor:
    """Return the mean Bernoulli KL divergence from teacher to student over the masked entries, times temperature^2.

    Args:
        student: (B, n) logits.
        teacher: (B, n) logits.
        mask: (B, n) bool, entries that count.
        temperature: Divides both logits.
        confidence_decay: kappa; an entry to which the teacher gives the (softened) probability q counts
            ``exp(-kappa |2 q - 1|)`` in the sum, and 1 in the number that it is divided by.
    """
    target = torch.sigmoid(teacher / temperature)
    cross_entropy = binary_cross_entropy_with_logits(student / temperature, target, reduction="none")
    entropy = binary_cross_entropy_with_logits(teacher / temperature, target, reduction="none")
    divergence = (cross_entropy - entropy) * mask
    if confidence_decay:
        divergence = divergence * torch.exp(-confidence_decay * (2 * target - 1).abs())
    return temperature**2 * divergence.sum() / mask.sum().clamp(min=1)
