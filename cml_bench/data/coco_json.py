"""What an instances file of COCO says, as columns; the outlines of objects are left out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cml_bench.data.json_blocks import BYTES, DamagedJsonError, members
from cml_bench.data.table import Texts
from cml_bench.data.vetting import LONGEST
from cml_bench.errors import CmlBenchError

Integers = npt.NDArray[np.int64]
Columns = dict[str, npt.NDArray[Any]]
Entries = list[dict[str, Any]]

OUTLINE = re.compile(
    r'"segmentation"(?<!\\"segmentation")[ \t\n\r]*:[ \t\n\r]*\[(?:[ \t\n\r,]*\[[^]["{}]*\])*[ \t\n\r]*\]'
)
"""A key and its list of lists of numbers. Its first quote is not escaped, so it opens or ends a string; letters never
follow the end of one, so what matches is a key. There is no other quote, so no string holds any of the brackets."""
NO_BOX = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Instances:
    """The columns of an instances file: N images, C categories and A annotations in the order of the file.

    Attributes:
        image_ids: (N,) ids.
        files: (N,) file names.
        sizes: (N, 2) int32 height and width in pixels; 0 where it is not given.
        category_ids: (C,) ids.
        category_names: (C,) names.
        image_of: (A,) image id of each annotation.
        category_of: (A,) category id of each annotation.
        crowd: (A,) bool, whether an annotation stands for a crowd of objects.
        boxed: (A,) bool, whether an annotation has a box.
        xywh: (A, 4) float32 left, top, width, height in pixels; 0 without a box.
        areas: (A,) float32 area in square pixels; that of the box where no other is given.
    """

    image_ids: Integers
    files: Texts
    sizes: npt.NDArray[np.int32]
    category_ids: Integers
    category_names: Texts
    image_of: Integers
    category_of: Integers
    crowd: npt.NDArray[np.bool_]
    boxed: npt.NDArray[np.bool_]
    xywh: npt.NDArray[np.float32]
    areas: npt.NDArray[np.float32]


def read_instances(path: Path, size: int = BYTES) -> Instances:
    """Read an instances file block by block: memory is what the columns take and a few blocks of text.

    Args:
        path: An ``instances_*.json`` file of any size, in any layout that JSON allows.
        size: Bytes to read at a time.

    Raises:
        CmlBenchError: If the file cannot be read, is damaged or is no instances file.
    """
    try:
        try:
            return _read(path, _without_outlines, size)
        except DamagedJsonError:
            # The place of the damage counts in the whole text.
            return _read(path, None, size)
    except OSError as error:
        raise CmlBenchError(f"{path} cannot be read ({error.strerror}); give an instances_*.json file") from None
    except DamagedJsonError as error:
        raise CmlBenchError(f"{path} is not a whole JSON object ({error}); fetch the file again") from None
    except ValueError as error:
        raise CmlBenchError(f"{path} is not a COCO instances file ({error}); give an instances_*.json file") from None


def _without_outlines(text: str) -> str:
    return OUTLINE.sub('"segmentation":0', text)


def _read(path: Path, shorten: Callable[[str], str] | None, size: int) -> Instances:
    columns: dict[str, Columns] = {}
    for key, blocks in members(path, shorten, size):
        if key in _READERS:
            if blocks is None:
                raise ValueError(f"{key!r} is no list")
            if key in columns:
                raise ValueError(f"key {key!r} comes twice")
            parts = [_block(key, entries) for entries in blocks]
            columns[key] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for key in _READERS:
        if key not in columns:
            raise ValueError(f"key {key!r} is missing")
    return Instances(**columns["images"], **columns["annotations"], **columns["categories"])


def _block(key: str, entries: list[Any]) -> Columns:
    if not set(map(type, entries)) <= {dict}:
        raise ValueError(f"an entry of {key!r} is no object")
    try:
        return _READERS[key](entries)
    except KeyError as error:
        raise ValueError(f"key {error} is missing in an entry of {key!r}") from None
    except (TypeError, OverflowError) as error:
        raise ValueError(f"an entry of {key!r} holds a value of the wrong kind: {error}") from None


def _images(entries: Entries) -> Columns:
    return {
        "image_ids": _integers(entries, "id"),
        "files": np.array(_texts(entries, "file_name"), dtype=np.str_),
        "sizes": _sizes(entries),
    }


def _sizes(entries: Entries) -> npt.NDArray[np.int32]:
    found = [(entry.get("height") or 0, entry.get("width") or 0) for entry in entries]
    sizes = _numbers(found, (2,), "a height or width is no number")
    wrong = ~((sizes >= 0) & (sizes < 2**31) & (sizes == np.floor(sizes))).all(axis=1)
    if wrong.any():
        raise ValueError(f"an image has height and width {found[int(np.argmax(wrong))]!r:.60}")
    return sizes.astype(np.int32)


def _categories(entries: Entries) -> Columns:
    names = _texts(entries, "name")
    if not all(names):
        raise ValueError("a category has an empty name")
    return {"category_ids": _integers(entries, "id"), "category_names": np.array(names, dtype=np.str_)}


def _annotations(entries: Entries) -> Columns:
    boxes = [entry.get("bbox") or () for entry in entries]
    boxed = np.array(list(map(bool, boxes)), dtype=np.bool_)
    if not set(map(len, boxes)) <= {0, 4}:
        odd = next(box for box in boxes if len(box) not in (0, 4))
        raise ValueError(f"the bbox {odd!r:.60} is not four numbers")
    xywh = _numbers([box or NO_BOX for box in boxes], (4,), "a bbox is not four numbers").astype(np.float32)
    turned = (xywh[:, 2:] < 0).any(axis=1)
    if turned.any():
        raise ValueError(f"the bbox {boxes[int(np.argmax(turned))]} has a negative width or height")
    areas = [entry.get("area") for entry in entries]
    known = _numbers([0.0 if area is None else area for area in areas], (), "an area is no number")
    if (known < 0).any():
        raise ValueError(f"the area {areas[int(np.argmin(known))]} is negative")
    crowd = [entry.get("iscrowd") or 0 for entry in entries]
    if not {*crowd} <= {0, 1}:
        raise ValueError(f"iscrowd is {next(value for value in crowd if value not in (0, 1))!r:.40}, neither 0 nor 1")
    return {
        "image_of": _integers(entries, "image_id"),
        "category_of": _integers(entries, "category_id"),
        "crowd": np.array(crowd, dtype=np.bool_),
        "boxed": boxed,
        "xywh": xywh,
        "areas": np.where([area is None for area in areas], xywh[:, 2] * xywh[:, 3], known.astype(np.float32)),
    }


def _numbers(values: list[Any], shape: tuple[int, ...], otherwise: str) -> npt.NDArray[np.float64]:
    """Return (N, *shape) numbers that are there, and finite as float32."""
    found = np.array(values or np.empty((0, *shape)))
    # numpy would make something of texts, and of lists in the place of numbers, as well.
    if found.dtype.kind not in "iuf" or found.shape != (len(values), *shape):
        raise ValueError(otherwise)
    numbers = found.astype(np.float64)
    if not (np.abs(numbers) <= np.finfo(np.float32).max).all():
        raise ValueError(otherwise)
    return numbers


def _texts(entries: Entries, key: str) -> list[str]:
    values = [entry[key] for entry in entries]
    if not set(map(type, values)) <= {str}:
        odd = next(value for value in values if type(value) is not str)
        raise ValueError(f"the {key} {str(odd)[:40]!r} is no text")
    longest = max(values, key=len, default="")
    if len(longest) > LONGEST:
        raise ValueError(f"the {key} {longest[:40]!r} ... has {len(longest)} letters, more than {LONGEST}")
    return values


def _integers(entries: Entries, key: str) -> Integers:
    values = [entry[key] for entry in entries]
    if not set(map(type, values)) <= {int}:
        odd = next(value for value in values if type(value) is not int)
        raise ValueError(f"the {key} {str(odd)[:40]!r} is not an integer")
    return np.array(values, dtype=np.int64)


_READERS: dict[str, Callable[[Entries], Columns]] = {
    "images": _images,
    "annotations": _annotations,
    "categories": _categories,
}
