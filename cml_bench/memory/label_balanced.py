"""Label-balanced reservoir: as many images for every label."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from cml_bench.labels import PRESENT, LabelArray
from cml_bench.memory.exemplars import SamplingMemory, uniform

_NONE = 0
"""The owner of images without labels; the owner of label c is c + 1."""


class LabelBalancedMemory(SamplingMemory):
    """Class-balancing reservoir sampling (CBRS) where an image belongs to the rarest of its labels.

    Source: Chrysakis and Moens 2020, "Online continual learning from imbalanced data", for one label an image. No form
    for several labels is published; this one is inferred. An image's owner is the label it shows that fewest images of
    the stream showed so far (of equals the one fewest stored images show, then the first), for good. Once the memory is
    full,

    - an image whose owner has fewer images than the largest owner replaces one of that owner's, drawn uniformly;
    - any other replaces one of its own owner's with the probability that keeps those a uniform sample of all that
      the stream brought this owner, as long as the owner has not given slots away and grown again since (a class of
      CBRS that was once the largest never grows again; here it may, since labels come back in later experiences);
    - images that show no label have an owner too, but at most one in (labels + 1) slots; what they hold beyond that,
      from when there was room, goes first.

    Args:
        size: Images the memory may hold, or ``"20/label"`` for as many a label seen.
        generator: Makes every random choice.

    Attributes:
        owners: (m,) owner of each slot.
        brought: (n + 1,) stream images of each owner.
    """

    def __init__(self, size: int | str, generator: torch.Generator) -> None:
        super().__init__(size, generator)
        self.owners: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.brought: npt.NDArray[np.int64] = np.zeros(1, dtype=np.int64)

    def _add_labels(self, names: tuple[str, ...]) -> None:
        super()._add_labels(names)
        self.brought = np.pad(self.brought, (0, len(self.seen) + 1 - len(self.brought)))

    def _owner(self, shown: npt.NDArray[np.bool_]) -> int:
        labels = np.flatnonzero(shown).tolist()
        return min(labels, key=lambda c: (self.seen[c], self.held[c], c)) + 1 if labels else _NONE

    def _show_one(self, sample: int, row: LabelArray) -> None:
        self.brought[self._owner(row == PRESENT)] += 1
        super()._show_one(sample, row)

    def _put(self, slot: int, sample: int, row: LabelArray) -> None:
        if slot == len(self.ids):
            self.owners = np.append(self.owners, self._owner(row == PRESENT))
        elif self.ids[slot] != sample:
            self.owners[slot] = self._owner(row == PRESENT)
        super()._put(slot, sample, row)

    def _keep(self, slots: npt.NDArray[np.intp]) -> None:
        super()._keep(slots)
        self.owners = self.owners[slots]

    def _choose(self, shown: npt.NDArray[np.bool_]) -> int | None:
        owner, largest, sizes = self._owner(shown), self._largest(), self._sizes()
        if owner == _NONE:
            may_grow = sizes[_NONE] + 1 <= self._quota_of_none()
        else:
            may_grow = largest == _NONE or sizes[owner] < sizes[largest]
        if may_grow:
            return self._any_of(largest)
        if uniform(self.generator) < sizes[owner] / self.brought[owner]:
            return self._any_of(owner)
        return None

    def _spare(self) -> int:
        return self._any_of(self._largest())

    def _largest(self) -> int:
        """Return the owner to take a slot from."""
        sizes = self._sizes()
        return _NONE if sizes[_NONE] > self._quota_of_none() else int(sizes[1:].argmax()) + 1

    def _sizes(self) -> npt.NDArray[np.int64]:
        """Return the (n + 1,) number of slots of each owner."""
        return np.bincount(self.owners, minlength=len(self.brought))

    def _quota_of_none(self) -> float:
        return self.max_size / len(self.brought)

    def _any_of(self, owner: int) -> int:
        slots = np.flatnonzero(self.owners == owner)
        return int(slots[int(uniform(self.generator) * len(slots))])
