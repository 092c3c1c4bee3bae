"""Elastic weight consolidation with a per-image Fisher information."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from avalanche.core import SupervisedPlugin
from pydantic import NonNegativeFloat, PositiveInt
from torch import nn

from cml_bench.streams.dataset import MultiLabelDataset
from cml_bench.training.context import RunContext
from cml_bench.training.importance import Importance, fisher_information
from cml_bench.training.penalty import ImportancePenalty
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["EWC"]


@dataclass(frozen=True)
class EWC(Strategy):
    """Penalise moving parameters that the old labels' likelihood depends on.

    The penalty is ``ewc_lambda / 2 sum_k sum_i F_ki (theta_i - theta_ki)^2`` over past experiences k, which ended at
    theta_k, with ``F_ki = mean_x (d log p(y_x) / d theta_i)^2``.

    Source: Kirkpatrick et al. 2017, arXiv 1612.00796, equation 3, with the likelihood of independent labels: log p is
    the sum over known entries of the Bernoulli log-likelihood. F squares the gradient of one image (Avalanche squares
    that of a batch mean, in which opposite signs cancel), in evaluation mode, without augmentation. Parameters that
    arrive with new labels carry no penalty until the experience ends.

    Attributes:
        ewc_lambda: Weight of the penalty; has no safe default and must be swept.
        fisher: ``true`` draws the labels from the model (one draw an image), ``empirical`` takes the annotated ones.
        fisher_samples: Images that the Fisher information is estimated on.
    """

    ewc_lambda: NonNegativeFloat = 10.0
    fisher: Literal["true", "empirical"] = "true"
    fisher_samples: PositiveInt = 1000

    meta = StrategyMeta(name="ewc", title="EWC", family="regularization", reference="arXiv:1612.00796")

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the EWC plugin."""
        return [EWCPlugin(self.ewc_lambda, self.fisher == "empirical", self.fisher_samples, run.generator("fisher"))]


class EWCPlugin(ImportancePenalty):
    """Holds the penalty of all past experiences as one quadratic.

    The sum over experiences k of F_k (theta - theta_k)^2 is, up to a constant, A (theta - m)^2 with A the sum of the
    F_k and m their weighted mean of the theta_k: memory and time do not grow with the number of experiences.
    """

    def __init__(self, ewc_lambda: float, empirical: bool, samples: int, generator: torch.Generator) -> None:
        super().__init__(0.5 * ewc_lambda)
        self.empirical = empirical
        self.samples = samples
        self.generator = generator

    def measure(self, strategy: Any, dataset: MultiLabelDataset) -> Importance:
        """Return the experience's Fisher information."""
        return fisher_information(
            strategy.model,
            dataset,
            samples=self.samples,
            generator=self.generator,
            empirical=self.empirical,
            batch_size=strategy.eval_mb_size,
            device=strategy.device,
        )

    def consolidate(self, model: nn.Module, importance: Importance) -> None:
        """Add the experience's quadratic to those before."""
        for name, parameter in model.named_parameters():
            if name not in importance:
                continue
            here = parameter.detach().clone()
            before, centre = self.curvature.get(name), self.centre.get(name)
            if before is None or centre is None:
                self.curvature[name], self.centre[name] = importance[name], here
                continue
            total = before + importance[name]
            moved = torch.where(total > 0, importance[name] / total, 0.0)
            self.curvature[name], self.centre[name] = total, centre + moved * (here - centre)
