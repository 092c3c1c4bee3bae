"""PASCAL VOC 2007 and 2012: twenty object labels, read from the XML annotations of the official image sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from xml.etree import ElementTree

import numpy as np

from cml_bench.data.data_set import DataCard, DataSet
from cml_bench.data.table import Boxes, LabelTable
from cml_bench.data.text_lists import read_lines
from cml_bench.data.vetting import table_from
from cml_bench.data.xml_files import read_xml
from cml_bench.errors import CmlBenchError, suggest

Difficult = Literal["drop", "label"]

NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The official names in the official order, which is alphabetical."""
LARGEST = 2**31
"""Pixels of a side."""


@dataclass(frozen=True, kw_only=True)
class VOC(DataSet):
    """PASCAL VOC as its archives unpack: ``VOCdevkit/VOC2007/{Annotations,ImageSets/Main,JPEGImages}``.

    A split is named by year and image set (``2007/trainval``), since every year has a ``trainval`` of its own. Rows
    are in the order of ``ImageSets/Main/<image set>.txt``, which ascends by image id; ids are the file stems
    (``000005``, ``2008_000002``).

    An object that is hard to recognise is marked ``difficult``. The counts tell these apart whatever the option:
    ``clear_objects`` and ``difficult_objects``, and the labels they make: ``clear_labels`` (some object is not
    difficult) and ``difficult_labels`` (all objects of the label in this image are).

    Boxes are those of the objects that count. VOC numbers pixels from 1 and includes the last one, so the box
    ``xmin ymin xmax ymax`` becomes left ``xmin - 1``, top ``ymin - 1``, width ``xmax - xmin + 1``, height
    ``ymax - ymin + 1``.

    Attributes:
        difficult: ``drop`` reads annotations as if difficult objects were not there, as KRT does; ``label`` lets them
            count like any other. The official class lists say 0 for the labels that this decides.
    """

    difficult: Difficult = "drop"

    meta = DataCard(
        name="voc",
        title="PASCAL VOC",
        version=1,
        splits={
            "2007/train": {"images": 2501, "clear_objects": 6301, "difficult_objects": 1543},
            "2007/val": {"images": 2510, "clear_objects": 6307, "difficult_objects": 1511},
            "2007/trainval": {
                "images": 5011,
                "clear_objects": 12608,
                "difficult_objects": 3054,
                "clear_labels": 7306,
            },
            "2007/test": {
                "images": 4952,
                "clear_objects": 12032,
                "clear_labels": 7013,
                "difficult_labels": 619,
            },
            "2012/train": {"images": 5717, "clear_objects": 13609, "difficult_objects": 2165},
            "2012/val": {"images": 5823, "clear_objects": 13841, "difficult_objects": 1946},
            "2012/trainval": {"images": 11540, "clear_objects": 27450, "difficult_objects": 4111},
        },
        n_labels=20,
        licence="annotations without a licence of their own; photos: Flickr terms",
        homepage="http://host.robots.ox.ac.uk/pascal/VOC/",
        download="""Unpack one or more of these archives in the folder that you give as root (they hold VOCdevkit/):
  https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtrainval_06-Nov-2007.tar  md5 c52e279531787c972589f7e41ab4ae64
  https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtest_06-Nov-2007.tar      md5 b6e924de25625d8de591ea690078ad9f
  https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar  md5 6cd6e144f989b92b3379bac3b3de84fd
torchvision.datasets.VOCDetection(root, year="2007", image_set="trainval", download=True) does the same.""",
        citation="Everingham et al., The PASCAL Visual Object Classes (VOC) Challenge, IJCV 88, 2010",
        pretraining_names=("voc", "pascal"),
    )

    def __post_init__(self) -> None:
        """Refuse an unknown rule for difficult objects."""
        if self.difficult not in get_args(Difficult):
            raise CmlBenchError(
                f"difficult={self.difficult!r} is not an option: {suggest(self.difficult, get_args(Difficult))}"
            )

    def label_files(self, split: str) -> Sequence[Path]:
        """Return the image set and the annotation of every image in it, in this order."""
        image_set = self._image_set(split)
        folder = image_set.parents[2] / "Annotations"
        there = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
        ids = read_lines(image_set)
        lost = [image for image in ids if f"{image}.xml" not in there]
        if lost:
            raise CmlBenchError(
                f"{folder} lacks {len(lost)} of the {len(ids)} annotations that {image_set} lists (first: "
                f"{f'{lost[0]}.xml'!r:.60}); unpack the archive again"
            )
        return [image_set, *(folder / f"{image}.xml" for image in ids)]

    def read(self, split: str) -> LabelTable:
        """Parse the annotations."""
        image_set, *annotations = self.label_files(split)
        images = [_parse(file) for file in annotations]
        rows = np.repeat(np.arange(len(images)), [len(objects) for _, objects in images])
        objects = np.array([thing for _, things in images for thing in things], dtype=np.float64).reshape(-1, 6)
        columns, difficult = objects[:, 0].astype(np.int64), objects[:, 1] > 0
        shown, clear = (np.zeros((len(images), len(NAMES)), dtype=np.int8) for _ in range(2))
        shown[rows, columns] = 1
        clear[rows[~difficult], columns[~difficult]] = 1
        kept = ~difficult | (self.difficult == "label")
        first, last = objects[kept, 2:4], objects[kept, 4:6]
        xywh = np.concatenate([first - 1, last - first + 1], axis=1).astype(np.float32)
        ids = np.array([file.stem for file in annotations], dtype=np.str_)
        return table_from(
            image_set,
            label_names=NAMES,
            ids=ids,
            labels=shown if self.difficult == "label" else clear,
            files=np.char.add(ids, ".jpg"),
            sizes=np.array([size for size, _ in images], dtype=np.int32),
            boxes=Boxes(rows[kept], columns[kept], xywh, xywh[:, 2] * xywh[:, 3]),
            counts={
                "clear_objects": int((~difficult).sum()),
                "difficult_objects": int(difficult.sum()),
                "clear_labels": int(clear.sum()),
                "difficult_labels": int(shown.sum() - clear.sum()),
            },
        )

    def image_folder(self, split: str) -> Path:
        """Return ``JPEGImages`` of the year."""
        return self._image_set(split).parents[2] / "JPEGImages"

    def _image_set(self, split: str) -> Path:
        if split not in self.splits:
            raise self.unknown_split(split)
        year, _, name = split.partition("/")
        inside = f"VOC{year}/ImageSets/Main/{name}.txt"
        return self.find_file(f"VOCdevkit/{inside}", inside)


