"""Reading ``.npz`` files that come from elsewhere: plain arrays, of the size that they say."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cml_bench.files import refuse_special

ALWAYS: Final = 2**30
"""Bytes that a file may always unpack to."""
RATIO: Final = 100
"""How many times its own size a file may unpack to beyond that. Labels and logits that look like any stay below."""


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a file by name; nothing that it holds is executed.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, holds objects or an array twice, or unpacks to too much; says which array.
    """
    try:
        refuse_special(path)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename.removesuffix(".npy") for member in members]
            size, most = sum(member.file_size for member in members), max(ALWAYS, RATIO * path.stat().st_size)
            if size > most:
                raise ValueError(f"it unpacks to {size} bytes, more than {most}")
            for name, times in Counter(names).items():
                if times > 1:
                    raise ValueError(f"it holds array {name!r:.60} twice")
            return {name: _read(archive, member) for name, member in zip(names, members, strict=True)}
    except FileNotFoundError:
        raise
    except Exception as error:
        # zipfile, zlib and numpy have errors of their own for damaged bytes; a shape may be none at all.
        raise ValueError(f"{' '.join(str(error).split())[:200] or type(error).__name__}") from error


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise ValueError(f"{member.filename!r:.60} is of version {version}")
        shape, _, kind = read_header[version](file)
        told = int(np.prod([int(n) for n in shape], dtype=object)) * kind.itemsize
        if kind.hasobject or kind.names is not None:
            raise ValueError(f"{member.filename!r:.60} holds no plain numbers or texts")
        if min(shape, default=0) < 0 or told > member.file_size:
            raise ValueError(f"{member.filename!r:.60} announces {told} bytes and holds {member.file_size}")
    with archive.open(member) as file:
        array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
            raise ValueError(f"{member.filename!r:.60} holds more than it announces")
    return array
