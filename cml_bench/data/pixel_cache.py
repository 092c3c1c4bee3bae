"""Decoded images of one size on disk: read, decoded and resized once, then shared by every job that trains on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from cml_bench.data.cache import PIXELS, CacheKey, cached_rows
from cml_bench.data.images import squash
from cml_bench.data.reading import read_ahead
from cml_bench.data.source import Source

CROP_MARGIN = 8 / 7
"""Side of the stored square over the model's where crops are cut from it (256 / 224)."""

_BLOCK = 64
_SIZE_BYTES = 8
_RULE = "squashed, antialiased, rounded; height and width behind"


def cached_pixels(
    source: Source,
    side: int,
    *,
    cache_dir: Path,
    progress: Callable[[int], object] | None = None,
    workers: int = 2,
) -> Tensor:
    """Return every image of a source, squashed to a square of uint8, from the cache if they are there.

    A row holds the pixels of an image and then its own height and width, from which random crops know the shape that
    the square has lost. Images are known by ``Source.cache_key``: files that change are read anew.

    Args:
        source: The images.
        side: Side of the square in pixels.
        cache_dir: Folder of the cache.
        progress: Called with the number of images done after each block.
        workers: Threads that read, decode and resize.

    Returns:
        (N, 3 * side * side + 8) uint8 in the source's row order, memory-mapped; see ``unpack``.

    Raises:
        CmlBenchError: If an image cannot be read, or the cache cannot be written.
    """
    key: CacheKey = {**source.cache_key, "side": side, "rule": _RULE}

    def load(row: int) -> Tensor:
        image = source.load(row)
        pixels = squash(image.float(), side).round().clamp(0, 255).to(torch.uint8)
        size = torch.tensor(image.shape[-2:], dtype=torch.int32)
        return torch.cat([pixels.flatten(), size.view(torch.uint8)])

    def blocks(done: int) -> Iterator[Tensor]:
        for rows in read_ahead(load, len(source), _BLOCK, workers, start=done):
            yield torch.stack(rows)
            done += len(rows)
            if progress is not None:
                progress(done)

    return cached_rows(cache_dir, key, len(source), blocks, PIXELS)


def unpack(rows: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return the (B, 3, side, side) uint8 images and (B, 2) int32 original heights and widths of (B, L) rows."""
    pixels, sizes = rows.split([3 * side**2, _SIZE_BYTES], dim=1)
    # Copied, or the sizes of a single row would begin in the middle of a number.
    return pixels.view(-1, 3, side, side), sizes.clone(memory_format=torch.contiguous_format).view(torch.int32)


class PixelInputs:
    """Images from a pixel cache, transformed batch by batch, on the device where the model is.

    Args:
        source: Where the images came from.
        table: What ``cached_pixels`` returned.
        side: Side of the stored squares.
        evaluation: (B, 3, side, side) uint8 images to float inputs.
        training: The same with augmentation, told the (B, 2) original sizes as well; no augmentation if None.
        device: Where the transforms run; inputs are returned there.
    """

    def __init__(
        self,
        source: Source,
        table: Tensor,
        side: int,
        evaluation: Callable[[Tensor], Tensor],
        training: Callable[[Tensor, Tensor], Tensor] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.source = source
        self.table = table
        self.side = side
        self.evaluation = evaluation
        self.training = training
        self.augments = training is not None
        self.device = torch.device(device)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.table)

    def fetch(self, rows: Tensor, *, training: bool) -> Tensor:
        """Return the (B, 3, size, size) float32 inputs of (B,) rows, augmented in training if the table augments."""
        # Gathered where a GPU can read it: memory of its own would be copied once more.
        shape, pinned = (len(rows), self.table.shape[1]), self.device.type == "cuda"
        stored = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        return self.transform(torch.index_select(self.table, 0, rows, out=stored), training=training)

    def transform(self, stored: Tensor, *, training: bool) -> Tensor:
        """Return the float32 inputs of (B, L) stored rows."""
        _, sizes = unpack(stored, self.side)
        if self.device.type == "cuda":
            stored = stored.pin_memory()
        # Whole rows travel: pixels alone have gaps, which would be closed on the way, in memory that is not pinned.
        images, _ = unpack(stored.to(self.device, non_blocking=True), self.side)
        return self.training(images, sizes) if training and self.training is not None else self.evaluation(images)
