"""Naive fine-tuning: the lower bound."""

from __future__ import annotations

from dataclasses import dataclass

from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["Naive"]


@dataclass(frozen=True)
class Naive(Strategy):
    """Fine-tune on each experience and do nothing else.

    What it forgets depends on the criterion: under ``bce`` old columns get no gradient of their own (weight decay and
    the optimiser's moments still move them a little), under ``assume_negative`` with scope ``seen`` every new image
    teaches that the old labels are absent.
    """

    meta = StrategyMeta(name="naive", title="Naive", family="baseline")
