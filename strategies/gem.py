"""Gradient episodic memory: no step may raise the loss on any past experience."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from avalanche.core import SupervisedPlugin
from pydantic import NonNegativeFloat
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import nnls
from torch import Tensor

from cml_bench.memory.budget import MemorySize
from cml_bench.memory.by_experience import ExperienceMemory
from cml_bench.streams.loading import BatchLoader
from cml_bench.training.context import RunContext
from cml_bench.training.reference_gradients import ReferenceGradientPlugin
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["GEM"]

_RIDGE = 1e-3
"""Added to the diagonal of the dual, as in the authors' code: it makes the solution unique."""


@dataclass(frozen=True)
class GEM(Strategy):
    """Project each step's gradient so that it agrees with the gradient on the memory of every past experience.

    Where an entry of ``G g`` is negative, with g the step's gradient and a row of G for each reference, g becomes
    ``g + G^T v``: v minimises ``v^T (G G^T + 1e-3 I) v / 2 + (G g)^T v`` over ``v >= margin``. Costs a pass over the
    whole memory at every step.

    Source: Lopez-Paz and Ranzato 2017, arXiv 1706.08840, section 3, with the ridge of the authors' code.
    Departures: the memory is a reservoir an experience (the paper keeps the last images); references count
    what the criterion does (known entries alone, unless it assumes others absent), in evaluation mode.

    Attributes:
        memory_size: Images in memory, or for each label seen so far as in ``20/label``; equal shares an experience.
        margin: Least weight of each reference in a corrected gradient (``memory_strength``), which favours old labels.
    """

    memory_size: MemorySize = 2000
    margin: NonNegativeFloat = 0.5

    meta = StrategyMeta(name="gem", title="GEM", family="replay", reference="arXiv:1706.08840")

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the GEM plugin over a memory by experience."""
        return [GEMPlugin(ExperienceMemory(self.memory_size, run.generator("reservoir")), self.margin)]


class GEMPlugin(ReferenceGradientPlugin):
    """One reference for each past experience, over all that is stored of it."""

    def __init__(self, memory: ExperienceMemory, margin: float) -> None:
        super().__init__(memory)
        self.margin = margin

    def references(self, strategy: Any) -> list[Tensor]:
        """Return one gradient for each past experience."""
        return [self.gradient_on(strategy, BatchLoader(part, strategy.eval_mb_size)) for part in self.past]

    def correct(self, gradient: Tensor, references: Tensor) -> Tensor:
        """Return the projected gradient."""
        return project(gradient, references, self.margin)


def project(gradient: Tensor, references: Tensor, margin: float) -> Tensor:
    """Return ``g + G^T v`` with v the solution of GEM's dual.

    ``min_v v^T (G G^T + 1e-3 I) v / 2 + (G g)^T v`` subject to ``v >= margin``. With ``v = margin + u`` and a Cholesky
    factor of the matrix it is a non-negative least-squares problem in u, which SciPy solves exactly (upstream's
    ``solve_quadprog`` needs a solver that Avalanche does not install).

    Args:
        gradient: (P,) g.
        references: (k, P) G.
        margin: Least entry of v.
    """
    exact = references.double()
    gram = (exact @ exact.T).cpu().numpy() + _RIDGE * np.eye(len(references))
    slope = (exact @ gradient.double()).cpu().numpy() + gram.sum(axis=1) * margin
    factor = cholesky(gram, lower=True)
    u, _ = nnls(factor.T, -solve_triangular(factor, slope, lower=True))
    return gradient + (torch.from_numpy(u + margin).to(exact) @ exact).to(gradient)
