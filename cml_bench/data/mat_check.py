"""Whether a MATLAB file is built as its format says; scipy's reader trusts it, and some damage takes the process down.

Format: "MAT-File Format", level 5, The MathWorks.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import Final, NoReturn

from cml_bench.npz import ALWAYS, RATIO

_NUMBERS: Final = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
"""Bytes of a number by its type."""
_TEXTS: Final = (1, 2, 4, 16, 17, 18)
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_CELL, _STRUCT, _CHAR, _FIRST_NUMERIC, _LAST_NUMERIC = 1, 2, 4, 6, 15
_HEADER, _DEEPEST, _MOST_AXES = 128, 32, 32


def check_mat(content: bytes) -> None:
    """Look at every element of a level 5 MAT-file.

    Cells, structs, texts and full arrays are known; what attribute data sets do not hold (sparse arrays, functions,
    objects of classes) is refused.

    Args:
        content: The file.

    Raises:
        ValueError: If an element reaches out of the one that holds it, has an unknown type, or another size than its
            dimensions; or if the file unpacks to too much. Says at which byte.
    """
    if len(content) < _HEADER or content[126:128] not in (b"IM", b"MI"):
        raise ValueError("it has no header of MATLAB 5")
    order = "<" if content[126:128] == b"IM" else ">"
    place, left = _HEADER, max(ALWAYS, RATIO * len(content))
    while place < len(content):
        kind, start, end, after = _Part(content, order, "").element(place, len(content))
        if kind == _COMPRESSED:
            inside = _inflate(content[start:end], left, start)
            left -= len(inside)
            part = _Part(inside, order, f" of what is packed at byte {start}")
            kind, start, end, _ = part.element(0, len(inside))
        else:
            part = _Part(content, order, "")
        if kind != _MATRIX:
            part.fail(start, f"a variable was expected, not type {kind}")
        part.matrix(start, end, 0)
        place = after


def _inflate(packed: bytes, most: int, start: int) -> bytes:
    unpack = zlib.decompressobj()
    try:
        inside = unpack.decompress(packed, most + 1)
    except zlib.error as error:
        raise ValueError(f"what is packed at byte {start} is damaged: {error}") from None
    if len(inside) > most:
        raise ValueError(f"what is packed at byte {start} unpacks to more than {most} bytes")
    if not unpack.eof:
        raise ValueError(f"what is packed at byte {start} breaks off")
    return inside


class _Part:
    """Bytes that elements lie in: the file, or what one of its elements unpacks to.

    Args:
        content: The bytes.
        order: Of bytes, as ``struct`` writes it.
        where: Which bytes, for the error.
    """

    def __init__(self, content: bytes, order: str, where: str) -> None:
        self._content = content
        self._tag = struct.Struct(f"{order}2I")
        self._order = order
        self._where = where

    def fail(self, place: int, what: str) -> NoReturn:
        raise ValueError(f"{what}, at byte {place}{self._where}")

    def element(self, place: int, limit: int) -> tuple[int, int, int, int]:
        """Return the type of the element at a place, where its data start and end, and where the next one is."""
        if place + 8 > limit:
            self.fail(place, "an element breaks off")
        kind, size = self._tag.unpack_from(self._content, place)
        if kind >> 16:
            # Up to four bytes stand in the tag itself.
            kind, size, start, after = kind & 0xFFFF, kind >> 16, place + 4, place + 8
            if size > 4:
                self.fail(place, f"a short element has {size} bytes")
        else:
            start = place + 8
            after = start + size if kind == _COMPRESSED else start + -(-size // 8) * 8
        if start + size > limit:
            self.fail(place, f"an element of {size} bytes breaks off")
        # The last one may lack what fills it up.
        return kind, start, start + size, min(after, limit)

    def matrix(self, place: int, limit: int, depth: int) -> None:
        """Look at what is inside an array."""
        if place == limit:
            return  # an empty one
        if depth > _DEEPEST:
            self.fail(place, "cells are nested too deeply")
        flags, place = self._numbers(place, limit, _UINT32)
        dims, place = self._numbers(place, limit, _INT32)
        kind, start, end, place = self.element(place, limit)
        if len(flags) != 2 or not 2 <= len(dims) <= _MOST_AXES or min(dims) < 0 or kind != _INT8:
            self.fail(start, "an array has no flags, dimensions or name")
        count, kind = math.prod(dims), flags[0] & 0xFF
        if kind == _STRUCT:
            length, place = self._numbers(place, limit, _INT32)
            named, start, end, place = self.element(place, limit)
            if named != _INT8 or len(length) != 1 or length[0] < 1 or (end - start) % length[0]:
                self.fail(start, "a struct has no names of fields")
            count *= (end - start) // length[0]
        if kind in (_CELL, _STRUCT):
            if count > (limit - place) // 8:
                self.fail(place, f"a cell or struct array announces {count} items")
            for _ in range(count):
                inner, start, end, place = self.element(place, limit)
                if inner != _MATRIX:
                    self.fail(start, f"an item was expected, not type {inner}")
                self.matrix(start, end, depth + 1)
        elif kind == _CHAR:
            inner, start, *_ = self.element(place, limit)
            if inner not in _TEXTS:
                self.fail(start, f"a text was expected, not type {inner}")
        elif _FIRST_NUMERIC <= kind <= _LAST_NUMERIC and not flags[0] & 0x800:
            inner, start, end, _ = self.element(place, limit)
            if inner not in _NUMBERS or end - start != count * _NUMBERS[inner]:
                self.fail(start, f"numbers do not fill their dimensions {dims}")
        else:
            self.fail(place, f"an array of class {kind} is none that data sets have")

    def _numbers(self, place: int, limit: int, kind: int) -> tuple[tuple[int, ...], int]:
        """Return whole numbers of four bytes and where the next element is."""
        found, start, end, after = self.element(place, limit)
        if found != kind or (end - start) % 4:
            self.fail(place, f"numbers of type {kind} were expected, not {found}")
        letter = "I" if kind == _UINT32 else "i"
        return struct.unpack(f"{self._order}{(end - start) // 4}{letter}", self._content[start:end]), after
