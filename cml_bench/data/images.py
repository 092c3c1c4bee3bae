"""Reading image files, and bringing images to one size."""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2.functional import resize

from cml_bench.errors import CmlBenchError
from cml_bench.files import read_plain

JPEG_START = b"\xff\xd8\xff"
JPEG_END = b"\xff\xd9"
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND\xaeB\x60\x82"
_OTHERS = {b"GIF": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_HEIF = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftypavif")
TAIL_BYTES = 512
LARGEST = 2**28
"""Pixels of a picture, 0.8 GB once decoded: about the most that WebP knows. A file of some megabytes can say more."""


def read_image(path: Path) -> Tensor:
    """Return the image as a (3, H, W) uint8 RGB tensor; gray, palette and CMYK files are converted.

    Raises:
        CmlBenchError: If the file is missing, or is not a whole 8-bit JPEG, PNG or WebP file.
    """
    try:
        content = read_plain(path)
    except OSError as error:
        if not path.exists() or path.is_dir():
            raise CmlBenchError(f"image {path} does not exist; put the file there") from None
        raise CmlBenchError(f"image {path} cannot be read ({error.strerror}); make it readable") from None
    if not content:
        raise CmlBenchError(f"image {path} cannot be decoded (the file is empty); fetch the file again")
    kind = next((kind for start, kind in _OTHERS.items() if content.startswith(start)), None)
    if kind or content[4:12] in _HEIF:
        # A GIF could be decoded, but each frame would be, and there may be thousands.
        raise CmlBenchError(f"image {path} is a {kind or 'HEIC or AVIF'}; convert it to JPEG or PNG")
    if _pixels(content) > LARGEST:
        raise CmlBenchError(f"image {path} says it has {_pixels(content)} pixels, more than {LARGEST}; make it smaller")
    if content.startswith(PNG_START) and not _has_whole_chunks(content):
        raise CmlBenchError(f"image {path} cannot be decoded (a PNG chunk is damaged); fetch the file again")
    try:
        image: Tensor = decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
    except RuntimeError as error:
        # The decoder names its function, source file and line first, and may advise or trace calls behind.
        reason = re.split(r"\.\s|\n", re.split(r":\d+,\s*", str(error), maxsplit=1)[-1])[0]
        raise CmlBenchError(f"image {path} cannot be decoded ({reason}); fetch the file again") from None
    if image.dtype != torch.uint8 or image.ndim != 3:
        found = f"{tuple(image.shape)} {image.dtype}"
        raise CmlBenchError(f"image {path} decodes to {found} instead of one 8-bit picture; convert it to JPEG or PNG")
    return image


def squash(images: Tensor, side: int) -> Tensor:
    """Return (..., 3, H, W) images as (..., 3, side, side): the whole of each, at the cost of its aspect ratio."""
    if images.shape[-2:] == (side, side):
        return images
    resized: Tensor = resize(images, [side, side], antialias=True)
    return resized


def _pixels(content: bytes) -> int:
    """Return how many pixels a JPEG or PNG file says it has; 0 if it does not say, and for any other file."""
    if content.startswith(PNG_START):
        return int.from_bytes(content[16:20], "big") * int.from_bytes(content[20:24], "big")
    place = 2 if content.startswith(JPEG_START) else -1
    while 0 <= place < len(content) - 9:
        kind = content[place + 1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(content[place + 5 : place + 7], "big") * int.from_bytes(
                content[place + 7 : place + 9], "big"
            )
        if kind == 0xFF:
            place += 1
        else:
            alone = kind in (0x00, 0x01) or 0xD0 <= kind <= 0xD9
            end = place + 2 if alone else place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
            # The decoder passes over what lies between two marks, too.
            place = content.find(b"\xff", end)
    return 0


def _has_whole_chunks(content: bytes) -> bool:
    """Return whether every chunk of a PNG file has its checksum, up to the last.

    The decoder must not see one that has not: torchvision 0.29 takes the whole process down.
    """
    place = len(PNG_START)
    while place + 12 <= len(content):
        end = place + 8 + int.from_bytes(content[place : place + 4], "big")
        if zlib.crc32(content[place + 4 : end]) != int.from_bytes(content[end : end + 4].ljust(4, b"\0"), "big"):
            return False
        if content[place + 4 : place + 8] == b"IEND":
            return True
        place = end + 4
    return False


def is_intact(path: Path) -> bool:
    """Return whether an image can be read. One that begins and ends as JPEG or PNG files do is not decoded for it.

    A download cut short lacks the end marker; phones put more behind it, WebP has none.
    """
    if _ends_as_it_should(path):
        return True
    try:
        read_image(path)
    except CmlBenchError:
        return False
    return True


def _ends_as_it_should(path: Path) -> bool:
    """Return whether a file has the first and last bytes of a JPEG or PNG image.

    Cameras pad files, so zero bytes and line ends behind the marker are no fault.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(PNG_START))
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            tail = file.read().rstrip(b"\0\r\n")
    except OSError:
        return False
    return (head.startswith(JPEG_START) and tail.endswith(JPEG_END)) or (head == PNG_START and tail.endswith(PNG_END))
