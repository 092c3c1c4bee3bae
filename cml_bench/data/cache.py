"""A disk cache of frozen features and of decoded images: computed once, streamed to disk, read back memory-mapped."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import platformdirs
import torch
from filelock import FileLock
from torch import Tensor

from cml_bench.errors import CmlBenchError
from cml_bench.files import remove_leftovers, replace_file

CacheKey = Mapping[str, str | int]

_CHECKSUM = struct.Struct("<I")
_PIECE = 1 << 22


@dataclass(frozen=True)
class Shelf:
    """A part of the cache.

    Attributes:
        name: What lies in it; its folder.
        dtype: Type of its numbers.
    """

    name: str
    dtype: torch.dtype


FEATURES = Shelf("features", torch.float16)
PIXELS = Shelf("pixels", torch.uint8)


def default_cache_dir() -> Path:
    """Return the folder named by ``CML_BENCH_CACHE``, else the user's cache folder."""
    named = os.environ.get("CML_BENCH_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("cml_bench"))


def cached_rows(
    cache_dir: Path, key: CacheKey, n: int, compute: Callable[[], Iterable[Tensor]], shelf: Shelf = FEATURES
) -> Tensor:
    """Return the n rows stored under a key, computing and storing them the first time.

    Rows are stored in a ``.npy`` file named by the sha256 of the key; a small JSON file beside it holds the
    key for human eyes. The file is written aside and then put in place, so a reader never sees half of one; of two
    processes that ask for the same key one computes and the other waits. The last four bytes of the file, which readers
    of arrays pass over, are the CRC-32 of all before them: a process compares them when it first opens the file.

    Args:
        cache_dir: Folder, made if need be.
        key: Everything the rows depend on.
        n: Number of rows that must come.
        compute: Yields blocks of rows, (b, ...), in order; called only if nothing usable is stored.
        shelf: What the rows are.

    Returns:
        (n, ...) of the shelf's type, memory-mapped: a row is read when it is used, and writing to it changes no file.

    Raises:
        CmlBenchError: If the folder cannot be written, or a feature does not fit float16.
    """
    stored = lookup(cache_dir, key, n, shelf)
    if stored is not None:
        return stored
    path = _path(cache_dir, key, shelf)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            stored = lookup(cache_dir, key, n, shelf)
            if stored is not None:
                return stored
            # Whoever was killed while writing held the lock.
            remove_leftovers(path)
            replace_file(path, lambda file: _stream(file, n, compute(), shelf))
            text = json.dumps(dict(key), indent=1, sort_keys=True)
            replace_file(path.with_suffix(".json"), lambda file: file.write(text.encode()))
    except OSError as error:
        mend = "free some space" if error.errno == errno.ENOSPC else "make it writable"
        raise CmlBenchError(
            f"{shelf.name} cannot be stored in {path.parent} ({error.strerror}); {mend} or set CML_BENCH_CACHE "
            "elsewhere"
        ) from None
    return _map(path)


def lookup(cache_dir: Path, key: CacheKey, n: int, shelf: Shelf = FEATURES) -> Tensor | None:
    """Return the (n, ...) rows stored under a key, or None if there are none; warns of a damaged file."""
    path = _path(cache_dir, key, shelf)
    try:
        state = path.stat()
        whole = _is_whole(path, state.st_size, state.st_mtime_ns)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        warnings.warn(f"cached {shelf.name} {path} cannot be read ({error}) and will be computed again", stacklevel=2)
        return None
    if not whole:
        warnings.warn(
            f"cached {shelf.name} {path} are damaged (their checksum is wrong) and will be computed again", stacklevel=2
        )
        return None
    rows = _map(path)
    if rows.dtype != shelf.dtype or rows.dim() < 2 or len(rows) != n:
        warnings.warn(
            f"cached {shelf.name} {path} hold {rows.dtype} {tuple(rows.shape)} for {n} images and will be computed "
            "again",
            stacklevel=2,
        )
        return None
    return rows


def _path(cache_dir: Path, key: CacheKey, shelf: Shelf) -> Path:
    canonical = json.dumps(dict(key), sort_keys=True, separators=(",", ":"))
    return cache_dir / shelf.name / f"{hashlib.sha256(canonical.encode()).hexdigest()}.npy"


def _map(path: Path) -> Tensor:
    # Copy-on-write: torch has no read-only tensors, and nobody may change the file by accident.
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


@functools.cache
def _is_whole(path: Path, size: int, modified: int) -> bool:
    """Return whether a file ends in the checksum of its content; it is read once, while size and time are the same."""
    left, found = size - _CHECKSUM.size, 0
    with path.open("rb") as file:
        while piece := file.read(min(_PIECE, max(left, 0))):
            found = zlib.crc32(piece, found)
            left -= len(piece)
        return file.read() == _CHECKSUM.pack(found)


class _Summed:
    """Writes to a file and keeps the checksum of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.checksum = 0

    def write(self, data: bytes | memoryview) -> int:
        self.checksum = zlib.crc32(data, self.checksum)
        return self.file.write(data)


def _stream(target: IO[bytes], n: int, blocks: Iterable[Tensor], shelf: Shelf) -> None:
    """Write blocks of rows as one ``.npy`` array, a block at a time, and their checksum."""
    file = _Summed(target)
    written = 0
    for block in blocks:
        rows = block.detach().to("cpu", shelf.dtype).contiguous()
        if rows.is_floating_point() and not bool(torch.isfinite(rows).all()):
            raise CmlBenchError(
                f"features of rows {written} to {written + len(rows)} do not fit float16 or are NaN; check the weights"
            )
        if not written:
            header = {"descr": rows.numpy().dtype.str, "fortran_order": False, "shape": (n, *rows.shape[1:])}
            np.lib.format.write_array_header_1_0(file, header)
        file.write(rows.numpy().data)
        written += len(rows)
    if written != n:
        raise ValueError(f"compute() yielded {written} rows where {n} were announced")
    target.write(_CHECKSUM.pack(file.checksum))
