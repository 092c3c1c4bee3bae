"""MS-COCO, and any folder laid out like it.

Layout: ``annotations/instances_<split>.json`` with the images in ``<split>/`` or ``images/<split>/``.

Source: Lin et al. 2014, "Microsoft COCO: Common Objects in Context", arXiv:1405.0312.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from cml_bench.data.coco_json import Instances, Integers, read_instances
from cml_bench.data.data_set import DataCard, DataSet, Missing
from cml_bench.data.source import Source
from cml_bench.data.table import Boxes, LabelTable
from cml_bench.data.vetting import refuse_large, table_from
from cml_bench.errors import CmlBenchError, some

Crowd = Literal["ignore", "label"]


@dataclass(frozen=True, kw_only=True)
class COCO(DataSet):
    """MS-COCO or a folder in its layout: photos with the boxes of common objects, 80 labels in COCO itself.

    The columns are the file's categories in ascending category id, the rows its images in ascending image id; images
    without an object are among them. The splits are those whose instances file is there.

    Attributes:
        annotations: Folder with the instances files, if it is not ``root/annotations``.
        crowd: Whether a crowd annotation (``iscrowd`` 1) makes a label and a box: ``ignore`` or ``label``. The
            published continual-learning protocols leave crowds out; ``counts["crowd_annotations"]`` says how many
            there are.
    """

    annotations: str | None = None
    crowd: Crowd = "ignore"

    meta = DataCard(
        name="coco",
        title="MS-COCO",
        version=1,
        splits={
            "train2014": {"images": 82_783, "images_with_labels": 82_081, "annotations": 604_907},
            "val2014": {"images": 40_504, "images_with_labels": 40_137, "annotations": 291_875},
            "train2017": {
                "images": 118_287,
                "images_with_labels": 117_266,
                "annotations": 860_001,
                "crowd_annotations": 10_052,
            },
            "val2017": {
                "images": 5_000,
                "images_with_labels": 4_952,
                "annotations": 36_781,
                "crowd_annotations": 446,
            },
        },
        n_labels=None,
        licence="annotations CC BY 4.0; photos: Flickr terms",
        homepage="https://cocodataset.org",
        download=(
            "For COCO 2014, in the root folder (2017: write 2017 for 2014):\n"
            "  curl -O http://images.cocodataset.org/annotations/annotations_trainval2014.zip\n"
            "  curl -O http://images.cocodataset.org/zips/train2014.zip\n"
            "  curl -O http://images.cocodataset.org/zips/val2014.zip\n"
            "  unzip '*.zip'\n"
            "This gives annotations/instances_train2014.json, train2014/COCO_train2014_000000000009.jpg and so on."
        ),
        citation="Lin et al. 2014, Microsoft COCO: Common Objects in Context, arXiv:1405.0312",
        pretraining_names=("coco", "mscoco", "ms-coco"),
    )

    def __post_init__(self) -> None:
        """Refuse an unknown crowd rule."""
        if self.crowd not in get_args(Crowd):
            raise CmlBenchError(f"crowd={self.crowd!r} is not an option; choose from {', '.join(get_args(Crowd))}")

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits whose instances file is there."""
        return tuple(sorted(file.stem.removeprefix("instances_") for file in self._folder().glob("instances_*.json")))

    def label_files(self, split: str) -> Sequence[Path]:
        """Return the instances file of a split."""
        file = self._folder() / f"instances_{split}.json"
        if file.is_file():
            return (file,)
        if split in self.meta.splits:
            raise CmlBenchError(f"{file} is not there; 'cml-bench data info coco' says what belongs where")
        raise self.unknown_split(split)

    def image_folder(self, split: str) -> Path:
        """Return ``<split>``, or ``images/<split>`` where only that is there."""
        outer, inner = self._image_folders(split)
        return inner if inner.is_dir() and not outer.is_dir() else outer

    def source(self, split: str, role: Literal["train", "test"], *, missing: Missing = "error") -> Source:
        """Return a split as a source of images that are files; see ``ImageFiles`` for ``missing``."""
        (file,) = self.label_files(split)
        if missing != "ignore" and not self.image_folder(split).is_dir():
            outer, inner = self._image_folders(split)
            raise CmlBenchError(f"neither {outer} nor {inner} is a folder; put the images of {file.name} there")
        return super().source(split, role, missing=missing)

    def train_and_test(self, *, missing: Missing = "error") -> tuple[Source, Source]:
        """Return the one train split and the one val split of a folder, or its test split where there is no val.

        Raises:
            CmlBenchError: If there is none or more than one, or the two have different categories.
        """
        train, test = self._only("train"), self._only("val", "test")
        sources = self.source(train, "train", missing=missing), self.source(test, "test", missing=missing)
        names = [source.label_names for source in sources]
        if names[0] != names[1]:
            different = sorted(set(names[0]) ^ set(names[1])) or ["the same names in another id order"]
            raise CmlBenchError(
                f"the {train} and {test} splits of {self._folder()} have different categories ({some(different)}); "
                "use two splits of one data set"
            )
        return sources

    def read(self, split: str) -> LabelTable:
        """Read an instances file."""
        (path,) = self.label_files(split)
        found = read_instances(path)
        _check_unique(found, path)
        images, categories = np.argsort(found.image_ids), np.argsort(found.category_ids)
        ids, names = found.image_ids[images], found.category_names[categories]
        rows = _positions(found.image_of, ids, path, "image")
        columns = _positions(found.category_of, found.category_ids[categories], path, "category")
        shown = np.ones_like(found.crowd) if self.crowd == "label" else ~found.crowd
        refuse_large(path, len(ids), len(names))
        labels = np.zeros((len(ids), len(names)), dtype=np.int8)
        labels[rows[shown], columns[shown]] = 1
        boxed = shown & found.boxed
        boxes = Boxes(rows[boxed], columns[boxed], found.xywh[boxed], found.areas[boxed])
        return table_from(
            path,
            label_names=tuple(names.tolist()),
            ids=ids,
            labels=labels,
            files=found.files[images],
            sizes=found.sizes[images] if found.sizes.all() else None,
            boxes=boxes if found.boxed.any() else None,
            counts={
                "annotations": len(rows),
                "crowd_annotations": int(found.crowd.sum()),
                "annotations_without_box": int((~found.boxed).sum()),
            },
        )

    def _folder(self) -> Path:
        root = Path(self.root)
        folder = Path(self.annotations) if self.annotations is not None else root / "annotations"
        for needed in (root, folder):
            if not needed.is_dir():
                raise CmlBenchError(
                    f"{needed} is not a folder; give the folder that holds the COCO images and annotations"
                )
        return folder

    def _image_folders(self, split: str) -> tuple[Path, Path]:
        return Path(self.root) / split, Path(self.root) / "images" / split

    def _only(self, *kinds: str) -> str:
        """Return the one split whose name starts with the first of these kinds that there is."""
        for kind in kinds:
            found = [split for split in self.splits if split.startswith(kind)]
            if len(found) == 1:
                return found[0]
            if found:
                files = [f"instances_{split}.json" for split in found]
                raise CmlBenchError(f"{self._folder()} holds {some(files)}; give a folder with one of them")
        wanted = " or ".join(f"instances_{kind}*.json" for kind in kinds)
        raise CmlBenchError(f"{self._folder()} holds no {wanted}; give a folder with one train and one val file")


def _check_unique(found: Instances, path: Path) -> None:
    for what, values in (
        ("image id", found.image_ids),
        ("category id", found.category_ids),
        ("category name", found.category_names),
    ):
        unique, times = np.unique(values, return_counts=True)
        if not len(unique):
            raise CmlBenchError(f"{path} lists no {what}; give an instances file with images and categories")
        if (times > 1).any():
            raise CmlBenchError(f"{path} lists {what} {unique[times > 1][0]} twice; list every one once")


def _positions(wanted: Integers, known: Integers, path: Path, what: str) -> npt.NDArray[np.int64]:
    """Return where each wanted id stands among the ascending known ones."""
    positions = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    unknown = known[positions] != wanted
    if unknown.any():
        raise CmlBenchError(
            f"{path}: {int(unknown.sum())} annotations name an unknown {what} (first: {what} id {wanted[unknown][0]}); "
            f"list it under its {what} entries or take the annotations out"
        )
    return positions.astype(np.int64)
