"""Cumulative training: replay with unbounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from avalanche.benchmarks import DatasetExperience

from cml_bench.streams.dataset import MultiLabelDataset, merge
from cml_bench.training.context import RunContext
from cml_bench.training.strategy import Strategy, StrategyMeta

from .joint import as_experience

__all__ = ["Cumulative"]


@dataclass(frozen=True)
class Cumulative(Strategy):
    """At each experience, go on training on all images so far, labelled as they were annotated at the time.

    An image of several experiences is one row in which known entries win. Memory is unbounded: nothing is thrown away.
    """

    meta = StrategyMeta(name="cumulative", title="Cumulative", family="bound")

    def curriculum(
        self, stream: Iterable[Sequence[DatasetExperience]], run: RunContext
    ) -> Iterator[Sequence[DatasetExperience]]:
        """Yield the union of the experiences so far."""
        past: list[MultiLabelDataset] = []
        for chunks in stream:
            past.extend(chunk.dataset for chunk in chunks)
            yield [as_experience(merge(past))]
