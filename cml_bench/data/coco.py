"""MS-COCO, and any folder laid out like it.

Layout: ``annotations/instances_<split>.json`` with the images in ``<split>/`` or ``images/<split>/``. The columns of
the label table are the file's categories in ascending category id; rows are in ascending image id.

Source: Lin et al. 2014, "Microsoft COCO: Common Objects in Context", arXiv 1405.0312.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from torch import Tensor

from cml_bench.data.images import looks_intact, read_image
from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError
from cml_bench.labels import LabelArray

Crowd = Literal["ignore", "label"]
Missing = Literal["error", "allow"]
Ids = npt.NDArray[np.int64]


class CocoSource(Source):
    """One split of a COCO-layout data set.

    Attributes:
        paths: Image files, one a row.
    """

    name = "coco"
    pretraining_names = ("coco", "mscoco", "ms-coco")

    def __init__(
        self,
        split: str,
        label_names: Sequence[str],
        labels: LabelArray,
        ids: Ids,
        paths: Sequence[Path],
        *,
        missing: Sequence[str] = (),
        counts: dict[str, int],
    ) -> None:
        without = {"images_without_labels": int((~labels.any(axis=1)).sum())}
        super().__init__(label_names, labels, ids, missing=missing, counts={**counts, **without})
        self.split = split
        self.paths = tuple(paths)

    @classmethod
    def from_files(
        cls,
        instances: Path | str,
        images: Path | str,
        *,
        split: Literal["train", "test"],
        crowd: Crowd = "ignore",
        missing: Missing = "error",
    ) -> CocoSource:
        """Read one split.

        Args:
            instances: The instances JSON file.
            images: The folder that its ``file_name`` entries are relative to.
            split: What the split is used for.
            crowd: Whether a crowd annotation (``iscrowd`` 1) makes a label. By default it does not: the published
                continual-learning protocols leave crowd boxes out. ``counts["crowd_annotations"]`` says how many
                there are.
            missing: ``"error"`` raises if an image file is not there. ``"allow"`` leaves out the rows of images that
                are not there or look cut short, and lists their file names in ``missing``.

        Raises:
            CmlBenchError: If the file is not a whole, consistent COCO instances file, or images are missing.
        """
        for option, value, allowed in (("crowd", crowd, get_args(Crowd)), ("missing", missing, get_args(Missing))):
            if value not in allowed:
                raise CmlBenchError(f"{option}={value!r} is not an option; choose from {', '.join(allowed)}")
        instances, images = Path(instances), Path(images)
        names, ids, files, labels, counts = _read_instances(instances, crowd)
        there = _present(images, files)
        if missing == "allow":
            there = np.array([found and looks_intact(images / file) for found, file in zip(there, files, strict=True)])
        lost = [file for found, file in zip(there, files, strict=True) if not found]
        if len(lost) == len(files) or (lost and missing == "error"):
            mend = (
                "check the folder" if len(lost) == len(files) else "fetch them, or leave them out with missing='allow'"
            )
            raise CmlBenchError(
                f"{len(lost)} of {len(files)} images of {instances} are not in {images} ({_some(lost)}); {mend}"
            )
        paths = [images / file for found, file in zip(there, files, strict=True) if found]
        return cls(split, names, labels[there], ids[there], paths, missing=lost, counts=counts)

    def load(self, index: int) -> Tensor:
        """Return image ``index`` as a (3, H, W) uint8 tensor; images differ in size.

        Raises:
            CmlBenchError: If the file is missing or cannot be decoded.
        """
        try:
            return read_image(self.paths[index])
        except CmlBenchError as error:
            raise CmlBenchError(f"{error}, or delete it and leave it out with missing='allow'") from None


def coco_sources(
    root: Path | str,
    annotations: Path | str | None = None,
    *,
    crowd: Crowd = "ignore",
    missing: Missing = "error",
) -> tuple[CocoSource, CocoSource]:
    """Read the train split (``instances_train*.json``) and the test split (``instances_val*.json``) of a folder.

    Args:
        root: Folder with the image folders.
        annotations: Folder with the instances files, if it is not ``root/annotations``.
        crowd: See ``CocoSource.from_files``.
        missing: See ``CocoSource.from_files``.

    Raises:
        CmlBenchError: If a folder or file is not there, is ambiguous or broken, or the splits name different labels.
    """
    root = Path(root)
    folder = Path(annotations) if annotations is not None else root / "annotations"
    for needed in (root, folder):
        if not needed.is_dir():
            raise CmlBenchError(f"{needed} is not a folder; give the folder that holds the COCO images and annotations")
    train_file, test_file = _only(folder, "train"), _only(folder, "val")
    train = CocoSource.from_files(
        train_file, _image_folder(root, train_file), split="train", crowd=crowd, missing=missing
    )
    test = CocoSource.from_files(test_file, _image_folder(root, test_file), split="test", crowd=crowd, missing=missing)
    if train.label_names != test.label_names:
        different = sorted(set(train.label_names) ^ set(test.label_names)) or ["the same names in another id order"]
        raise CmlBenchError(
            f"{train_file} and {test_file} have different categories ({_some(different)}); "
            "use two splits of one data set"
        )
    return train, test


def _only(folder: Path, split: str) -> Path:
    found = sorted(folder.glob(f"instances_{split}*.json"))
    if len(found) != 1:
        what = f"holds {_some([file.name for file in found])}" if found else f"holds no instances_{split}*.json"
        raise CmlBenchError(
            f"{folder} {what}; give a folder with one train and one val file, or read one split with "
            "CocoSource.from_files"
        )
    return found[0]


def _image_folder(root: Path, instances: Path) -> Path:
    split = instances.stem.removeprefix("instances_")
    for folder in (root / split, root / "images" / split):
        if folder.is_dir():
            return folder
    raise CmlBenchError(
        f"neither {root / split} nor {root / 'images' / split} is a folder; put the images of {instances.name} there"
    )


def _present(images: Path, files: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which files exist: one listing a folder, since asking file by file takes minutes on a network disk."""
    parts = [file.rpartition("/") for file in files]
    folders = {folder: images / folder for folder, _, _ in parts}
    listed = {
        folder: {file.name for file in path.iterdir()} if path.is_dir() else set() for folder, path in folders.items()
    }
    return np.array([name in listed[folder] for folder, _, name in parts], dtype=np.bool_)


