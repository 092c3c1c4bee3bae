"""Experience replay from iCaRL's exemplars."""

from __future__ import annotations

from dataclasses import dataclass

from cml_bench.memory.herding import HerdingMemory
from cml_bench.training.context import RunContext
from cml_bench.training.rehearsal import Rehearsal
from cml_bench.training.strategy import StrategyMeta

__all__ = ["ERHerding"]


@dataclass(frozen=True)
class ERHerding(Rehearsal):
    """Experience replay from exemplars chosen by herding after each experience.

    The k-th exemplar of a label is ``argmin_x ||mu - (S + f_x) / k||`` over the images that show it, with f_x the
    backbone's pooled feature at length 1, mu the mean of all of them and S the sum of those chosen before.

    Source: the exemplars of iCaRL, Rebuffi et al. 2017, arXiv 1611.07725, for each label its own list, see
    ``HerdingMemory``; the classifier and the loss are the method's. ``memory_size=20/label relabel=oracle`` is the
    rehearsal of KRT's released code, but for repeated picks.

    Attributes:
        refill: Whether a label's list passes over images that are on another label's, so that the memory is filled.
    """

    refill: bool = False

    meta = StrategyMeta(name="er_herding", title="ER (herding)", family="replay", reference="arXiv:1611.07725")

    def memory(self, run: RunContext) -> HerdingMemory:
        """Return a memory filled by herding."""
        return HerdingMemory(self.memory_size, refill=self.refill)
