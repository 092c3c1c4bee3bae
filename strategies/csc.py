"""CSC: confidence self-calibration, a maximum-entropy term beside distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avalanche.core import SupervisedPlugin
from pydantic import NonNegativeFloat
from torch import Tensor

from cml_bench.labels import is_known
from cml_bench.training.context import RunContext
from cml_bench.training.option_types import Probability
from cml_bench.training.strategy import Strategy, StrategyMeta
from cml_bench.training.teacher import TeacherPlugin

from .lwf import sigmoid_distillation

__all__ = ["CSC"]


@dataclass(frozen=True)
class CSC(Strategy):
    """Learn new labels, distil old ones, and hold over-confident scores back.

    From the second experience on, the loss is
    ``alpha L + (1 - alpha) L_d + entropy_weight mean_x sum_c p_c ln(p_c + 1e-5)`` with
    ``L_d = mean KL(sigmoid(t) || sigmoid(z))`` over old labels, t being the old model's logits, and p over all labels.
    As released, the last term is least at ``p = 1 / e``: it raises scores near 0, too.

    Source: arXiv 2403.12559 and its released code; on the first experience the classification loss alone. Departures:
    annotated old labels are learnt from their annotation, not distilled; the classification loss L is the method's
    criterion. In the released code the parameters of new labels never reach the optimiser; here they do.

    Attributes:
        alpha: Weight of the classification loss from the second experience on.
        entropy_weight: Weight of the sum over labels of ``p ln p``, mean over images.
    """

    alpha: Probability = 0.5
    entropy_weight: NonNegativeFloat = 0.04

    meta = StrategyMeta(
        name="csc", title="CSC", family="graph", reference="arXiv:2403.12559", head="csc", compares_logits=True
    )

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the CSC plugin."""
        return [CSCPlugin(self.alpha, self.entropy_weight)]


class CSCPlugin(TeacherPlugin):
    """Mixes classification with distillation, and adds the entropy term."""

    def __init__(self, alpha: float, entropy_weight: float) -> None:
        super().__init__(answers=alpha < 1)
        self.alpha = alpha
        self.entropy_weight = entropy_weight

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Complete the loss of an experience that has a teacher."""
        if not self.n_old:
            return
        logits, old = strategy.mb_output, slice(self.n_old)
        unknown = ~is_known(strategy.mb_y[:, old])
        distilled = sigmoid_distillation(logits[:, old], self.teach(strategy.mb_x).logits, unknown)
        calibration = self.entropy_weight * negative_entropy(logits.sigmoid())
        strategy.loss = self.alpha * strategy.loss + (1 - self.alpha) * distilled + calibration


def negative_entropy(probabilities: Tensor) -> Tensor:
    """Return the mean over images of the sum over labels of ``p ln(p + 1e-5)``.

    Not the entropy of a Bernoulli, which is largest at 1/2: this is smallest at about ``p = 1/e``, so it draws both
    sure presence and sure absence towards 0.37.

    Args:
        probabilities: (B, n).
    """
    return (probabilities * (probabilities + 1e-5).log()).sum(dim=1).mean()
