"""Strategies that replay a memory: their options, and what of them depends on the memory alone."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.storage_policy import ExemplarsBuffer
from pydantic import PositiveInt

from cml_bench.memory.budget import MemorySize
from cml_bench.memory.pixels import Store
from cml_bench.training.context import RunContext
from cml_bench.training.relabel import Reader, Relabel, make_reader
from cml_bench.training.replay import ReplayPlugin
from cml_bench.training.strategy import Strategy


@dataclass(frozen=True)
class Rehearsal(Strategy):
    """Mix each mini-batch with images drawn from a memory; a subclass says which memory.

    Attributes:
        memory_size: Images in memory, or for each label seen so far as in ``20/label``; 0 for no replay.
        replay_batch_size: Memory images a step; None for as many as a full batch of the stream.
        relabel: ``as_stored`` keeps a stored image's labels as annotated; ``pseudo``, or ``pseudo>0.8``, adds what the
            model finds with a probability over 0.9, or 0.8, after each experience; ``oracle`` gives the truth for every
            label seen since, those of the image's own experience included (KRT's released code does so silently).
        store: ``ids`` keeps ids and labels and reads images from their source; ``pixels`` keeps copies, so that a
            memory does without the source: decoded uint8 images, which weigh 3 bytes a pixel of the original, or
            features where the model reads these.
    """

    memory_size: MemorySize = 2000
    replay_batch_size: PositiveInt | None = None
    relabel: Relabel = "as_stored"
    store: Store = "ids"

    @abstractmethod
    def memory(self, run: RunContext) -> ExemplarsBuffer:
        """Return the empty memory of one run."""

    def parts(self, run: RunContext) -> tuple[ExemplarsBuffer, int | None, torch.Generator, Reader]:
        """Return what a ``MemoryPlugin`` is made of."""
        reader = make_reader(self.relabel, run, self.store)
        return self.memory(run), self.replay_batch_size, run.generator("replay"), reader

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the plugin that replays the memory, if there is to be one."""
        return [ReplayPlugin(*self.parts(run))] if self.memory_size else []
