"""Experience replay with a reservoir."""

from __future__ import annotations

from dataclasses import dataclass

from cml_bench.memory.reservoir import ReservoirBuffer
from cml_bench.training.context import RunContext
from cml_bench.training.rehearsal import Rehearsal
from cml_bench.training.strategy import StrategyMeta

__all__ = ["ER"]


@dataclass(frozen=True)
class ER(Rehearsal):
    """Experience replay: mix each mini-batch with images drawn from a reservoir of past ones.

    The loss is ``L(batch + draw)``, the criterion's over the rows of both at once. With a fixed ``memory_size`` and
    images that come once, each of the N seen is in memory with probability ``min(1, memory_size / N)``. One that comes
    back (``assignment=overlap``) is drawn anew unless it is stored, and so is likelier to be there than one that came
    once.

    Source: Chaudhry et al. 2019, arXiv 1902.10486. In an online stream the reservoir is updated after each step, as
    there; departure: else after each experience, because experiences are trained for several epochs.
    """

    meta = StrategyMeta(name="er", title="ER", family="replay", reference="arXiv:1902.10486")

    def memory(self, run: RunContext) -> ReservoirBuffer:
        """Return a reservoir."""
        return ReservoirBuffer(self.memory_size, run.generator("reservoir"))
