"""The four states of a label entry, and the table that holds them.

Everything in the suite that speaks of labels speaks of an int8 array whose columns are in arrival order and whose
entries are one of four states. ``labels >= 0`` means "known"; there is no second mask.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

PRESENT: Final = 1
"""The annotator saw the label."""
ABSENT: Final = 0
"""The annotator looked for the label and did not see it."""
UNMARKED: Final = -1
"""The annotator was asked for the label and left it open."""
OUT_OF_SCOPE: Final = -2
"""Nobody was asked: outside the experience's labels, or the label arrived later."""

LabelArray = npt.NDArray[np.int8]


@overload
def is_known(labels: LabelArray) -> npt.NDArray[np.bool_]: ...
@overload
def is_known(labels: Tensor) -> Tensor: ...
def is_known(labels: LabelArray | Tensor) -> npt.NDArray[np.bool_] | Tensor:
    """Return the boolean mask of entries that carry an annotation (``PRESENT`` or ``ABSENT``)."""
    return labels >= 0


def widen(labels: Tensor, width: int) -> Tensor:
    """Pad an (N, n) label array on the right to ``width`` columns: labels that arrived later were not asked for.

    Raises:
        ValueError: If the array is already wider, which would mean that a future label has leaked.
    """
    missing = width - labels.shape[1]
    if missing < 0:
        raise ValueError(f"labels are {labels.shape[1]} wide but only {width} labels have been seen")
    if missing == 0:
        return labels
    return torch.nn.functional.pad(labels, (0, missing), value=OUT_OF_SCOPE)


def samples_by_label(labels: LabelArray) -> list[npt.NDArray[np.intp]]:
    """Return, for each column, the ascending rows in which the label is ``PRESENT``; one pass over the table."""
    columns, rows = np.nonzero(np.ascontiguousarray((labels == PRESENT).T))
    return np.split(rows, np.searchsorted(columns, np.arange(1, labels.shape[1])))


BLOCK_ENTRIES = 2**25
"""Entries that a pass over a label table looks at together: a few tens of MB of working memory at any table size."""


def row_blocks(n_rows: int, n_labels: int) -> Iterator[slice]:
    """Yield the rows of a table in blocks of about ``BLOCK_ENTRIES`` entries."""
    step = max(1, BLOCK_ENTRIES // max(1, n_labels))
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))


def totals(labels: LabelArray) -> dict[str, int]:
    """Return the number of images, of positives, and of images with at least one."""
    per_image = [np.count_nonzero(labels[rows] == PRESENT, axis=1) for rows in row_blocks(*labels.shape)]
    positives = np.concatenate([*per_image, np.empty(0, dtype=np.intp)])
    return {
        "images": len(labels),
        "labels": int(positives.sum()),
        "images_with_labels": int(np.count_nonzero(positives)),
    }


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names as a tuple.

    Raises:
        ValueError: If a name is empty or occurs twice, be it in another spelling of the same letters.
    """
    seen: set[str] = set()
    for name in names:
        if not name:
            raise ValueError("a label name is empty")
        if name in seen:
            raise ValueError(f"label name {name!r} occurs twice")
        seen.add(name)
    if twins := unicode_twins(names):
        raise ValueError(f"label names {twins} look alike and differ in their code points: spell them alike")
    return tuple(names)


def unicode_twins(names: Sequence[str]) -> str:
    """Return two names of the same letters that are spelled in different code points, é and e with an accent, say.

    Returns:
        Both with their code points visible; empty if there are none.
    """
    if all(map(str.isascii, names)):
        return ""
    spelled: dict[str, str] = {}
    for name in names:
        first = spelled.setdefault(unicodedata.normalize("NFC", name), name)
        if first != name:
            return f"{first!a:.80} and {name!a:.80}"
    return ""
