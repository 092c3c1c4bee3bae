"""Partitioning reservoir sampling."""

from __future__ import annotations

from dataclasses import dataclass

from cml_bench.memory.prs import PRSMemory
from cml_bench.training.context import RunContext
from cml_bench.training.rehearsal import Rehearsal
from cml_bench.training.strategy import StrategyMeta

__all__ = ["PRS"]


@dataclass(frozen=True)
class PRS(Rehearsal):
    """Replay from a memory whose label shares follow a power of the stream's.

    Label i, shown by n_i images so far, is to have the share ``p_i = n_i^rho / sum_j n_j^rho`` of the memory's labels.
    A full memory takes an image with labels L with probability ``sum_L w_i min(1, memory_size p_i / n_i)``,
    ``w = softmax(-n)`` over L, in place of one that shows a label drawn by ``softmax(l_i - p_i sum_j l_j)``, l_i images
    being stored of label i.

    Source: Kim et al. 2020, arXiv 2009.03632; which of that label's images goes, and the departures, are told in
    ``PRSMemory``. The released training is online, ten images a batch, with gradients clipped at 5, which is not done
    here. In an online stream the memory is updated after each step, else in one pass after each experience.

    Attributes:
        rho: Power of allocation: 0 for equal shares, 1 for the stream's. Released: -0.03 for COCOseq, 0.02 for
            NUS-WIDEseq.
        official_quirks: Keep the oddities of the released memory.
    """

    rho: float = -0.03
    official_quirks: bool = False

    meta = StrategyMeta(name="prs", title="PRS", family="replay", reference="arXiv:2009.03632")

    def memory(self, run: RunContext) -> PRSMemory:
        """Return a memory partitioned by label."""
        return PRSMemory(self.memory_size, run.generator("memory"), self.rho, official_quirks=self.official_quirks)
