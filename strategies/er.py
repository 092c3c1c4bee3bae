"""Experience replay with a reservoir."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avalanche.core import SupervisedPlugin
from pydantic import NonNegativeInt, PositiveInt

from cml_bench.memory.reservoir import ReservoirBuffer
from cml_bench.training.context import RunContext
from cml_bench.training.replay import ReplayPlugin
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["ER"]


@dataclass(frozen=True)
class ER(Strategy):
    """Experience replay: mix each mini-batch with images drawn from a reservoir of past ones.

    Source: Chaudhry et al. 2019, arXiv 1902.10486. Departure: the reservoir is updated after each experience rather
    than at every step, because experiences are trained for several epochs.

    Attributes:
        memory_size: Images in memory.
        replay_batch_size: Memory images a step; None for as many as stream images.
        relabel: ``as_stored`` keeps a stored image's labels as annotated, ``oracle`` gives it the truth for every label
            seen since (KRT's released code does so silently).
    """

    memory_size: NonNegativeInt = 2000
    replay_batch_size: PositiveInt | None = None
    relabel: Literal["as_stored", "oracle"] = "as_stored"

    meta = StrategyMeta(name="er", title="ER", family="replay", reference="arXiv:1902.10486")

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the replay plugin over a reservoir."""
        buffer = ReservoirBuffer(self.memory_size, run.generator("reservoir"))
        oracle = run.oracle if self.relabel == "oracle" else None
        return [ReplayPlugin(buffer, self.replay_batch_size, run.generator("replay"), oracle)]
