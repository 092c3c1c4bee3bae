"""Mini-batches fetched whole: one gather a batch instead of one call an item."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from cml_bench.labels import widen
from cml_bench.streams.dataset import Batch, MultiLabelDataset


@runtime_checkable
class Resumable(Protocol):
    """A loader that can be stored in the middle of an epoch."""

    def go_on(self) -> None:
        """Let the next iteration be what is left of the epoch in which the loader was stored."""


class BatchLoader:
    """Iterates over a dataset in batches; every iteration is one epoch.

    Attributes:
        under_way: Order of the epoch that is being given out, and how many of its batches have been; None between
            epochs.

    Args:
        dataset: What to read.
        batch_size: Images a batch; the last one may be smaller.
        generator: Shuffles with it if given, else keeps the order. Private: the global generator is not touched.
    """

    def __init__(
        self,
        dataset: MultiLabelDataset,
        batch_size: int,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.generator = generator
        self.under_way: tuple[Tensor, int] | None = None
        self._goes_on = False

    def __len__(self) -> int:
        """Return the number of batches an epoch."""
        return math.ceil(len(self.dataset) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Yield one epoch, or what is left of one."""
        for indices in self.indices():
            yield self.dataset.batch(indices)

    def indices(self) -> Iterator[Tensor]:
        """Yield the (B,) indices into the dataset of each batch of an epoch, or of what is left of it."""
        order, first = self.under_way if self._goes_on and self.under_way else (self._order(), 0)
        self._goes_on = False
        for number, chunk in enumerate(order.split(self.batch_size)[first : len(self)], start=first + 1):
            self.under_way = order, number
            yield chunk
        self.under_way = None

    def _order(self) -> Tensor:
        count = len(self.dataset)
        return torch.arange(count) if self.generator is None else torch.randperm(count, generator=self.generator)

    def go_on(self) -> None:
        """Let the next iteration be what is left of the epoch that is under way."""
        self._goes_on = True


def batch_of_two(first: MultiLabelDataset, rows: Tensor, second: MultiLabelDataset, more: Tensor) -> Batch:
    """Fetch items of two datasets as one batch: at once if both read the same images, which saves a copy."""
    if second.inputs is not first.inputs or second.group != first.group:
        return join(first.batch(rows), second.batch(more))
    ids = torch.cat([first.sample_ids.data.index_select(0, rows), second.sample_ids.data.index_select(0, more)])
    labels = first.labels.data.index_select(0, rows), second.labels.data.index_select(0, more)
    width = max(part.shape[1] for part in labels)
    fetch = functools.partial(first.inputs.fetch, ids, training=first.group == "train")
    states = torch.cat([widen(part, width) for part in labels])
    return Batch(fetch(), states, torch.zeros(len(ids), dtype=torch.int64), ids, fetch)


def join(first: Batch, second: Batch) -> Batch:
    """Stack two batches on each other; the narrower labels are padded with ``OUT_OF_SCOPE``."""
    width = max(first[1].shape[1], second[1].shape[1])
    return Batch(
        torch.cat([first[0], second[0]]),
        torch.cat([widen(first[1], width), widen(second[1], width)]),
        torch.cat([first[2], second[2]]),
        torch.cat([first.sample_id, second.sample_id]),
        None if first.again is None or second.again is None else functools.partial(_both, first.again, second.again),
    )


def _both(first: Callable[[], Tensor], second: Callable[[], Tensor]) -> Tensor:
    return torch.cat([first(), second()])
