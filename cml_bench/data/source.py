"""The source contract: where images and their true labels come from."""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor

from cml_bench.data.table import Boxes, Ids, Texts, fingerprint
from cml_bench.labels import LabelArray, check_names, totals


class Source(ABC):
    """One split of a data set: images, true labels, names, stable ids.

    Row ``i`` of every attribute speaks of the same image. The order of rows is a function of the data alone, so a row
    number identifies an image for good (the fingerprint guards it). Labels are true labels; what an annotator would
    have marked is decided later, by a regime.

    Attributes:
        name: Name of the data set, e.g. ``"coco"``.
        split: ``"train"`` or ``"test"``.
        label_names: C label names in the source's own order.
        labels: (N, C) int8 true labels; ``OUT_OF_SCOPE`` where the data set itself does not say.
        ids: (N,) public image ids (integers or strings), unique within the split.
        image_size: (height, width) that ``load`` always returns, or None when images differ in size.
        missing: Names of images that are listed but could not be found, kept out of every experience.
        counts: What was read, for the record (images, images without labels, crowd annotations skipped ...).
        boxes: Object boxes, or None if the data set has none.
        sizes: (N, 2) int32 height and width of the original images in pixels, or None if unknown.
        groups: Further facts by name, (N,) strings each: user, camera, date ...
        features: (N, D) float32 feature vectors of a data set that has these in place of images, else None.
        rendering: Which pictures these are of the images, where a data set has several (original and small ones, say):
            the name of their folder, or their size. Caches go by it; ids and labels are the same for all.
        pretraining_names: Names under which a checkpoint would declare that it was trained on this data.
    """

    name: str
    split: str
    image_size: tuple[int, int] | None = None
    features: Tensor | None = None
    rendering: str = ""
    pretraining_names: tuple[str, ...] = ()

    def __init__(
        self,
        label_names: Sequence[str],
        labels: LabelArray,
        ids: Ids,
        *,
        missing: Sequence[str] = (),
        counts: Mapping[str, int] | None = None,
        boxes: Boxes | None = None,
        sizes: npt.NDArray[np.int32] | None = None,
        groups: Mapping[str, Texts] | None = None,
    ) -> None:
        self.label_names = check_names(label_names)
        if labels.shape != (len(ids), len(self.label_names)):
            raise ValueError(f"labels have shape {labels.shape} for {len(ids)} ids and {len(label_names)} names")
        self.labels = labels
        self.ids = ids
        self.missing = tuple(missing)
        self.counts: dict[str, int] = {**totals(labels), **(counts or {})}
        self.boxes = boxes
        self.sizes = sizes
        self.groups = dict(groups or {})

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    @abstractmethod
    def load(self, index: int) -> Tensor:
        """Return image ``index`` as a (3, H, W) uint8 tensor.

        Raises:
            CmlBenchError: If the file is missing or cannot be decoded; the sentence names it.
        """

    @functools.cached_property
    def id_keys(self) -> npt.NDArray[np.uint64]:
        """(N,) ``stable_keys`` of the ids."""
        return stable_keys(self.ids)

    @functools.cached_property
    def files_state(self) -> str | None:
        """Digest of the state of the files that images are read from: empty where there are none, None if unknown."""
        return ""

    @functools.cached_property
    def content(self) -> str | None:
        """Sha256 over the feature vectors, None where there are images."""
        if self.features is None:
            return None
        values = np.ascontiguousarray(self.features.numpy())
        digest = hashlib.sha256(f"{values.dtype} {values.shape}\n".encode())
        digest.update(values.data)
        return digest.hexdigest()

    @property
    def cache_key(self) -> dict[str, str | None]:
        """What anything that is made of the images depends on, and so is cached under."""
        key: dict[str, str | None] = {
            "source": self.name,
            "split": self.split,
            "fingerprint": self.fingerprint,
            "rendering": self.rendering,
        }
        return key if self.files_state == "" else {**key, "files": self.files_state}

    @property
    def fingerprint(self) -> str:
        """Sha256 over names, ids and labels: equal fingerprints mean the same rows with the same truth."""
        return fingerprint(self.label_names, self.ids, self.labels)


def stable_keys(values: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """Return a 64-bit number for each id or name, the same on every machine; a number is read as its digits."""
    texts = values.astype(np.str_).astype(object)
    return np.asarray(pd.util.hash_array(texts, categorize=False), dtype=np.uint64)
