"""Optimizing class distribution in memory."""

from __future__ import annotations

from dataclasses import dataclass

from cml_bench.memory.ocdm import Divergence, OCDMMemory
from cml_bench.training.context import RunContext
from cml_bench.training.rehearsal import Rehearsal
from cml_bench.training.strategy import StrategyMeta

__all__ = ["OCDM"]


@dataclass(frozen=True)
class OCDM(Rehearsal):
    """Replay from a memory that keeps the images whose labels come closest to a target distribution.

    Label i, shown by n_i images so far, is to have the share ``p_i = n_i^rho / sum_j n_j^rho`` of the memory's labels.
    Images come in a batch at a time; while there are too many, the one goes that is ``argmin_j KL(q_j || p)``, with q_j
    the shares without image j.

    Source: Liang and Li 2022, arXiv 2209.11469; what of the rule is inferred is told in ``OCDMMemory``. In an online
    stream the memory is updated after each step, else in one pass after each experience.

    Attributes:
        rho: Power of allocation: 0 for equal shares, 1 for the stream's.
        divergence: ``memory_to_target`` is KL(memory || target); ``target_to_memory`` protects a label's last image.
    """

    rho: float = 0.0
    divergence: Divergence = "memory_to_target"

    meta = StrategyMeta(name="ocdm", title="OCDM", family="replay", reference="arXiv:2209.11469")

    def memory(self, run: RunContext) -> OCDMMemory:
        """Return a memory close to the target distribution."""
        return OCDMMemory(self.memory_size, run.generator("memory"), self.rho, self.divergence)
