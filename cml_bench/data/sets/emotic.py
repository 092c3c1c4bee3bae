"""EMOTIC: people in photos and the 26 emotions that annotators read in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from cml_bench.data.data_set import DataCard, DataSet
from cml_bench.data.mat_files import field, items_of, load_mat, texts
from cml_bench.data.table import Boxes, LabelTable
from cml_bench.data.vetting import as_texts, table_from
from cml_bench.errors import CmlBenchError, suggest
from cml_bench.labels import PRESENT

Unit = Literal["image", "person"]

NAMES = (
    *("Affection", "Anger", "Annoyance", "Anticipation", "Aversion", "Confidence", "Disapproval", "Disconnection"),
    *("Disquietment", "Doubt/Confusion", "Embarrassment", "Engagement", "Esteem", "Excitement", "Fatigue", "Fear"),
    *("Happiness", "Pain", "Peace", "Pleasure", "Sadness", "Sensitivity", "Suffering", "Surprise", "Sympathy"),
    "Yearning",
)
"""The official names in the official order, which is alphabetical."""

_RELEASES = {
    "": (("Annotations/Annotations.mat", "Annotations.mat"), "emotic"),
    "cvpr17": (("CVPR17_Annotations.mat",), "cvpr_emotic"),
}
"""Of each release: the names of its annotation file, and its image folder."""


@dataclass(frozen=True, kw_only=True)
class EMOTIC(DataSet):
    """EMOTIC in either release: of 2019 (splits ``train``, ``val``, ``test``) or of 2017 (``cvpr17/train`` ...).

    **What a person feels is the union over its annotators** (one in training, several in validation and test). Counts
    say how many ``people`` there are and how many of them got an emotion (``people_with_labels``).

    Rows are in the order of the file. An image's id is its folder and name (``mscoco/images/COCO_val2014_....jpg``), a
    person's the same with ``#person=0``. There is a box for each emotion of a person: the whole body.

    Attributes:
        unit: What a row is. ``image``: an image with the emotions of all its people, none if nobody has any.
            ``person``: a person who has emotions, shown by the whole image, so that an image of two people is two rows:
            what the published incremental benchmark takes.
    """

    unit: Unit = "image"

    meta = DataCard(
        name="emotic",
        title="EMOTIC",
        version=1,
        splits={
            "train": {},
            "val": {},
            "test": {},
            "cvpr17/train": {"people_with_labels": 16001},
            "cvpr17/val": {"people_with_labels": 2397},
            "cvpr17/test": {"people_with_labels": 5368},
        },
        n_labels=26,
        licence="non-commercial research, on request",
        homepage="https://github.com/rkosti/emotic",
        download="""Ask for the data set on the homepage. Root is the folder that holds, for the release of 2019,
Annotations/Annotations.mat and emotic/{ade20k,emodb_small,framesdb,mscoco}/images; for the release of 2017,
CVPR17_Annotations.mat and cvpr_emotic/ with the same folders.""",
        citation="Kosti et al., Context Based Emotion Recognition using EMOTIC Dataset, IEEE TPAMI 2019; 2017: Kosti "
        "et al., Emotion Recognition in Context, CVPR 2017",
        pretraining_names=("emotic",),
    )

    def __post_init__(self) -> None:
        """Refuse another unit."""
        if self.unit not in get_args(Unit):
            raise CmlBenchError(f"unit={self.unit!r} is not an option: {suggest(self.unit, get_args(Unit))}")

    def label_files(self, split: str) -> Sequence[Path]:
        """Return the annotation file of the release."""
        if split not in self.splits:
            raise self.unknown_split(split)
        return [self.find_file(*_RELEASES[split.rpartition("/")[0]][0])]

    def image_folder(self, split: str) -> Path:
        """Return ``emotic`` or ``cvpr_emotic``."""
        return Path(self.root) / _RELEASES[split.rpartition("/")[0]][1]

    def read(self, split: str) -> LabelTable:
        """Read every person of every image."""
        (path,) = self.label_files(split)
        variable = split.rpartition("/")[2]
        rows: dict[str, int] = {}
        files: list[str] = []
        marks: list[tuple[int, int]] = []
        boxes: list[tuple[int, int, npt.NDArray[np.float32]]] = []
        people: dict[str, int] = {}
        felt = 0
        for file, person in _people(load_mat(path, variable)[variable], path, variable):
            number = people[file] = people.get(file, -1) + 1
            columns = _emotions(person, path, f"person {number} of {file}")
            felt += bool(columns)
            if self.unit == "person" and not columns:
                continue
            key = f"{file}#person={number}" if self.unit == "person" else file
            row = rows.setdefault(key, len(rows))
            if row == len(files):
                files.append(file)
            marks += [(row, column) for column in columns]
            box = _body(person)
            if box is not None:
                boxes += [(row, column, box) for column in columns]
        labels = np.zeros((len(rows), len(NAMES)), dtype=np.int8)
        if marks:
            labels[tuple(np.array(marks).T)] = PRESENT
        return table_from(
            path,
            label_names=NAMES,
            ids=as_texts(path, list(rows)),
            labels=labels,
            files=as_texts(path, files),
            boxes=_boxes(boxes),
            counts={"people": sum(people.values()) + len(people), "people_with_labels": felt},
        )


def _people(images: Any, path: Path, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the file of every person and what is said of it."""
    for number, image in enumerate(items_of(images), start=1):
        what = f"{split} image {number}"
        folder, name = (str(field(image, key, path, what)).strip("/") for key in ("folder", "filename"))
        for person in items_of(field(image, "person", path, what)):
            yield f"{folder}/{name}", person


def _emotions(person: Mapping[str, Any], path: Path, what: str) -> list[int]:
    """Return the columns of the emotions that any annotator saw, each once."""
    columns = set()
    for annotator in items_of(field(person, "annotations_categories", path, what)):
        for name in texts(field(annotator, "categories", path, what), path, f"the categories of {what}").tolist():
            if name not in NAMES:
                raise CmlBenchError(f"{path}: {what} has the emotion {name!r:.80}: {suggest(name, NAMES)}")
            columns.add(NAMES.index(name))
    return sorted(columns)


def _body(person: Mapping[str, Any]) -> npt.NDArray[np.float32] | None:
    """Return left, top, width and height of a person; None where the file gives no box with an area."""
    corners = np.asarray(person.get("body_bbox", ()))
    if corners.shape != (4,) or corners.dtype.kind not in "iuf":
        return None
    if not (np.abs(corners.astype(np.float64)) <= np.finfo(np.float32).max).all():
        return None
    left, top, right, bottom = corners.astype(np.float32)
    if not (right > left and bottom > top):
        return None
    return np.array([left, top, right - left, bottom - top], dtype=np.float32)


def _boxes(found: Sequence[tuple[int, int, npt.NDArray[np.float32]]]) -> Boxes:
    xywh = np.array([box for _, _, box in found], dtype=np.float32).reshape(-1, 4)
    return Boxes(
        rows=np.array([row for row, _, _ in found], dtype=np.int64),
        columns=np.array([column for _, column, _ in found], dtype=np.int64),
        xywh=xywh,
        areas=xywh[:, 2] * xywh[:, 3],
    )
