"""How a camera was held, as its JPEG file says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

_HEAD = 2**16 + 64
"""Bytes that hold the first segments of a JPEG file; one has at most 64 KiB, and Exif wants to be the first."""
_MARK = b"Exif\0\0"
_ORIENTATION = 0x0112


def is_turned(path: Path) -> bool:
    """Return whether a JPEG file asks to be turned or mirrored before it is shown, by its Exif orientation."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    start = head.find(_MARK) + len(_MARK)
    if not head.startswith(b"\xff\xd8\xff") or start < len(_MARK):
        return False
    block = head[start:]
    order: Literal["little", "big"] = "little" if block.startswith(b"II") else "big"

    def number(place: int, size: int) -> int:
        return int.from_bytes(block[place : place + size], order)

    directory = number(4, 4)
    entries = (directory + 2 + 12 * i for i in range(number(directory, 2)))
    # 1 is upright; a damaged block says anything.
    return any(number(entry, 2) == _ORIENTATION and 2 <= number(entry + 8, 2) <= 8 for entry in entries)
