"""What a user of Avalanche may have lying around: a strategy class, a plugin, a factory."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import Naive


class Halfway(Naive):
    """Scale the loss; a factor of 1 is Avalanche's own Naive."""

    def __init__(self, *, factor: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def criterion(self) -> torch.Tensor:
        return self.factor * super().criterion()


class Backwards(Naive):
    """Evaluate the last image first."""

    def eval_dataset_adaptation(self, **kwargs: Any) -> None:
        super().eval_dataset_adaptation(**kwargs)
        self.adapted_dataset = self.adapted_dataset.subset(range(len(self.adapted_dataset))[::-1])


class ClipGradients(SupervisedPlugin):
    """Clip the norm of the gradient."""

    def __init__(self, max_norm: float = 1.0) -> None:
        super().__init__()
        self.max_norm = max_norm

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        torch.nn.utils.clip_grad_norm_(strategy.model.parameters(), self.max_norm)


def clipped_naive(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: Any,
    train_mb_size: int,
    train_epochs: int,
    plugins: list[SupervisedPlugin],
    max_norm: float = 1.0,
) -> Naive:
    """Build a learner from what it asks for."""
    return Naive(
        model=model,
        optimizer=optimizer,
        criterion=criterion,
        train_mb_size=train_mb_size,
        train_epochs=train_epochs,
        plugins=[ClipGradients(max_norm), *plugins],
    )


def not_a_learner() -> int:
    """Return something that cannot train."""
    return 1
