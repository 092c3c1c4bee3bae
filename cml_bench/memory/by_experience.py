"""A memory that is shared out equally between experiences."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.benchmarks import DatasetExperience
from avalanche.training.storage_policy import ExemplarsBuffer

from cml_bench.memory.budget import images_allowed
from cml_bench.memory.reservoir import ReservoirBuffer
from cml_bench.streams.dataset import MultiLabelDataset, merge
from cml_bench.streams.timeline import ends_experience


class ExperienceMemory(ExemplarsBuffer):
    """One reservoir an experience, with equal shares of the size; shares shrink as experiences come.

    Avalanche's ``ExperienceBalancedBuffer`` is the like; it draws from the global generator and takes every chunk of an
    online stream for an experience.

    Attributes:
        parts: The reservoirs, in the order of the experiences.

    Args:
        size: Images the memory may hold, or ``"20/label"`` for as many a label seen.
        generator: Draws which images stay.
    """

    def __init__(self, size: int | str, generator: torch.Generator) -> None:
        super().__init__(images_allowed(size, 0))
        self.size = size
        self.generator = generator
        self.parts: list[ReservoirBuffer] = []
        self._open = False

    @property
    def buffer(self) -> MultiLabelDataset:
        """All that is stored; an image of several experiences is one row in which known entries win."""
        stored = [part.buffer for part in self.parts if len(part.buffer)]
        return merge(stored) if stored else super().buffer

    def past(self, names: tuple[str, ...]) -> list[MultiLabelDataset]:
        """Return what is stored of each experience that has ended, as it reads once ``names`` have been seen."""
        ended = self.parts[:-1] if self._open else self.parts
        return [part.buffer.widened(names) for part in ended if len(part.buffer)]

    def post_adapt(self, agent_state: Any, exp: DatasetExperience) -> None:
        """Show an experience, or a chunk of one, to its reservoir."""
        if not self._open:
            self.parts.append(ReservoirBuffer(0, self.generator))
        self._open = not ends_experience(exp)
        self._share_out(agent_state, images_allowed(self.size, len(exp.dataset.labels.names)))
        self.parts[-1].post_adapt(agent_state, exp)

    def resize(self, strategy: Any, new_size: int) -> None:
        """Change the size, for good."""
        self.size = new_size
        self._share_out(strategy, new_size)

    def _share_out(self, strategy: Any, images: int) -> None:
        """Give each experience its share; the first get what does not divide."""
        self.max_size = images
        share, rest = divmod(images, max(1, len(self.parts)))
        for k, part in enumerate(self.parts):
            part.resize(strategy, share + (k < rest))
