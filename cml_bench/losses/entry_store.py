"""One number for each of some label entries, found by sample id and column: state that follows an image anywhere."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError

_COLUMNS = 2**20
"""Labels that a key has room for."""


def keys_of(sample_ids: Tensor, width: int) -> Tensor:
    """Return the (B, width) int64 keys of the entries of images with (B,) ids, in columns from 0."""
    return sample_ids[:, None] * _COLUMNS + torch.arange(width, device=sample_ids.device)


def required(sample_ids: Tensor | None, criterion: str) -> Tensor:
    """Return the ids of a batch.

    Raises:
        CmlBenchError: If there are none.
    """
    if sample_ids is None:
        raise CmlBenchError(f"loss={criterion} keeps numbers by sample id, and this strategy gives none: take another")
    return sample_ids


class EntryStore(nn.Module):
    """Numbers by entry. Only entries that were put in take memory, and a batch is looked up in one search.

    Args:
        missing: What is found of an entry that was never put in; its type is that of the numbers.
    """

    keys: Tensor
    numbers: Tensor

    def __init__(self, missing: float) -> None:
        super().__init__()
        self.missing = missing
        self.register_buffer("keys", torch.empty(0, dtype=torch.int64))
        self.register_buffer("numbers", torch.empty(0, dtype=torch.tensor(missing).dtype))

    def __len__(self) -> int:
        """Return how many entries were put in."""
        return len(self.keys)

    @property
    def sample_ids(self) -> Tensor:
        """Ascending ids of the images of which there are entries."""
        ids: Tensor = (self.keys // _COLUMNS).unique_consecutive()
        return ids

    def find(self, keys: Tensor) -> Tensor:
        """Return the numbers of entries with keys of any shape."""
        if not len(self):
            return torch.full_like(keys, self.missing, dtype=self.numbers.dtype)
        places = torch.searchsorted(self.keys, keys).clamp(max=len(self) - 1)
        return torch.where(self.keys[places] == keys, self.numbers[places], self.missing)

    def put(self, keys: Tensor, numbers: Tensor) -> None:
        """Add entries that are not there yet, with (m,) keys and numbers."""
        together = torch.cat([self.keys, keys.to(self.keys.device)])
        self.keys, order = together.sort()
        self.numbers = torch.cat([self.numbers, numbers.to(self.numbers)])[order]