def _read_instances(path: Path, crowd: Crowd) -> tuple[list[str], Ids, list[str], LabelArray, dict[str, int]]:
    """Return category names, image ids, file names, (N, C) labels and counts of an instances file."""
    content = _parse(path)
    try:
        images = sorted(content["images"], key=lambda image: image["id"])
        categories = sorted(content["categories"], key=lambda category: category["id"])
        annotations = content["annotations"]
        ids = _integers([image["id"] for image in images])
        category_ids = _integers([category["id"] for category in categories])
        image_of = _integers([annotation["image_id"] for annotation in annotations])
        category_of = _integers([annotation["category_id"] for annotation in annotations])
        is_crowd = np.array([annotation.get("iscrowd", 0) for annotation in annotations], dtype=np.bool_)
        files = [str(image["file_name"]) for image in images]
        names = [str(category["name"]) for category in categories]
        if not all(names):
            raise ValueError("a category has an empty name")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise CmlBenchError(f"{path} is not a COCO instances file ({reason}); give an instances_*.json file") from None
    for what, values in (("image id", ids), ("category id", category_ids), ("category name", np.array(names))):
        if not len(values):
            raise CmlBenchError(f"{path} lists no {what}; give an instances file with images and categories")
        unique, times = np.unique(values, return_counts=True)
        if (times > 1).any():
            raise CmlBenchError(f"{path} lists {what} {unique[times > 1][0]} twice; list every one once")
    rows = _positions(image_of, ids, path, "image")
    columns = _positions(category_of, category_ids, path, "category")
    makes_label = ~is_crowd if crowd == "ignore" else np.ones_like(is_crowd)
    labels = np.zeros((len(ids), len(names)), dtype=np.int8)
    labels[rows[makes_label], columns[makes_label]] = 1
    counts = {"images_listed": len(ids), "annotations": len(annotations), "crowd_annotations": int(is_crowd.sum())}
    return names, ids, files, labels, counts


def _parse(path: Path) -> Any:
    try:
        with _no_garbage_collection():
            return json.loads(path.read_text(encoding="utf-8"), object_hook=_without_outlines)
    except OSError as error:
        raise CmlBenchError(f"{path} cannot be read ({error.strerror}); give an instances_*.json file") from None
    except (ValueError, RecursionError) as error:
        raise CmlBenchError(f"{path} is not whole JSON ({error}); fetch the file again") from None


def _without_outlines(entry: dict[str, Any]) -> dict[str, Any]:
    """Drop the polygons as soon as they are parsed: they are most of what a parsed file takes in memory."""
    entry.pop("segmentation", None)
    return entry


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of small objects, none of them garbage: collecting while they are made costs 2.5 times the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _integers(values: list[Any]) -> Ids:
    array = np.array(values or np.empty(0, dtype=np.int64))
    if array.dtype.kind != "i" or array.ndim != 1:
        raise ValueError("an id is not an integer")
    return array.astype(np.int64)


def _positions(wanted: Ids, known: Ids, path: Path, what: str) -> npt.NDArray[np.intp]:
    """Return where each wanted id stands among the ascending known ones."""
    positions = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    unknown = known[positions] != wanted
    if unknown.any():
        raise CmlBenchError(
            f"{path}: {int(unknown.sum())} annotations name an unknown {what} (first: {what} id {wanted[unknown][0]}); "
            f"list it under its {what} entries or take the annotations out"
        )
    return positions


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
