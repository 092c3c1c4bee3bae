"""RAP v2: 84,928 pedestrians of an indoor camera network and 54 attributes, in five published random partitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cml_bench.data.data_set import DataCard, DataSet
from cml_bench.data.mat_files import (
    attribute_table,
    choose_partition,
    field,
    from_zero,
    load_mat,
    number_matrix,
    texts,
)
from cml_bench.data.table import LabelTable

_PARTS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val"), "test": ("test",)}


@dataclass(frozen=True, kw_only=True)
class RAPv2(DataSet):
    """RAP v2 in its official layout: ``RAP_annotation/RAP_annotation.mat`` and ``RAP_dataset/*.png``.

    Labels are the attributes that ``selected_attribute`` lists, 54 of 152, in its order; ids are the file
    names, rows follow ``name``. Entries marked as uncertain are ``OUT_OF_SCOPE`` and counted as ``uncertain``
    (metrics leave them out; published evaluations count them as absent).

    Attributes:
        partition: Which of the five random partitions, from 1; most papers use the first.
    """

    partition: int = 1

    meta = DataCard(
        name="rapv2",
        title="RAP v2",
        version=1,
        splits={
            "train": {"images": 50957},
            "val": {"images": 16986},
            "trainval": {"images": 67943},
            "test": {"images": 16985},
        },
        n_labels=54,
        licence="research only, on signed request",
        homepage="https://www.rapdataset.com/",
        download="""Ask for RAP v2 on the homepage. Root is the folder that holds RAP_annotation/RAP_annotation.mat and
RAP_dataset/ with the images.""",
        citation="Li et al., A Richly Annotated Pedestrian Dataset for Person Retrieval in Real Surveillance "
        "Scenarios, IEEE Transactions on Image Processing 2019",
        pretraining_names=("rap", "rapv2"),
    )

    def label_files(self, split: str) -> Sequence[Path]:
        """Return ``RAP_annotation.mat``."""
        if split not in _PARTS:
            raise self.unknown_split(split)
        return [self.find_file("RAP_annotation/RAP_annotation.mat")]

    def read(self, split: str) -> LabelTable:
        """Read the labels and the lists of the partition."""
        (path,) = self.label_files(split)
        rap = load_mat(path, "RAP_annotation")["RAP_annotation"]
        files = texts(field(rap, "name", path, "RAP_annotation"), path, "name")
        names = texts(field(rap, "attribute", path, "RAP_annotation"), path, "attribute")
        matrix = number_matrix(field(rap, "data", path, "RAP_annotation"), len(names), path, "data")
        selected = field(rap, "selected_attribute", path, "RAP_annotation")
        columns = from_zero(selected, len(names), path, "selected_attribute")
        partition = choose_partition(field(rap, "partition_attribute", path, "RAP_annotation"), self.partition, path)
        rows = [
            from_zero(
                field(partition, f"{part}_index", path, f"partition {self.partition}"),
                len(files),
                path,
                f"the {part} list of partition {self.partition}",
            )
            for part in _PARTS[split]
        ]
        return attribute_table(names[columns], matrix[:, columns], files, files, np.sort(np.concatenate(rows)), path)

    def image_folder(self, split: str) -> Path:
        """Return ``RAP_dataset``."""
        return Path(self.root) / "RAP_dataset"
