"""How many images a memory may hold: a number, or a number for each label seen so far."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator


def images_allowed(size: int | str, n_labels: int) -> int:
    """Return how many images a memory of a size may hold once ``n_labels`` labels have been seen.

    Args:
        size: Number of images, or ``"20/label"`` for 20 times the labels seen.
        n_labels: Labels seen so far.

    Raises:
        ValueError: If the size is neither.
    """
    read = re.fullmatch(r"(\d+)(/label)?", str(size))
    if read is None:
        raise ValueError("a memory size is a number of images, or a number a label as in 20/label")
    return int(read[1]) * (n_labels if read[2] else 1)


def _checked(size: int | str) -> int | str:
    per_label = images_allowed(size, 1) != images_allowed(size, 0)
    return size if per_label else images_allowed(size, 0)


MemorySize = Annotated[int | str, AfterValidator(_checked)]
"""An option: images in memory (``2000``), or images for each label seen so far (``20/label``), as tables write them."""


def split_size(size: MemorySize, share: float) -> tuple[MemorySize, MemorySize]:
    """Return the sizes of the two parts of a memory: the rest, and a share of it, at least 1 unless the size is 0.

    Args:
        size: Number of images, or as in ``"20/label"``.
        share: Share of the second part, between 0 and 1.
    """
    per_label = isinstance(_checked(size), str)
    whole = images_allowed(size, 1)
    part = min(whole, max(1, round(share * whole)))
    return (f"{whole - part}/label", f"{part}/label") if per_label else (whole - part, part)
