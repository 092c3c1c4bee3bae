"""FLAIR: 429,078 Flickr photos of 51,414 users with 17 coarse or 1,628 fine labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from cml_bench.data.data_set import DataCard, DataSet
from cml_bench.data.json_files import read_json
from cml_bench.data.table import LabelTable
from cml_bench.data.vetting import as_texts, refuse_large, table_from
from cml_bench.errors import CmlBenchError, suggest

Grain = Literal["coarse", "fine"]

_PARTITIONS = {"train": ("train",), "val": ("val", "dev"), "test": ("test",)}
"""Of each split: what ``partition`` says. The authors' page writes ``dev`` for what their figures call ``val``."""


@dataclass(frozen=True, kw_only=True)
class FLAIR(DataSet):
    """FLAIR as its download script leaves it: ``labels_and_metadata.json`` and ``small_images/<image id>.jpg``.

    Each photo belongs to a user (``groups["user"]``, a Flickr NSID); the splits have no user in common. An image id is
    the Flickr photo id. Columns are in alphabetical order over all splits, as the authors index them; rows are in the
    order of the file. A fine label list may name coarse labels too, where the subject could not be told more finely.

    Attributes:
        grain: ``coarse`` for 17 labels, ``fine`` for 1,628.
        images: Image folder, relative to ``root``; ``raw_images`` for the photos in their original size.
    """

    grain: Grain = "coarse"
    images: str = "small_images"

    meta = DataCard(
        name="flair",
        title="FLAIR",
        version=1,
        splits={
            "train": {"images": 345879, "users": 41131},
            "val": {"images": 39239, "users": 5141},
            "test": {"images": 43960, "users": 5142},
        },
        n_labels=17,
        licence="annotations CC BY-NC 4.0; photos: their owners' terms, listed in ATTRIBUTIONS.TXT",
        homepage="https://github.com/apple/ml-flair",
        download="""The authors' script fetches labels and photos of 256 px (about 6 GB):
  git clone https://github.com/apple/ml-flair && cd ml-flair
  python3 download_dataset.py --dataset_dir=ROOT
The labels alone are https://docs-assets.developer.apple.com/ml-research/datasets/flair/labels/labels_and_metadata.json
Root is the folder that holds labels_and_metadata.json and small_images/.""",
        citation="Song et al., FLAIR: Federated Learning Annotated Image Repository, NeurIPS 2022, arXiv:2207.08869",
        pretraining_names=("flair",),
    )

    def __post_init__(self) -> None:
        """Refuse other grains."""
        if self.grain not in get_args(Grain):
            raise CmlBenchError(f"grain={self.grain!r} is not an option: {suggest(self.grain, get_args(Grain))}")

    def label_files(self, split: str) -> Sequence[Path]:
        """Return ``labels_and_metadata.json``."""
        if split not in _PARTITIONS:
            raise self.unknown_split(split)
        return [self.find_file("labels_and_metadata.json")]

    def read(self, split: str) -> LabelTable:
        """Read the entries of a split."""
        (path,) = self.label_files(split)
        key = "labels" if self.grain == "coarse" else "fine_grained_labels"
        entries = _read(path, key)
        names = sorted({name for entry in entries for name in entry[key]})
        kept = [entry for entry in entries if entry["partition"] in _PARTITIONS[split]]
        rows = np.repeat(np.arange(len(kept)), [len(entry[key]) for entry in kept])
        columns = pd.Index(names).get_indexer(pd.Index([name for entry in kept for name in entry[key]], dtype=object))
        refuse_large(path, len(kept), len(names))
        labels = np.zeros((len(kept), len(names)), dtype=np.int8)
        labels[rows, columns] = 1
        ids = as_texts(path, [str(entry["image_id"]) for entry in kept])
        users = as_texts(path, [str(entry["user_id"]) for entry in kept])
        return table_from(
            path,
            label_names=tuple(names),
            ids=ids,
            labels=labels,
            files=np.char.add(ids, ".jpg"),
            groups={"user": users},
            counts={"users": len(np.unique(users))},
        )

    def image_folder(self, split: str) -> Path:
        """Return the folder that ``images`` names."""
        return Path(self.root) / self.images


def _read(path: Path, key: str) -> list[dict[str, Any]]:
    """Return the entries, each with what is needed of it."""
    entries = read_json(path, list)
    known = {partition for partitions in _PARTITIONS.values() for partition in partitions}
    for number, entry in enumerate(entries):
        told = entry if isinstance(entry, dict) else {}
        for field in ("image_id", "user_id", "partition"):
            if not isinstance(told.get(field), (str, int)):
                raise CmlBenchError(f"entry {number} of {path} has no {field}: fetch the file again")
        if told["partition"] not in known:
            other = str(told["partition"])
            raise CmlBenchError(f"entry {number} of {path} is of partition {other!r:.80}: {suggest(other, known)}")
        if not (isinstance(told.get(key), list) and all(isinstance(name, str) and name for name in told[key])):
            raise CmlBenchError(f"entry {number} of {path} has no list of names under {key}: fetch the file again")
    return list(entries)
