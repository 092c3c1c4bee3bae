"""Memory aware synapses: importance without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from avalanche.core import SupervisedPlugin
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from cml_bench.streams.dataset import MultiLabelDataset
from cml_bench.training.context import RunContext
from cml_bench.training.importance import Importance, mean_over_images, per_image_gradients
from cml_bench.training.option_types import Probability
from cml_bench.training.penalty import ImportancePenalty
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["MAS"]


@dataclass(frozen=True)
class MAS(Strategy):
    """Penalise moving parameters that the length of the output depends on.

    After an experience ``Omega <- alpha Omega + (1 - alpha) mean_x |d ||z_x||^2 / d theta|``, the first time the mean
    alone, one gradient an image, where z are the logits of all labels seen; the penalty is
    ``mas_lambda sum Omega (theta - theta_t)^2``. It reads no label, so partial annotation does not bias it.

    Source: Aljundi et al. 2018, arXiv 1711.09601, with the running mean of FACIL and Avalanche in place of a sum over
    experiences. Departures: ``output="probabilities"`` (ours, inferred) measures ``||sigmoid(z)||^2``, because in
    multi-label images most logits are very negative and would dominate; parameters that arrive with new labels carry no
    penalty until the experience ends. Avalanche takes the absolute value of a batch mean, in which opposite signs
    cancel, and measures in training mode.

    Attributes:
        mas_lambda: Weight of the penalty.
        alpha: Weight of the old importance in the running mean.
        output: Whose squared length is measured.
        importance_samples: Images that the importance is estimated on.
    """

    mas_lambda: NonNegativeFloat = 1.0
    alpha: Probability = 0.5
    output: Literal["logits", "probabilities"] = "logits"
    importance_samples: PositiveInt = 1000

    meta = StrategyMeta(name="mas", title="MAS", family="regularization", reference="arXiv:1711.09601")

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the MAS plugin."""
        measured = squared_length if self.output == "logits" else squared_length_of_probabilities
        generator = run.generator("importance")
        return [MASPlugin(self.mas_lambda, self.alpha, measured, self.importance_samples, generator)]


def squared_length(logits: Tensor) -> Tensor:
    """Return ``||z||^2`` of (n,) logits."""
    return logits.square().sum()


def squared_length_of_probabilities(logits: Tensor) -> Tensor:
    """Return ``||sigmoid(z)||^2`` of (n,) logits."""
    return logits.sigmoid().square().sum()


class MASPlugin(ImportancePenalty):
    """Measures importances after each experience and keeps their running mean."""

    def __init__(
        self, mas_lambda: float, alpha: float, measured: Any, samples: int, generator: torch.Generator
    ) -> None:
        super().__init__(mas_lambda)
        self.alpha = alpha
        self.measured = measured
        self.samples = samples
        self.generator = generator

    def measure(self, strategy: Any, dataset: MultiLabelDataset) -> Importance:
        """Return the mean absolute gradient of the output's squared length."""
        gradients = per_image_gradients(strategy.model, self.measured)

        def absolute(x: Tensor, labels: Tensor) -> Importance:
            return {name: g.abs() for name, g in gradients(x).items()}

        return mean_over_images(
            strategy.model,
            dataset,
            absolute,
            samples=self.samples,
            generator=self.generator,
            batch_size=strategy.eval_mb_size,
            device=strategy.device,
        )

    def consolidate(self, model: nn.Module, importance: Importance) -> None:
        """Mix the old importance with the new one; what is new has the new one alone."""
        old = self.curvature
        mixed = {
            name: self.alpha * old[name] + (1 - self.alpha) * new if name in old else new
            for name, new in importance.items()
        }
        self.anchor(model, mixed)
