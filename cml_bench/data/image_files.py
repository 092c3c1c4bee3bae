"""A source whose images are files, whatever data set they belong to."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from torch import Tensor

from cml_bench.data.data_set import Missing
from cml_bench.data.images import is_intact, read_image
from cml_bench.data.source import Source
from cml_bench.data.table import LabelTable
from cml_bench.errors import CmlBenchError, some, suggest

_ASKED_AT_ONCE = 16
"""Threads that ask for the state of files: on a network disk each waits for the answer."""


class ImageFiles(Source):
    """The images of a label table, read from a folder one by one.

    Attributes:
        folder: What file names are relative to.
        files: (N,) file names, one a row.
    """

    def __init__(
        self,
        table: LabelTable,
        folder: Path,
        *,
        name: str,
        split: Literal["train", "test"],
        pretraining_names: tuple[str, ...] = (),
        missing: Missing = "error",
    ) -> None:
        """Look which images are there.

        Args:
            table: Labels and file names.
            folder: The image folder.
            name: Name of the data set.
            split: What the images are used for.
            pretraining_names: Names under which a checkpoint would declare that it was trained on this data.
            missing: ``"error"`` raises if an image is not there. ``"allow"`` leaves out images that are not there or
                cannot be read, and lists them in ``missing``. ``"ignore"`` does not look: label files alone suffice to
                describe a benchmark or to train on cached features, and an image that is needed fails when it is read.

        Raises:
            CmlBenchError: If images are missing, or all of them are.
        """
        if missing not in get_args(Missing):
            raise CmlBenchError(f"missing={missing!r} is not an option: {suggest(missing, get_args(Missing))}")
        if table.files is None:
            raise ValueError(f"the label table of {name} names no image files")
        lost: Sequence[str] = ()
        if missing != "ignore":
            there = _present(folder, table.files)
            if missing == "allow":
                there &= np.array(
                    [found and is_intact(folder / file) for found, file in zip(there, table.files, strict=True)]
                )
            lost = table.files[~there].tolist()
            if lost:
                _refuse(name, split, folder, lost, len(table), allowed=missing == "allow")
                table = table.select(there)
        super().__init__(
            table.label_names,
            table.labels,
            table.ids,
            missing=lost,
            counts=table.counts,
            boxes=table.boxes,
            sizes=table.sizes,
            groups=table.groups,
        )
        assert table.files is not None
        self.name = name
        self.split = split
        self.pretraining_names = pretraining_names
        self.folder = folder
        self.rendering = folder.name
        self.files = table.files

    @functools.cached_property
    def files_state(self) -> str | None:
        """Digest of names, sizes and times of change of the files, None if one is not there.

        It stays when the folder is moved, and in a copy that keeps times. Reading the files would take as long as what
        is cached of them.
        """
        with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
            parts = [part.tolist() for part in np.array_split(self.files, _ASKED_AT_ONCE)]
            states = list(pool.map(functools.partial(_states, str(self.folder)), parts))
        return None if None in states else hashlib.sha256("".join(map(str, states)).encode()).hexdigest()

    def load(self, index: int) -> Tensor:
        """Return image ``index`` as a (3, H, W) uint8 tensor; images differ in size.

        Raises:
            CmlBenchError: If the file is missing or cannot be decoded.
        """
        path = self.folder / str(self.files[index])
        try:
            return read_image(path)
        except CmlBenchError as error:
            way_out = "delete it and leave it out" if path.is_file() else "leave it out"
            raise CmlBenchError(f"{error}, or {way_out} with missing='allow'") from None


def _refuse(name: str, split: str, folder: Path, lost: Sequence[str], count: int, *, allowed: bool) -> None:
    if len(lost) < count and allowed:
        return
    mend = "check the folder" if len(lost) == count else "fetch them, or leave them out with missing=allow"
    raise CmlBenchError(f"{len(lost)} of {count} {split} images of {name} are not in {folder} ({some(lost)}); {mend}")


def _present(folder: Path, files: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    """Return which files exist: one listing a folder, since asking file by file takes minutes on a network disk."""
    parts = [file.rpartition("/") for file in files.tolist()]
    folders = {below: folder / below for below, _, _ in parts}
    listed = {below: {f.name for f in path.iterdir()} if path.is_dir() else set() for below, path in folders.items()}
    return np.array([name in listed[below] for below, _, name in parts], dtype=np.bool_)


def _states(folder: str, files: Sequence[str]) -> str | None:
    """Return a line a file with its name, size and time of change; None if one is not there."""
    lines = []
    for file in files:
        try:
            # Not Path, which takes longer than the question.
            state = os.stat(f"{folder}/{file}")  # noqa: PTH116
        except OSError:
            return None
        lines.append(f"{file}\0{state.st_size} {state.st_mtime_ns}\n")
    return "".join(lines)
