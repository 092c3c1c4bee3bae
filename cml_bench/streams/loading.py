"""Mini-batches fetched whole: one gather a batch instead of one call an item."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from cml_bench.labels import widen
from cml_bench.streams.dataset import Batch, MultiLabelDataset


class BatchLoader:
    """Iterates over a dataset in batches; every iteration is one epoch.

    Args:
        dataset: What to read.
        batch_size: Images a batch; the last one may be smaller.
        generator: Shuffles with it if given, else keeps the order. Private: the global generator is not touched.
        drop_last: Leave out a last batch that is not full.
    """

    def __init__(
        self,
        dataset: MultiLabelDataset,
        batch_size: int,
        *,
        generator: torch.Generator | None = None,
        drop_last: bool = False,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.generator = generator
        self.drop_last = drop_last

    def __len__(self) -> int:
        """Return the number of batches an epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        """Yield one epoch."""
        count = len(self.dataset)
        order = torch.arange(count) if self.generator is None else torch.randperm(count, generator=self.generator)
        for chunk in order.split(self.batch_size)[: len(self)]:
            yield self.dataset.batch(chunk)


def join(first: Batch, second: Batch) -> Batch:
    """Stack two batches on each other; the narrower labels are padded with ``OUT_OF_SCOPE``."""
    width = max(first[1].shape[1], second[1].shape[1])
    return Batch(
        torch.cat([first[0], second[0]]),
        torch.cat([widen(first[1], width), widen(second[1], width)]),
        torch.cat([first[2], second[2]]),
        torch.cat([first.sample_id, second.sample_id]),
    )
