"""Averaged GEM: no step may raise the loss on a draw from the memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from pydantic import PositiveInt
from torch import Tensor

from cml_bench.memory.budget import MemorySize
from cml_bench.memory.by_experience import ExperienceMemory
from cml_bench.streams.dataset import merge
from cml_bench.training.context import RunContext
from cml_bench.training.reference_gradients import ReferenceGradientPlugin
from cml_bench.training.replay import draw
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["AGEM"]


@dataclass(frozen=True)
class AGEM(Strategy):
    """Take off the part of each step's gradient that contradicts the gradient on images drawn from the memory.

    ``g <- g - (g . r / r . r) r`` where ``g . r < 0``, with g the step's gradient and r the criterion's on the draw.

    Source: Chaudhry et al. 2019, arXiv 1812.00420, section 4, equation 11. Departures: the draw is uniform over the
    images stored of past experiences; the reference counts what the criterion does (known entries alone, unless
    it assumes others absent) and is taken in evaluation mode.

    Attributes:
        memory_size: Images in memory, or for each label seen so far as in ``20/label``; equal shares an experience.
        replay_batch_size: Memory images a step; None for as many as a full batch of the stream.
    """

    memory_size: MemorySize = 2000
    replay_batch_size: PositiveInt | None = None

    meta = StrategyMeta(name="agem", title="A-GEM", family="replay", reference="arXiv:1812.00420")

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the A-GEM plugin over a memory by experience."""
        memory = ExperienceMemory(self.memory_size, run.generator("reservoir"))
        return [AGEMPlugin(memory, self.replay_batch_size, run.generator("replay"))]


class AGEMPlugin(ReferenceGradientPlugin):
    """One reference, on images drawn from all past experiences."""

    def __init__(self, memory: ExperienceMemory, batch_size: int | None, generator: torch.Generator) -> None:
        super().__init__(memory)
        self.batch_size = batch_size
        self.generator = generator

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Read the memory for the experience, all past ones together."""
        super().before_training_exp(strategy, **kwargs)
        self.past = [merge(self.past).eval()] if self.past else []

    def references(self, strategy: Any) -> list[Tensor]:
        """Return the gradient on one draw."""
        batch = draw(self.past[0], self.batch_size or strategy.train_mb_size, self.generator)
        return [self.gradient_on(strategy, [batch])]

    def correct(self, gradient: Tensor, references: Tensor) -> Tensor:
        """Return the gradient without its part along the reference."""
        return without(gradient, references[0])


def without(gradient: Tensor, reference: Tensor) -> Tensor:
    """Return ``g - (g . r / r . r) r``."""
    return gradient - (gradient @ reference) / (reference @ reference) * reference
