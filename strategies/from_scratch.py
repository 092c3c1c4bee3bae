"""From scratch: no transfer at all."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from avalanche.core import SupervisedPlugin

from cml_bench.models.model import nothing_learnt
from cml_bench.streams.timeline import begins_experience
from cml_bench.training.context import RunContext
from cml_bench.training.optimizer import make_optimizer
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["FromScratch"]


@dataclass(frozen=True)
class FromScratch(Strategy):
    """Start every experience from the same untrained model, and train on that experience alone.

    The reference of forward transfer (arXiv 2302.00487): what an experience teaches without what came before it.
    Everything is reset: weights, batch-norm statistics, optimiser, head, and what the criterion has learnt (Avalanche's
    ``FromScratchTrainingPlugin`` keeps the rows of a grown head and the statistics).
    """

    meta = StrategyMeta(name="from_scratch", title="From scratch", family="baseline", federated=False)

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the plugin that puts the untrained model back."""
        return [FreshStartPlugin(run)]


class FreshStartPlugin(SupervisedPlugin):
    """Puts an untrained model, criterion and optimiser in place at the start of each experience but the first."""

    def __init__(self, run: RunContext) -> None:
        super().__init__()
        self.untrained, self.criterion = copy.deepcopy(run.model), copy.deepcopy(run.criterion)
        self.training = run.training

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Start anew; a later chunk of an online experience goes on with its model."""
        first_chunk = begins_experience(strategy.experience)
        if strategy.clock.train_exp_counter == 0 or not first_chunk:
            return
        fresh = copy.deepcopy(self.untrained).train()
        with nothing_learnt(fresh):
            fresh.adaptation(strategy.experience)
        # The model stays the same object: others hold it.
        for name, part in fresh.named_children():
            setattr(strategy.model, name, part.to(strategy.device))
        strategy._criterion = copy.deepcopy(self.criterion)
        strategy.optimizer = make_optimizer(self.training, strategy.model)
        # Avalanche compares with the parameters it knew; those are gone.
        strategy.optimized_param_id = None
        strategy.start_criterion()
