"""Learning-rate schedules that begin anew with every experience."""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from cml_bench.training.config import Schedule


class SchedulePlugin(SupervisedPlugin):
    """Steps a torch scheduler after every iteration; a fresh one each experience, over its own number of steps.

    An experience of a single step has no cycle: ``one_cycle`` takes it at the peak.
    """

    def __init__(self, kind: Schedule, lr: float) -> None:
        super().__init__()
        self.kind = kind
        self.lr = lr
        self.scheduler: LRScheduler | None = None

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Build the experience's scheduler, starting from the peak learning rate."""
        groups = strategy.optimizer.param_groups
        for group in groups:
            group["lr"] = self.lr * group.get("lr_factor", 1.0)
            group.pop("initial_lr", None)
        steps = len(strategy.dataloader) * strategy.train_epochs
        self.scheduler = None
        if self.kind == "cosine" and steps:
            self.scheduler = CosineAnnealingLR(strategy.optimizer, T_max=steps)
        elif self.kind == "one_cycle" and steps > 1:
            peaks = [group["lr"] for group in groups]
            # A fifth of the steps leads up to the peak, and at least one does: torch divides by their number.
            rise = max(0.2, 2 / (steps + 1))
            self.scheduler = OneCycleLR(
                strategy.optimizer, max_lr=peaks, total_steps=steps + 1, pct_start=rise, cycle_momentum=False
            )

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Step once."""
        if self.scheduler is not None:
            self.scheduler.step()
