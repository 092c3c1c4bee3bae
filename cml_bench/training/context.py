"""What a strategy may know of the run it is part of."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch

from cml_bench.losses.criterion import Criterion
from cml_bench.models.model import MultiLabelModel
from cml_bench.streams.dataset import MultiLabelDataset
from cml_bench.training.config import TrainingConfig

Oracle = Callable[[MultiLabelDataset, tuple[str, ...]], MultiLabelDataset]


@dataclass(frozen=True)
class RunContext:
    """One run, as its strategy sees it.

    Attributes:
        seed: The job's seed.
        training: Training settings.
        model: The model to train.
        criterion: The criterion that the template starts with; a strategy may put another in its place, which is the
            template's ``_criterion`` then.
        oracle: Gives a dataset its true labels. Only for bounds and options that say ``oracle``.
    """

    seed: int
    training: TrainingConfig
    model: MultiLabelModel
    criterion: Criterion
    oracle: Oracle

    def generator(self, purpose: str) -> torch.Generator:
        """Return a private generator: the same for the same job and purpose, independent across purposes."""
        return private_generator(self.seed, purpose)


def private_generator(seed: int, purpose: str) -> torch.Generator:
    """Return a CPU generator seeded from a job's seed and the name of what it draws."""
    # crc32 rather than hash(): stable between processes.
    mixed = zlib.crc32(f"{seed}:{purpose}".encode())
    return torch.Generator().manual_seed((seed << 32) + mixed)
