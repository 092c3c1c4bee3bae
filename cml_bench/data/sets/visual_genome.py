"""VG-500: Visual Genome's images with their 500 most common objects, as SSGRL published them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cml_bench.data.data_set import DataCard, DataSet
from cml_bench.data.json_files import read_json
from cml_bench.data.table import LabelTable, Texts
from cml_bench.data.text_lists import read_lines
from cml_bench.data.vetting import as_texts, table_from
from cml_bench.errors import CmlBenchError
from cml_bench.labels import PRESENT

N_LABELS = 500
_INDEX = "vg_category_500_labels_index.json"
_FOLDERS = ("VG_100K", "VG_100K_2")


@dataclass(frozen=True, kw_only=True)
class VisualGenome(DataSet):
    """VG-500: SSGRL's lists of images and of label numbers beside Visual Genome's two image folders.

    Rows are in the order of the list; ids are the numbers that the images are named by. SSGRL published the labels by
    number only: they are called ``000`` to ``499``.

    Attributes:
        merged: Whether all images lie in ``VG_100K``, as SSGRL has them. Else they lie as they unpack, in ``VG_100K``
            and ``VG_100K_2``, and Visual Genome's ``image_data.json`` says which (and how large they are).
    """

    merged: bool = False

    meta = DataCard(
        name="visual_genome",
        title="VG-500",
        version=1,
        splits={"train": {}, "test": {"images": 10000}},
        n_labels=500,
        licence="Visual Genome: CC BY 4.0; photos: Flickr terms; lists: no licence stated",
        homepage="https://github.com/HCPLab-SYSU/SSGRL",
        download="""From data/VG of the homepage take train_list_500.txt, test_list_500.txt and
vg_category_500_labels_index.json; from https://homes.cs.washington.edu/~ranjay/visualgenome take both image archives
and image_data.json. Root is the folder that holds the four files and VG_100K/ and VG_100K_2/.""",
        citation="Krishna et al., Visual Genome, IJCV 2017; lists: Chen et al., Learning Semantic-Specific Graph "
        "Representation for Multi-Label Image Recognition, ICCV 2019",
        pretraining_names=("visual_genome", "visual-genome", "vg"),
    )

    def label_files(self, split: str) -> Sequence[Path]:
        """Return the list of images, the index of labels and, unless the folders are merged, the image data."""
        if split not in self.splits:
            raise self.unknown_split(split)
        names = [f"{split}_list_500.txt", _INDEX, *([] if self.merged else ["image_data.json"])]
        return [self.find_file(name) for name in names]

    def read(self, split: str) -> LabelTable:
        """Read the list and look its images up in the index."""
        image_list, index_file, *image_data = self.label_files(split)
        images = read_lines(image_list)
        index = read_json(index_file, dict)
        rows: list[int] = []
        columns: list[int] = []
        for row, image in enumerate(images):
            numbers = index.get(image)
            if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < N_LABELS for n in numbers):
                raise CmlBenchError(
                    f"{index_file} has no list of label numbers from 0 to {N_LABELS - 1} for {image!r:.40} (line "
                    f"{row + 1} of {image_list.name}); fetch both again"
                )
            rows += [row] * len(numbers)
            columns += numbers
        labels = np.zeros((len(images), N_LABELS), dtype=np.int8)
        labels[rows, columns] = PRESENT
        ids = _ids(images, image_list)
        files, sizes = as_texts(image_list, [f"VG_100K/{image}" for image in images]), None
        if image_data:
            files, sizes = _places(image_data[0], ids)
        return table_from(
            image_list,
            label_names=tuple(f"{number:03}" for number in range(N_LABELS)),
            ids=ids,
            labels=labels,
            files=files,
            sizes=sizes,
        )


def _ids(images: Sequence[str], image_list: Path) -> npt.NDArray[np.int64]:
    for line, image in enumerate(images, start=1):
        stem, _, ending = image.partition(".")
        if not (stem.isdecimal() and len(stem) < 19) or ending != "jpg":
            raise CmlBenchError(
                f"line {line} of {image_list} says {image[:40]!r}, no image like 2360596.jpg: fetch the file again"
            )
    return np.array([int(image.removesuffix(".jpg")) for image in images], dtype=np.int64)


def _places(image_data: Path, ids: npt.NDArray[np.int64]) -> tuple[Texts, npt.NDArray[np.int32]]:
    """Return file and (height, width) of every image, from the last parts of its address."""
    try:
        known = {
            entry["image_id"]: (entry["url"].split("/")[-2:], (entry["height"], entry["width"]))
            for entry in read_json(image_data, list)
        }
        places = [known[number] for number in ids.tolist()]
        for number, ((folder, file), size) in zip(ids.tolist(), places, strict=True):
            if folder not in _FOLDERS or file != f"{number}.jpg":
                raise ValueError(f"the url of image {number} ends in {f'{folder}/{file}'!r:.60}")
            if not all(type(side) is int and 0 < side < 2**31 for side in size):
                raise ValueError(f"image {number} has height and width {size!r:.60}")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CmlBenchError(
            f"{image_data} lacks an image of the list, or its url, height or width ({error}): fetch Visual Genome's own"
        ) from None
    return np.array(["/".join(parts) for parts, _ in places], dtype=np.str_), np.array(
        [s for _, s in places], dtype=np.int32
    )
