"""The label table: all that a data set says of its images, in one compact form that can be stored.

Every data set reads its original files into this form (``data_set.py``); sources, benchmarks and descriptions are made
of it. Operations return new tables; nothing changes one in place.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cml_bench.errors import CmlBenchError
from cml_bench.files import replace_file
from cml_bench.labels import LabelArray, check_names
from cml_bench.npz import read_npz

Ids = npt.NDArray[np.int64] | npt.NDArray[np.str_]
Texts = npt.NDArray[np.str_]
FORMAT = 1
"""Counts up when the stored form changes; tables stored in another form are made again."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """Object boxes of a table, in any order.

    Attributes:
        rows: (M,) int64 row of the table that each box lies in.
        columns: (M,) int64 column of the label that it shows.
        xywh: (M, 4) float32 left, top, width, height in pixels.
        areas: (M,) float32 object area in square pixels: of its outline where that is known, else of the box.
    """

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    xywh: npt.NDArray[np.float32]
    areas: npt.NDArray[np.float32]

    def __len__(self) -> int:
        """Return the number of boxes."""
        return len(self.rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelTable:
    """N images and what is known of them. Row ``i`` of every attribute speaks of the same image.

    Attributes:
        label_names: C label names, in the data set's own order.
        ids: (N,) public image ids, integers or strings, each once.
        labels: (N, C) int8, ``PRESENT`` or ``ABSENT``; ``OUT_OF_SCOPE`` where the data set itself does not say.
        files: (N,) image files relative to the data set's image folder, or None if images are not files.
        sizes: (N, 2) int32 height and width in pixels, or None if unknown.
        boxes: Object boxes, or None if the data set has none.
        groups: Further facts by name, (N,) strings each: the user who took the picture, the camera, the date ...
        counts: What was read and what was left out, for the record (annotations, crowd annotations skipped ...).
    """

    label_names: tuple[str, ...]
    ids: Ids
    labels: LabelArray
    files: Texts | None = None
    sizes: npt.NDArray[np.int32] | None = None
    boxes: Boxes | None = None
    groups: Mapping[str, Texts] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse columns of different lengths, repeated names and repeated ids."""
        check_names(self.label_names)
        n = len(self.ids)
        if self.labels.shape != (n, len(self.label_names)):
            raise ValueError(f"labels have shape {self.labels.shape} for {n} ids and {len(self.label_names)} names")
        for name, column in {"files": self.files, "sizes": self.sizes, **self.groups}.items():
            if column is not None and len(column) != n:
                raise ValueError(f"{name} has {len(column)} rows for {n} ids")
        unique, times = np.unique(self.ids, return_counts=True)
        if len(unique) < n:
            twice = str(unique[times > 1][0])
            raise CmlBenchError(
                f"image id {twice if twice.isprintable() else repr(twice):.60} is listed twice: list every image once"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    @property
    def fingerprint(self) -> str:
        """Sha256 over names, ids and labels: equal fingerprints mean the same rows with the same truth."""
        return fingerprint(self.label_names, self.ids, self.labels)

    def select(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> LabelTable:
        """Return some rows, in the order given (a boolean mask keeps the order of the table)."""
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        boxes = self.boxes
        if boxes is not None:
            place = np.full(len(self), -1, dtype=np.int64)
            place[rows] = np.arange(len(rows))
            kept = place[boxes.rows] >= 0
            boxes = Boxes(place[boxes.rows[kept]], boxes.columns[kept], boxes.xywh[kept], boxes.areas[kept])
        return dataclasses.replace(
            self,
            ids=self.ids[rows],
            labels=self.labels[rows],
            files=None if self.files is None else self.files[rows],
            sizes=None if self.sizes is None else self.sizes[rows],
            boxes=boxes,
            groups={name: column[rows] for name, column in self.groups.items()},
        )

    def with_labels(self, names: Sequence[str]) -> LabelTable:
        """Return the table with these label columns only, in this order.

        Raises:
            CmlBenchError: If a name is not a label of the table.
        """
        position = {name: i for i, name in enumerate(self.label_names)}
        unknown = [name for name in names if name not in position]
        if unknown:
            raise CmlBenchError(f"label {unknown[0]!r} is not a label of the data: {_sample(self.label_names)}")
        columns = np.array([position[name] for name in names], dtype=np.intp)
        boxes = self.boxes
        if boxes is not None:
            place = np.full(len(self.label_names), -1, dtype=np.int64)
            place[columns] = np.arange(len(columns))
            kept = place[boxes.columns] >= 0
            boxes = Boxes(boxes.rows[kept], place[boxes.columns[kept]], boxes.xywh[kept], boxes.areas[kept])
        return dataclasses.replace(
            self, label_names=tuple(names), labels=np.ascontiguousarray(self.labels[:, columns]), boxes=boxes
        )

    def save(self, path: Path) -> None:
        """Write the table as an uncompressed ``.npz`` of plain arrays; the file is whole or not there at all."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "format": np.array(FORMAT),
            "label_names": np.array(self.label_names, dtype=np.str_),
            "ids": self.ids,
            "count_names": np.array(list(self.counts), dtype=np.str_),
            "counts": np.array(list(self.counts.values()), dtype=np.int64),
        }
        if not self.labels.size or self.labels.min() >= 0:
            # Two states are one bit: an eighth of the disk, and faster to read than to map.
            arrays["bits"] = np.packbits(self.labels.view(np.uint8), axis=1)
        else:
            arrays["labels"] = self.labels
        if self.files is not None:
            arrays["files"] = self.files
        if self.sizes is not None:
            arrays["sizes"] = self.sizes
        if self.boxes is not None:
            arrays |= {f"box_{name}": value for name, value in vars(self.boxes).items()}
        arrays |= {f"group_{name}": column for name, column in self.groups.items()}
        replace_file(path, lambda file: np.savez(file, allow_pickle=False, **arrays))

    @classmethod
    def load(cls, path: Path) -> LabelTable:
        """Read a stored table; nothing in it is executed.

        Raises:
            CmlBenchError: If the file is no stored table, damaged, or of another format.
        """
        try:
            return cls._from_arrays(read_npz(path))
        except (OSError, ValueError, TypeError, KeyError, CmlBenchError) as error:
            raise CmlBenchError(f"{path} is no stored label table ({error}); prepare the data set again") from None

    @classmethod
    def _from_arrays(cls, arrays: dict[str, npt.NDArray[Any]]) -> LabelTable:
        if int(arrays["format"]) != FORMAT:
            raise CmlBenchError(f"format {int(arrays['format'])} instead of {FORMAT}")
        names = tuple(arrays["label_names"].tolist())
        if "bits" in arrays:
            labels = np.unpackbits(arrays["bits"], axis=1, count=len(names)).view(np.int8)
        else:
            labels = arrays["labels"]
        boxes = {name.removeprefix("box_"): value for name, value in arrays.items() if name.startswith("box_")}
        return cls(
            label_names=names,
            ids=arrays["ids"],
            labels=labels,
            files=arrays.get("files"),
            sizes=arrays.get("sizes"),
            boxes=Boxes(**boxes) if boxes else None,
            groups={n.removeprefix("group_"): value for n, value in arrays.items() if n.startswith("group_")},
            counts=dict(zip(arrays["count_names"].tolist(), arrays["counts"].tolist(), strict=True)),
        )


def concatenate(tables: Sequence[LabelTable]) -> LabelTable:
    """Stack tables of the same labels; counts are added up, groups that only some of them have are dropped.

    Raises:
        CmlBenchError: If they name different labels, or an id occurs in two of them.
    """
    first = tables[0]
    for other in tables[1:]:
        if other.label_names != first.label_names:
            raise CmlBenchError("tables of different labels cannot be joined: use splits of one data set")
    starts = np.cumsum([0, *(len(table) for table in tables)])
    boxes = [table.boxes for table in tables]
    whole = all(part is not None for part in boxes)
    parts = [part for part in boxes if part is not None]
    counted = [name for table in tables for name in table.counts]
    return LabelTable(
        label_names=first.label_names,
        ids=np.concatenate([table.ids for table in tables]),
        labels=np.concatenate([table.labels for table in tables]),
        files=_stack([table.files for table in tables]),
        sizes=_stack([table.sizes for table in tables]),
        boxes=Boxes(
            np.concatenate([part.rows + start for part, start in zip(parts, starts, strict=False)]),
            np.concatenate([part.columns for part in parts]),
            np.concatenate([part.xywh for part in parts]),
            np.concatenate([part.areas for part in parts]),
        )
        if whole
        else None,
        groups={
            name: np.concatenate([table.groups[name] for table in tables])
            for name in first.groups
            if all(name in table.groups for table in tables)
        },
        counts={name: sum(table.counts.get(name, 0) for table in tables) for name in counted},
    )


def fingerprint(label_names: Sequence[str], ids: Ids, labels: LabelArray) -> str:
    """Return the sha256 over names, ids and labels."""
    digest = hashlib.sha256()
    for part in ("\n".join(label_names), "\n".join(map(str, ids.tolist()))):
        digest.update(part.encode())
        digest.update(b"\0")
    digest.update(np.ascontiguousarray(labels, dtype=np.int8).data)
    return digest.hexdigest()


def _stack(columns: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
    there = [column for column in columns if column is not None]
    return np.concatenate(there) if len(there) == len(columns) else None


def _sample(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" ... ({len(names)} labels)" if len(names) > 5 else "")
