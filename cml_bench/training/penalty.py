"""A quadratic penalty on moving parameters that matter: what EWC, SI, MAS and RWalk have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from cml_bench.streams.dataset import MultiLabelDataset
from cml_bench.training.chunks import Chunks
from cml_bench.training.importance import Importance


class QuadraticPenalty(SupervisedPlugin):
    """Adds ``strength * sum_i A_i (theta_i - m_i)^2`` to the loss; a subclass says what A is and when it changes.

    Parameters that arrive with new labels are in neither A nor m until the experience ends, so they carry no penalty.

    Attributes:
        curvature: A, by parameter name.
        centre: m, by parameter name.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.curvature: Importance = {}
        self.centre: Importance = {}

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the penalty."""
        if self.strength and self.curvature:
            strategy.loss += self.strength * self.penalty(strategy.model)

    def penalty(self, model: nn.Module) -> Tensor:
        """Return the sum over parameters of A (theta - m)^2."""
        parameters = dict(model.named_parameters())
        terms = [(a * (parameters[name] - self.centre[name]).square()).sum() for name, a in self.curvature.items()]
        return torch.stack(terms).sum()

    def anchor(self, model: nn.Module, curvature: Importance) -> None:
        """Pull towards where the model is now, as firmly as ``curvature`` says."""
        parameters = dict(model.named_parameters())
        self.curvature = curvature
        self.centre = {name: parameters[name].detach().clone() for name in curvature}


class ImportancePenalty(QuadraticPenalty, ABC):
    """A penalty whose curvature is measured on the images of each experience when it ends."""

    def __init__(self, strength: float) -> None:
        super().__init__(strength)
        self.chunks = Chunks()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Measure what the experience's images say, without augmentation, and take it in."""
        if not self.strength:
            return
        whole = self.chunks.add(strategy.experience)
        if whole is not None:
            self.consolidate(strategy.model, self.measure(strategy, whole.eval()))

    @abstractmethod
    def measure(self, strategy: Any, dataset: MultiLabelDataset) -> Importance:
        """Return the importance of every trainable parameter for an experience."""

    @abstractmethod
    def consolidate(self, model: nn.Module, importance: Importance) -> None:
        """Take in the importance of an experience, at the parameters that it ended with."""
