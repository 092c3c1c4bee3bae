"""What each parameter did for the loss along the path of training: the bookkeeping of SI and RWalk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn

from cml_bench.streams.timeline import ends_experience
from cml_bench.training.importance import Importance
from cml_bench.training.penalty import QuadraticPenalty


class PathPenalty(QuadraticPenalty, ABC):
    """A penalty whose curvature comes from ``-g (theta_after - theta_before)``, summed over steps.

    ``g`` is the gradient of the loss without this penalty (its own gradient is known and taken off again, which costs
    no second backward pass) and without weight decay, which optimisers add later. A gradient that another plugin clips
    is taken as clipped.

    Attributes:
        start: Where the experience began; empty between experiences.
        path: The sums, by parameter name.
    """

    def __init__(self, strength: float) -> None:
        super().__init__(strength)
        self.start: Importance = {}
        self.path: Importance = {}
        self._gradient: Importance = {}
        self._before: Importance = {}

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Start the path of an experience; a later chunk of an online one goes on with it."""
        if self.strength and not self.start:
            parameters = strategy.model.named_parameters()
            self.start = {name: p.detach().clone() for name, p in parameters if p.requires_grad}
            self.path = {name: value.new_zeros(value.shape) for name, value in self.start.items()}

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        """Note the gradient of the task alone, and where the step starts."""
        parameters = dict(strategy.model.named_parameters())
        self._gradient, self._before = {}, {}
        for name in self.start:
            parameter = parameters[name]
            if parameter.grad is None:
                continue
            gradient = parameter.grad.detach().clone()
            if name in self.curvature:
                pulled = parameter.detach() - self.centre[name]
                gradient -= 2 * self.strength * self.curvature[name] * pulled
            self._gradient[name], self._before[name] = gradient, parameter.detach().clone()

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        """Add the step to the path."""
        parameters = dict(strategy.model.named_parameters())
        for name, gradient in self._gradient.items():
            self.path[name] -= gradient * (parameters[name].detach() - self._before[name])
        # They are of one step; a checkpoint would hold two models more.
        self._gradient, self._before = {}, {}

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Take in the path of an experience that has ended."""
        if self.start and ends_experience(strategy.experience):
            self.consolidate(strategy.model)
            self.start = {}

    @abstractmethod
    def consolidate(self, model: nn.Module) -> None:
        """Turn the path of the experience into curvature, at the parameters that it ended with."""
