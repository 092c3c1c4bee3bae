"""The source contract: where images and their true labels come from."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from cml_bench.labels import LabelArray, check_names


class Source(ABC):
    """One split of a data set: images, true labels, names, stable ids.

    Row ``i`` of every attribute speaks of the same image. The order of rows is a function of the data alone, so a row
    number identifies an image for good (the fingerprint guards it). Labels are true labels: only ``PRESENT`` and
    ``ABSENT``; what an annotator would have marked is decided later.

    Attributes:
        name: Name of the data set, e.g. ``"coco"``.
        split: ``"train"`` or ``"test"``.
        label_names: C label names in the source's own order.
        labels: (N, C) int8 true labels.
        ids: (N,) public image ids (integers or strings), unique within the split.
        image_size: (height, width) that ``load`` always returns, or None when images differ in size.
        missing: Public ids of images that are listed but could not be found, kept out of every experience.
        counts: What was read, for the record (images, images without labels, crowd annotations skipped ...).
        pretraining_names: Names under which a checkpoint would declare that it was trained on this data.
    """

    name: str
    split: str
    image_size: tuple[int, int] | None = None
    pretraining_names: tuple[str, ...] = ()

    def __init__(
        self,
        label_names: Sequence[str],
        labels: LabelArray,
        ids: npt.NDArray[np.int64] | npt.NDArray[np.str_],
        *,
        missing: Sequence[str] = (),
        counts: Mapping[str, int] | None = None,
    ) -> None:
        self.label_names = check_names(label_names)
        if labels.shape != (len(ids), len(self.label_names)):
            raise ValueError(f"labels have shape {labels.shape} for {len(ids)} ids and {len(label_names)} names")
        self.labels = labels
        self.ids = ids
        self.missing = tuple(missing)
        self.counts: dict[str, int] = {"images": len(ids), "labels": int((labels == 1).sum()), **(counts or {})}

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    @abstractmethod
    def load(self, index: int) -> Tensor:
        """Return image ``index`` as a (3, H, W) uint8 tensor.

        Raises:
            CmlBenchError: If the file is missing or cannot be decoded; the sentence names it.
        """

    @property
    def fingerprint(self) -> str:
        """Sha256 over names, ids and labels: equal fingerprints mean the same rows with the same truth."""
        digest = hashlib.sha256()
        for part in ("\n".join(self.label_names), "\n".join(map(str, self.ids.tolist()))):
            digest.update(part.encode())
            digest.update(b"\0")
        digest.update(np.ascontiguousarray(self.labels, dtype=np.int8).tobytes())
        return digest.hexdigest()
