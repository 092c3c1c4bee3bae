"""Riemannian walk: a running Fisher information, and how much the loss fell for each step in its metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from avalanche.core import SupervisedPlugin
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from cml_bench.labels import PRESENT, is_known
from cml_bench.models.evaluating import evaluating
from cml_bench.training.context import RunContext
from cml_bench.training.importance import Importance, negative_log_likelihood, per_image_gradients
from cml_bench.training.path import PathPenalty
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["RWalk"]

_EPSILON = torch.finfo(torch.float32).eps
"""Added to the length of a step, as in Avalanche."""


@dataclass(frozen=True)
class RWalk(Strategy):
    """Penalise moving parameters that are sensitive, and those whose moves paid off.

    The Fisher information runs along, ``F <- alpha g^2 + (1 - alpha) F``; a score adds up, over windows of ``window``
    steps, how far the loss fell through a parameter for the distance it went, ``-sum g dtheta / (F dtheta^2 / 2)``.
    After an experience the scores are averaged with the earlier ones, and the penalty is
    ``rwalk_lambda sum (F / max F + max(0, s) / max s) (theta - theta_t)^2``.

    Source: Chaudhry et al. 2018, arXiv 1801.10112, equations 6 to 8, without the replay that the paper adds.
    Departures: ``g^2`` in F is the mean over the batch of each image's squared gradient of its likelihood over known
    entries, in evaluation mode (one more pass a step); a window that the end of the experience cuts short counts too;
    parameters that arrive with new labels carry no penalty until the experience ends. Avalanche squares the batch mean,
    and leaves the model in evaluation mode for the whole training.

    Attributes:
        rwalk_lambda: Weight of the penalty.
        alpha: Weight of the newest batch in the running Fisher information.
        window: Steps between two scores.
    """

    rwalk_lambda: NonNegativeFloat = 0.1
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.9
    window: PositiveInt = 10

    meta = StrategyMeta(name="rwalk", title="RWalk", family="regularization", reference="arXiv:1801.10112")

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the RWalk plugin."""
        return [RWalkPlugin(self.rwalk_lambda, self.alpha, self.window)]


class RWalkPlugin(PathPenalty):
    """Keeps the running Fisher information and the scores.

    Attributes:
        fisher: F, by parameter name.
        scores: What the windows of this experience add up to.
        past_scores: The average of earlier experiences.
    """

    def __init__(self, rwalk_lambda: float, alpha: float, window: int) -> None:
        super().__init__(rwalk_lambda)
        self.alpha = alpha
        self.window = window
        self.fisher: Importance = {}
        self.scores: Importance = {}
        self.past_scores: Importance = {}
        self._steps = 0
        self._window_start: Importance = {}

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Start the path, its scores and its first window."""
        begins = not self.start
        super().before_training_exp(strategy, **kwargs)
        if begins:
            self.scores = {name: torch.zeros_like(value) for name, value in self.start.items()}
            self._window_start, self._steps = dict(self.start), 0

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Take the batch into the Fisher information."""
        if not self.strength:
            return
        labels = strategy.mb_y
        with evaluating(strategy.model):
            gradients = per_image_gradients(strategy.model, negative_log_likelihood)
            each = gradients(strategy.mb_x, (labels == PRESENT).float(), is_known(labels).float())
        for name, g in each.items():
            new = g.square().mean(dim=0)
            old = self.fisher.get(name, new)
            self.fisher[name] = self.alpha * new + (1 - self.alpha) * old

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        """Add the step to the path; score it where a window ends."""
        super().after_update(strategy, **kwargs)
        self._steps += 1
        if self._steps % self.window == 0:
            self._close_window(strategy.model)

    def _close_window(self, model: nn.Module) -> None:
        parameters = dict(model.named_parameters())
        for name, fallen in self.path.items():
            here = parameters[name].detach()
            distance = 0.5 * self.fisher[name] * (here - self._window_start[name]).square()
            self.scores[name] += fallen / (distance + _EPSILON)
            self._window_start[name], self.path[name] = here.clone(), torch.zeros_like(fallen)

    def consolidate(self, model: nn.Module) -> None:
        """Average the scores with the earlier ones, put both parts on one scale, and move the centre."""
        self._close_window(model)
        past = self.past_scores
        self.past_scores = {
            name: 0.5 * (past[name] + now) if name in past else now for name, now in self.scores.items()
        }
        sensitive = scaled({name: self.fisher[name] for name in self.past_scores})
        paid_off = scaled({name: score.clamp(min=0) for name, score in self.past_scores.items()})
        self.anchor(model, {name: sensitive[name] + paid_off[name] for name in sensitive})


def scaled(values: Importance) -> Importance:
    """Return values >= 0 divided by the largest of all; zeros stay zeros."""
    # A head may own a block without entries: CSC's links from the labels before the first ones.
    largest: Tensor = torch.stack([value.max() for value in values.values() if value.numel()]).max()
    return {name: value / largest if largest > 0 else value for name, value in values.items()}
