"""Published lists of images: read from a release on the user's disk, and refused unless they are the published ones.

A release is never bundled. Its files are asked for by name and compared with their sha256: a number is comparable only
if the lists behind it are exactly the published ones.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cml_bench.data.table import Ids, LabelTable
from cml_bench.errors import CmlBenchError

LARGEST = 2**24
"""Bytes read of a file at most. No published list is as large; what is larger fails its checksum, not the memory."""


@dataclass(frozen=True)
class Release:
    """The files of a published release.

    Attributes:
        title: Name of the release.
        get: What to fetch and what to give, said to a user whose files are not there or are others.
        sha256: File names, relative to the release's folder or archive, to their sha256.
    """

    title: str
    get: str
    sha256: Mapping[str, str]

    def read(self, place: str, name: str) -> bytes:
        """Return a file of the release.

        Nothing is extracted: of a zip archive, only the member of exactly this name is opened.

        Args:
            place: Folder or zip archive of the release.
            name: One of the names that have a checksum.

        Raises:
            CmlBenchError: If the file is not there, cannot be read, or is not the published one.
        """
        try:
            root = zipfile.Path(place) if Path(place).is_file() else Path(place)
            with (root / name).open("rb") as file:
                content = file.read(LARGEST)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise CmlBenchError(f"{place} holds no {name}: {self.get}") from None
        except (
            OSError,
            EOFError,
            ValueError,
            zipfile.BadZipFile,
            zlib.error,
            NotImplementedError,
            RuntimeError,
        ) as error:
            raise CmlBenchError(f"{name} in {place} cannot be read ({error}): {self.get}") from None
        found, expected = hashlib.sha256(content).hexdigest(), self.sha256[name]
        if found != expected:
            raise CmlBenchError(
                f"{name} in {place} is not the one that {self.title} published "
                f"(sha256 {found}, published {expected}): {self.get}"
            )
        return content


def select_listed(table: LabelTable, lists: Sequence[Ids], title: str) -> LabelTable:
    """Return the images of a table that some list names, in the table's order.

    Raises:
        CmlBenchError: If an image is not in the table, whether or not image files are missing.
    """
    listed = np.unique(np.concatenate(lists))
    absent = np.setdiff1d(listed, table.ids, assume_unique=True)
    if len(absent):
        raise CmlBenchError(
            f"{len(absent)} of {len(listed)} images that {title} lists are not in the label files "
            f"(first: id {absent[0]}): use the complete official label files"
        )
    return table.select(np.isin(table.ids, listed))
