"""Rehearsal: mini-batches of the stream joined with mini-batches of a memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.storage_policy import ExemplarsBuffer

from cml_bench.streams.dataset import Batch, MultiLabelDataset
from cml_bench.streams.loading import BatchLoader, join
from cml_bench.training.context import Oracle


def draw(memory: MultiLabelDataset, count: int, generator: torch.Generator) -> Batch:
    """Return ``count`` different items of a memory (all of them if it holds fewer), drawn uniformly."""
    return memory.batch(torch.randperm(len(memory), generator=generator)[:count])


def read_memory(memory: MultiLabelDataset, names: tuple[str, ...], oracle: Oracle | None = None) -> MultiLabelDataset:
    """Return a memory as it reads once ``names`` have been seen: as stored, or truly labelled by an oracle."""
    return oracle(memory, names) if oracle else memory.widened(names)


class ReplayLoader:
    """A stream loader whose batches end with rows from a memory; memory rows are padded to the stream's width."""

    def __init__(
        self, stream: BatchLoader, memory: MultiLabelDataset, batch_size: int, generator: torch.Generator
    ) -> None:
        self.stream = stream
        self.memory = memory
        self.batch_size = batch_size
        self.generator = generator

    def __len__(self) -> int:
        """Return the number of batches an epoch: that of the stream."""
        return len(self.stream)

    def __iter__(self) -> Iterator[Batch]:
        """Yield one epoch of the stream, each batch with its own draw from the memory."""
        for batch in self.stream:
            yield join(batch, draw(self.memory, self.batch_size, self.generator))


class ReplayPlugin(SupervisedPlugin):
    """Trains on the stream and a memory together, and updates the memory after each experience.

    One forward pass and one masked mean over both, so every known label entry weighs the same (Avalanche's convention).

    Args:
        buffer: Any Avalanche exemplar buffer whose ``buffer`` is a ``MultiLabelDataset``.
        batch_size: Memory rows a step; None for as many as stream rows.
        generator: Draws the memory rows.
        oracle: If given, stored images are shown with their true labels for everything seen so far
            (``relabel="oracle"``: what KRT's released code does silently).
    """

    def __init__(
        self,
        buffer: ExemplarsBuffer,
        batch_size: int | None,
        generator: torch.Generator,
        oracle: Oracle | None = None,
    ) -> None:
        super().__init__()
        self.oracle = oracle
        self.buffer = buffer
        self.batch_size = batch_size
        self.generator = generator

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Join the memory to the experience's loader."""
        if len(self.buffer.buffer):
            names = strategy.experience.dataset.labels.names
            memory = read_memory(self.buffer.buffer, names, self.oracle)
            size = self.batch_size or strategy.train_mb_size
            strategy.dataloader = ReplayLoader(strategy.dataloader, memory.train(), size, self.generator)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Show the experience to the memory."""
        self.buffer.post_adapt(strategy, strategy.experience)