_Object = tuple[float, ...]
"""Column of the label, 1 if difficult, xmin, ymin, xmax, ymax."""


def _parse(path: Path) -> tuple[tuple[int, int], list[_Object]]:
    """Return an annotation's image size (height, width) and objects.

    Parts of objects (a person's head) are no objects, and an object without a ``difficult`` mark is not difficult.
    """
    try:
        root = read_xml(path)
        size = int(_text(root, "size/height")), int(_text(root, "size/width"))
        if not all(0 < side < 2**31 for side in size):
            raise ValueError(f"height and width are {size!r:.60}")
        return size, [_object(thing) for thing in root.iterfind("object")]
    except ValueError as error:
        raise CmlBenchError(f"{path} is no annotation of VOC ({error!s:.300}); unpack the archive again") from None


def _object(thing: ElementTree.Element) -> _Object:
    name = _text(thing, "name")
    if name not in NAMES:
        raise ValueError(f"{name!r:.60} is no label: {suggest(name, NAMES)}")
    difficult = thing.findtext("difficult", "0").strip()
    if difficult not in ("0", "1"):
        raise ValueError(f"difficult is {difficult!r:.40}, neither 0 nor 1")
    corners = [float(_text(thing, f"bndbox/{corner}")) for corner in ("xmin", "ymin", "xmax", "ymax")]
    left, top, right, bottom = corners
    if not (-LARGEST < left <= right < LARGEST and -LARGEST < top <= bottom < LARGEST):
        raise ValueError(f"the corners of {name} are {corners}")
    return (float(NAMES.index(name)), float(difficult), *corners)


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"{element.tag} has no {path}")
    return text.strip()
