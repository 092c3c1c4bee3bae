"""What a file may make of a label table: names, paths and sizes that nobody vouches for are looked at first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cml_bench.data.table import LabelTable, Texts
from cml_bench.errors import CmlBenchError
from cml_bench.labels import unicode_twins
from cml_bench.npz import RATIO

LONGEST = 1000
"""Letters of a name. An array of names has room for the longest one in every row."""
ALWAYS_MATRIX = 2**32
"""Bytes that a matrix may always take whose rows and columns are counted in a file; beyond, ``RATIO`` times the file's:
a file of a few megabytes can name a million images and a million labels."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What no name holds: it would break lines, move cursors, turn what follows around or not be written at all."""
_OUTSIDE = re.compile(r"[/\\]|[A-Za-z]:[/\\]|(?:.*[/\\])?(?:\.\.[/\\]|\.{0,2}$)")
"""How a path begins that leads out of the folder that it is relative to, on any system, or to a folder."""
_DETOUR = re.compile(r"^\./(?:\./|/)*|(?<=[^/]/)(?:\./|/)+")
"""Parts of a path that lead to where it is already."""


def as_texts(path: Path, values: Sequence[str]) -> Texts:
    """Return names that a file lists as an array.

    Args:
        path: The file, for the error.
        values: N names.

    Raises:
        CmlBenchError: If one is longer than ``LONGEST``.
    """
    try:
        _check_length("name", values)
    except CmlBenchError as error:
        raise _unusable(path, error) from None
    return np.array(values, dtype=np.str_)


def straight(file: str) -> str:
    """Return a relative path as most write it (``./a//b`` is ``a/b``), so that an image has one name."""
    return _DETOUR.sub("", file)


def refuse_large(path: Path, rows: int, columns: int, itemsize: int = 1) -> None:
    """Refuse a matrix that takes more memory than its file may ask for.

    Args:
        path: The file that says how many rows and columns there are.
        rows: Rows.
        columns: Columns.
        itemsize: Bytes of an entry.

    Raises:
        CmlBenchError: If it takes more than ``ALWAYS_MATRIX`` and ``RATIO`` times the file.
    """
    if rows * columns * itemsize > max(ALWAYS_MATRIX, RATIO * path.stat().st_size):
        size = f"{rows * columns * itemsize >> 20} MiB"
        raise _unusable(path, f"{rows} rows of {columns} columns are {size}, out of proportion to the file")


def table_from(path: Path, **columns: Any) -> LabelTable:
    """Return the table that a file makes, if what the file says can be used.

    Args:
        path: The file, for the error.
        columns: Arguments of ``LabelTable``.

    Raises:
        CmlBenchError: If names or ids are repeated, empty or no plain text, columns differ in length, or an image file
            is named that lies outside the image folder.
    """
    try:
        table = LabelTable(**columns)
        _check_texts(table)
    except (ValueError, CmlBenchError) as error:
        raise _unusable(path, error) from None
    return table


def _unusable(path: Path, reason: object) -> CmlBenchError:
    return CmlBenchError(f"{path} cannot be used ({reason}): correct it, or fetch it again if it was downloaded")


def _check_length(what: str, names: Sequence[str]) -> None:
    longest = max(names, key=len, default="")
    if len(longest) > LONGEST:
        raise CmlBenchError(f"{what} {longest[:40]!r} ... has {len(longest)} letters, more than {LONGEST}")


def _check_texts(table: LabelTable) -> None:
    """Refuse names that are no plain text, and image files outside the image folder."""
    files = [] if table.files is None else table.files.tolist()
    texts = {"label name": list(table.label_names), "image file": files}
    texts |= {name: column.tolist() for name, column in table.groups.items()}
    if table.ids.dtype.kind == "U":
        texts["image id"] = table.ids.tolist()
    for what, names in texts.items():
        # Almost always all of them are printable, which is found out in one pass.
        suspects = [] if "".join(names).isprintable() else [name for name in names if _CONTROL.search(name)]
        for name in suspects:
            raise CmlBenchError(f"{what} {name!r:.60} holds a control character")
        _check_length(what, names)
        if not all(map(str.strip, names)):
            raise CmlBenchError(f"the {what} of row {[bool(name.strip()) for name in names].index(False)} is empty")
        if twins := unicode_twins(names):
            raise CmlBenchError(f"{what} {twins} look alike and differ in their code points: spell them alike")
    for file in filter(_OUTSIDE.match, files):
        raise CmlBenchError(f"image file {file!r:.60} is no file inside the image folder")
