"""Frozen rows: old labels keep their weights while the backbone goes on."""

from __future__ import annotations

from dataclasses import dataclass

from avalanche.core import SupervisedPlugin

from cml_bench.training.context import RunContext
from cml_bench.training.freezing import FreezePlugin
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["FreezeOldRows"]


@dataclass(frozen=True)
class FreezeOldRows(Strategy):
    """Fine-tune on each experience, but leave the head's parameters of old labels as they are.

    What is forgotten then is the backbone's doing alone. With a head that gives the labels shared parameters, those are
    frozen after the first experience too. On cached features there is no backbone, and this is ``frozen``.
    """

    meta = StrategyMeta(name="freeze_old_rows", title="Frozen rows", family="baseline")

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the plugins that freeze the head, and those of a wrapper, after each experience."""
        parts = [run.model.head, run.model.wrapper]
        return [FreezePlugin(part) for part in parts if part is not None]
