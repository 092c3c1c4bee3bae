"""Feature extraction: what has been learnt is never touched again."""

from __future__ import annotations

from dataclasses import dataclass

from avalanche.core import SupervisedPlugin

from cml_bench.training.context import RunContext
from cml_bench.training.freezing import FreezePlugin
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["Frozen"]


@dataclass(frozen=True)
class Frozen(Strategy):
    """Train everything on the first experience; from then on train the rows of the new labels alone.

    A parameter is trained only in the experience that brings it. The logits of an old label never change, unless the
    head lets labels see each other (``ctran``, ``csc``, ``agcn``, ``mulcon``), so nothing is forgotten, and nothing
    about an old label is learnt from later images. With a head that gives the labels shared parameters, those are
    frozen too.
    """

    meta = StrategyMeta(name="frozen", title="Frozen", family="baseline")

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the plugin that freezes the whole model after each experience."""
        return [FreezePlugin(run.model)]
