"""Rehearsal: a memory that is shown the stream, and mini-batches of the stream joined with draws from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from avalanche.benchmarks.scenarios.online import OnlineCLExperience
from avalanche.core import SupervisedPlugin
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor

from cml_bench.streams.dataset import Batch, LabelMatrix, MultiLabelDataset
from cml_bench.streams.loading import BatchLoader, batch_of_two, join
from cml_bench.training.relabel import Reader, look


def draw(memory: MultiLabelDataset, count: int, generator: torch.Generator) -> Batch:
    """Return ``count`` different items of a memory (all of them if it holds fewer), drawn uniformly."""
    return memory.batch(drawn_rows(memory, count, generator))


def drawn_rows(memory: MultiLabelDataset, count: int, generator: torch.Generator) -> Tensor:
    """Return the indices that ``draw`` fetches."""
    return torch.randperm(len(memory), generator=generator)[:count]


def read_memory(memory: MultiLabelDataset, names: tuple[str, ...], reader: Reader | None = None) -> MultiLabelDataset:
    """Return a memory as it reads once ``names`` have been seen: as stored, or as a reader gives it."""
    return reader(memory, names) if reader else memory.widened(names)


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
        for rows in self.stream.indices():
            drawn = drawn_rows(self.memory, self.batch_size, self.generator)
            yield batch_of_two(self.stream.dataset, rows, self.memory, drawn)

    def go_on(self) -> None:
        """Let the next iteration be what is left of the stream's epoch."""
        self.stream.go_on()


@runtime_checkable
class TakesBatches(Protocol):
    """A memory that need not see an experience whole."""

    def update_from_dataset(self, dataset: MultiLabelDataset) -> None:
        """Show a dataset to the memory."""


class MemoryPlugin(SupervisedPlugin):
    """Keeps a memory: shows it the stream, and reads it for whoever replays from it.

    An experience is shown when it ends, because it is trained for several epochs. In an online stream a memory that
    takes batches is shown each one after the optimiser's step, and read anew; any other is shown each chunk.

    Attributes:
        memory: The memory as the current step may read it, in training transforms; None while it is empty.
        fresh: The stream's part of the current batch, where the memory is shown batches.

    Args:
        buffer: Any Avalanche exemplar buffer whose ``buffer`` is a ``MultiLabelDataset``.
        batch_size: Memory rows a step; None for as many as a full batch of the stream.
        generator: Draws the memory rows.
        reader: Says which labels stored images are shown with; None for those that they were stored with.
    """

    fresh: Batch

    def __init__(
        self,
        buffer: ExemplarsBuffer,
        batch_size: int | None,
        generator: torch.Generator,
        reader: Reader | None = None,
    ) -> None:
        super().__init__()
        self.buffer = buffer
        self.batch_size = batch_size
        self.generator = generator
        self.reader = reader
        self.memory: MultiLabelDataset | None = None

    def draw(self, strategy: Any, count: int | None = None) -> Batch:
        """Return a batch of the memory, ``count`` rows or as many as a step replays."""
        assert self.memory is not None
        batch = draw(self.memory, count or self.batch_size or strategy.train_mb_size, self.generator)
        batch[:] = [part.to(strategy.device) for part in batch]
        return batch

    def loss(self, strategy: Any, batch: Batch) -> Tensor:
        """Return the criterion's loss of a batch of the memory, from a forward pass of its own."""
        output = strategy.model.head_output(batch[0])
        loss: Tensor = strategy._criterion(output, batch[1], batch.sample_id, strategy.clock.train_exp_epochs)
        return loss

    def shows_batches(self, strategy: Any) -> bool:
        """Return whether the memory is shown each batch of the current experience."""
        return isinstance(strategy.experience, OnlineCLExperience) and isinstance(self.buffer, TakesBatches)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Read the memory."""
        self._read(strategy)

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Remember what came from the stream."""
        self.fresh = strategy.mbatch

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Show a batch of an online stream to the memory, in the first epoch alone."""
        if self.shows_batches(strategy) and strategy.clock.train_exp_epochs == 0:
            whole, ids, states = strategy.experience.dataset, self.fresh.sample_id, self.fresh[1].cpu()
            labels = LabelMatrix(states, whole.labels.names, whole.labels.first_new, whole.labels.record)
            self.show(strategy, MultiLabelDataset.from_rows(whole.inputs, ids, labels))
        # A batch of images is nothing to keep; a checkpoint would hold it.
        self.__dict__.pop("fresh", None)

    def show(self, strategy: Any, batch: MultiLabelDataset) -> None:
        """Show a batch to the memory."""
        assert isinstance(self.buffer, TakesBatches)
        self.buffer.update_from_dataset(batch)
        self._read(strategy)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Show a whole experience to the memory; let the reader look at the memory."""
        if not self.shows_batches(strategy):
            self.buffer.post_adapt(strategy, strategy.experience)
        look(self.reader, strategy, self.buffer.buffer)

    def _read(self, strategy: Any) -> None:
        if len(self.buffer.buffer):
            names = strategy.experience.dataset.labels.names
            self.memory = read_memory(self.buffer.buffer, names, self.reader).train()


class ReplayPlugin(MemoryPlugin):
    """Trains on the stream and a memory together.

    One forward pass and one masked mean over both, so every known label entry weighs the same (Avalanche's convention).
    """

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Join the memory to the experience's loader."""
        super().before_training_exp(strategy, **kwargs)
        if self.memory is not None and not self.shows_batches(strategy):
            size = self.batch_size or strategy.train_mb_size
            strategy.dataloader = ReplayLoader(strategy.dataloader, self.memory, size, self.generator)

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Join a draw from the memory to a batch of an online stream."""
        super().before_training_iteration(strategy, **kwargs)
        if self.memory is not None and self.shows_batches(strategy):
            strategy.mbatch = join(self.fresh, self.draw(strategy))
