"""What a model reads of an image: rows of a source turned into batches of tensors."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from cml_bench.data.source import Source

Transform = Callable[[Tensor], Tensor]


class Inputs(Protocol):
    """A table of model inputs, addressed by source row."""

    @property
    def augments(self) -> bool:
        """Whether two fetches of a row in training differ."""
        ...

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def fetch(self, rows: Tensor, *, training: bool) -> Tensor:
        """Return the (B, ...) float32 inputs of (B,) rows, augmented if ``training`` and the table augments."""
        ...


class TensorInputs:
    """Inputs that lie in one tensor: cached features, or images that need no augmentation.

    A float16 table (a memory-mapped feature cache, say) is cast to float32 batch by batch.
    """

    augments = False

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.table)

    def fetch(self, rows: Tensor, *, training: bool) -> Tensor:
        """Gather rows; ``training`` makes no difference."""
        return self.table.index_select(0, rows).to(torch.float32)


class InMemoryImages(TensorInputs):
    """Small images that need no augmentation: read and transformed once, then gathered from one tensor.

    Args:
        images: Reads and transforms them.
    """

    def __init__(self, images: ImageInputs) -> None:
        super().__init__(images.fetch(torch.arange(len(images)), training=False))
        self.images = images


class ImageInputs:
    """Images read from their source one by one and transformed, with augmentation in training only.

    Args:
        source: Where images come from.
        evaluation: uint8 (3, H, W) image to float input.
        training: The same with augmentation; the evaluation transform if None.
        num_workers: Threads that read and decode; transforms run in the caller's thread, so that their random draws
            come in order.
    """

    def __init__(
        self, source: Source, evaluation: Transform, training: Transform | None = None, num_workers: int = 1
    ) -> None:
        self.source = source
        self.evaluation = evaluation
        self.training = training or evaluation
        self.augments = training is not None
        self._pool = ThreadPoolExecutor(num_workers)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.source)

    def fetch(self, rows: Tensor, *, training: bool) -> Tensor:
        """Read, decode and transform; raises CmlBenchError naming the file that cannot be read."""
        transform = self.training if training else self.evaluation
        return torch.stack([transform(image) for image in self._pool.map(self.source.load, rows.tolist())])
